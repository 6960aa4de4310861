// How figures are written for people.

/** A figure with its unit, which its name tells: `p99Ms` 12.3 ms, `streamKb` 30 KB, `timesAlone` 1.5×. */
export function written(figure: string, value: unknown): string {
  if (typeof value !== "number" || !Number.isFinite(value)) return "";
  if (figure.endsWith("Ms")) return value >= 1_000 ? `${number(value / 1_000)} s` : `${number(value)} ms`;
  if (figure.endsWith("Kb")) return `${number(value)} KB`;
  if (figure.endsWith("Mb")) return `${number(value)} MB`;
  if (figure.endsWith("Us") || figure.endsWith("UsEach")) return `${number(value)} µs`;
  if (figure.startsWith("times") || figure === "growth") return `${number(value)}×`;
  if (isRate(figure)) return `${number(value)}/s`;
  return number(value);
}

/** The middle one of several runs. */
export function medianOf(figures: readonly Readonly<Record<string, unknown>>[], name: string): number {
  const values = figures.map((each) => Number(each[name])).sort((a, b) => a - b);
  return values[Math.floor(values.length / 2)] ?? Number.NaN;
}

/** Of which more is better. */
export function isRate(figure: string): boolean {
  return figure === "rate" || figure.endsWith("PerSecond");
}

/** Whole from 100 on, three digits below. */
export function number(value: unknown): string {
  if (typeof value !== "number") return "";
  return value >= 100 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)));
}

/** Lines of a table whose columns stand below each other: the first to the left, the others to the right. */
export function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length);
  return rows.map((row) =>
    row
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
      .join("  ")
      .trimEnd(),
  );
}
