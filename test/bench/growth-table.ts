import { written } from "./figures.ts";

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

/** How the cost grew: flat, with its size, or in between. */
export function grew({ sizes, values }: GrowthRow): "flat" | "falls" | "below linear" | "linear" | "ABOVE LINEAR" {
  const size = sizes[1] / sizes[0];
  const cost = values[1] / values[0];
  // As a power of the size, so that it means the same whatever the step was.
  const power = Math.log(cost) / Math.log(size);
  if (power < -0.2) return "falls";
  if (power <= 0.2) return "flat";
  if (power < 0.8) return "below linear";
  return power <= 1.2 ? "linear" : "ABOVE LINEAR";
}

/** In Markdown. */
export function growthTable(rows: readonly GrowthRow[]): string {
  const lines = rows.map((row) => {
    const { of, what, figure, sizes, values } = row;
    const at = values.map((value) => written(figure, value));
    const size = sizes.map((each) => each.toLocaleString("en"));
    return `| ${of} | ${what} | ${size[0]}: ${at[0]} | ${size[1]}: ${at[1]} | ${grew(row)} |`;
  });
  return ["| more | what | from | to | it is |", "| --- | --- | --- | --- | --- |", ...lines].join("\n");
}
