import { aligned, isRate, written } from "./figures.ts";

/** One figure at two sizes. */
export type GrowthRow = {
  /** What there is ten times as much of. */
  of: string;
  figure: string;
  /** In words: what the figure is. */
  what: string;
  sizes: readonly [number, number];
  values: readonly [number, number];
};

/** How the cost grew: flat, with its size, or in between. Half the rate is twice the cost. */
export function grew({
  figure,
  sizes,
  values,
}: GrowthRow): "flat" | "falling" | "below linear" | "linear" | "ABOVE LINEAR" | "not measured" {
  const size = sizes[1] / sizes[0];
  const cost = isRate(figure) ? values[0] / values[1] : values[1] / values[0];
  // As a power of the size, so that it means the same whatever the step was.
  const power = Math.log(cost) / Math.log(size);
  if (!Number.isFinite(power)) return "not measured";
  if (power < -0.2) return "falling";
  if (power <= 0.2) return "flat";
  if (power < 0.8) return "below linear";
  return power <= 1.2 ? "linear" : "ABOVE LINEAR";
}

const HEAD = ["more", "what", "from", "to", "the cost is"];

function cellsOf(row: GrowthRow): string[] {
  const [small, large] = row.sizes.map(
    (size, n) => `${size.toLocaleString("en")}: ${written(row.figure, row.values[n])}`,
  );
  return [row.of, row.what, small ?? "", large ?? "", grew(row)];
}

/** For a terminal. */
export function growthLines(rows: readonly GrowthRow[]): string[] {
  return aligned([HEAD, ...rows.map(cellsOf)]);
}

/** In Markdown. */
export function growthTable(rows: readonly GrowthRow[]): string {
  const lines = [HEAD, HEAD.map(() => "---"), ...rows.map(cellsOf)];
  return lines.map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}
