import type { Round } from "./main.ts";

/** What the rounds came to: a line for each fault, then each failure with the command that repeats it. */
export function tableOf(rounds: readonly Round[], scale: number): string[] {
  const lines = [...Map.groupBy(rounds, ({ name }) => name)].map(([name, of]) => {
    const failed = of.filter(({ failure }) => failure !== undefined).length;
    const recoveries = of.flatMap(({ facts }) => facts?.recoveryMs ?? []).map(Number);
    return [name, `${of.length}`, `${failed}`, spread(recoveries), spread(of.map(({ seconds }) => seconds * 1000))];
  });
  const rows = [["fault", "rounds", "failed", "recovered after (median, most)", "a round (median, most)"], ...lines];
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? [];
  const table = rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
  const failures = rounds.flatMap(({ name, seed, failure }) =>
    failure === undefined
      ? []
      : ["", `FAILED: ${name}: ${failure}`, `repeat: npm run test:faults -- ${name} --seed ${seed} --scale ${scale}`],
  );
  return [...table, ...failures];
}

function spread(times: readonly number[]): string {
  if (times.length === 0) return "";
  const sorted = [...times].sort((a, b) => a - b);
  const seconds = (ms: number | undefined) => `${((ms ?? 0) / 1000).toFixed(1)} s`;
  return `${seconds(sorted[Math.floor(sorted.length / 2)])}, ${seconds(sorted.at(-1))}`;
}
