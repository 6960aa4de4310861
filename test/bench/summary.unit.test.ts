import { expect, test } from "vitest";
import { chart } from "./chart.ts";
import { written } from "./figures.ts";
import { type GrowthRow, grew, growthTable } from "./growth-table.ts";
import { sectionOf, withBenchmarks } from "./readme.ts";
import { type Result, standings, summaryLines, summaryTable } from "./summary.ts";

const result = (change: Partial<Result> = {}): Result => ({
  scenario: "latency",
  about: "send → on stream",
  compared: { figure: "p99Ms", better: "less" },
  p99Ms: 20,
  bars: [{ figure: "p99Ms", better: "less", bar: 50, aim: 15, reached: "bar" }],
  peers: { "socket-stack": { p99Ms: 50 }, nchan: { p99Ms: 2 }, gone: { skipped: "no apt" } },
  faults: [],
  adjusted: {},
  quiet: true,
  date: "2026-01-02T03:04:05.000Z",
  machine: { cores: 2, node: "24.0.0", postgres: "18.4", nats: "2.9.10", redis: "7.0.15" },
  ...change,
});

const throughput = (rate: number) =>
  result({
    scenario: "accept",
    compared: { figure: "rate", better: "more" },
    rate,
    bars: [{ figure: "rate", better: "more", bar: 5_000, aim: 8_000, reached: "aim" }],
    peers: { "grpc-echo": { rate: 20_000 } },
  });

test("we are ahead of a peer that takes longer or does less", () => {
  expect(standings(result()).map(({ peer, advantage }) => [peer, advantage])).toEqual([
    ["socket-stack", 2.5],
    ["nchan", 0.1],
  ]);
  expect(standings(throughput(10_000)).map(({ advantage }) => advantage)).toEqual([0.5]);
});

test("a figure that was not measured compares with nothing", () => {
  expect(standings(result({ p99Ms: 0 }))).toEqual([]);
  expect(standings(result({ peers: { other: { rate: 3 }, zero: { p99Ms: 0 } } }))).toEqual([]);
});

test("the table says what was reached, how peers did, and which was skipped", () => {
  const table = summaryTable([result(), throughput(9_000)]);
  expect(table).toContain(
    "| `latency` | p99Ms | 20 ms | 50 ms | 15 ms | bar | 67.5 ms: aim | socket-stack 50 ms: 2.5× ahead; nchan 2 ms: 10× behind; gone skipped (no apt) |",
  );
  expect(table).toContain(
    "| `accept` | rate | 9,000/s | 5,000/s | 8,000/s | aim | 3,704/s: aim | grpc-echo 20,000/s: 2.2× behind |",
  );
});

test("why a peer was skipped is said in one line that does not break the table", () => {
  const skipped = `client: read tcp | reset ${"x".repeat(200)}\n  more of it`;
  const [, , row = ""] = summaryTable([result({ peers: { gone: { skipped } } })]).split("\n");
  expect(row).toContain("gone skipped (client: read tcp \\| reset xxx");
  expect(row).not.toContain("more of it");
  expect(row.length).toBeLessThan(260);
});

test("what is the same on every machine has no other bar, and without the yardstick nothing has", () => {
  const bars = [{ figure: "streamKb", better: "less", bar: 45, aim: 30, reached: "bar" }] as const;
  const table = summaryTable([result({ scenario: "streams", streamKb: 40, bars }), throughput(9_000)]);
  expect(table).toContain("| streamKb | 40 KB | 45 KB | 30 KB | bar |  |");
  expect(summaryTable([result()])).toContain("| bar |  | socket-stack");
});

test("results of other sizes, of a busy machine, or with faults are told from those that count", () => {
  const text = summaryLines([result({ adjusted: { users: 500 }, quiet: false, faults: ["lost: 1"] })]).join("\n");
  expect(text).toContain("latency (users 500, not quiet, FAULTS)");
});

test("peers compared in a figure without a goal stand in the scenario's first row, with ours", () => {
  const bars = [{ figure: "streamKb", better: "less", bar: 45, aim: 30, reached: "aim" }] as const;
  const text = summaryLines([result({ streamKb: 20, bars })]).join("\n");
  expect(text).toMatch(/streamKb +20 KB .*socket-stack 50 ms: 2\.5× ahead.*\(p99Ms 20 ms\)/);
});

test("figures are written with the unit that their name tells", () => {
  const figures = { p99Ms: 12.345, completeMs: 1_234, streamKb: 30, rssMb: 149.6, timesAlone: 1.5, rate: 12_345.6 };
  expect(Object.entries(figures).map(([name, value]) => written(name, value))).toEqual([
    "12.3 ms",
    "1.23 s",
    "30 KB",
    "150 MB",
    "1.5×",
    "12,346/s",
  ]);
  expect(written("p99Ms", undefined)).toBe("");
});

test("the picture has a bar for each peer, ahead to the right and behind to the left of the middle", () => {
  const svg = chart([result(), throughput(9_000)]);
  const bars = [...svg.matchAll(/<rect class="(\w+)" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"/g)];
  const middle = Number(/class="axis" x1="([\d.]+)"/.exec(svg)?.[1]);
  expect(bars.map(([, side]) => side)).toEqual(["ahead", "behind", "behind"]);
  for (const [, side, x, width] of bars) {
    if (side === "ahead") expect(Number(x)).toBe(middle);
    else expect(Number(x) + Number(width)).toBeCloseTo(middle, 0);
  }
  expect(svg).toContain("prefers-color-scheme: dark");
});

test("what is beyond the scale stays in the picture", () => {
  const svg = chart([result({ peers: { slow: { p99Ms: 1e9 }, quick: { p99Ms: 1e-9 } } })]);
  for (const [, x, width] of svg.matchAll(/<rect class="\w+" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"/g)) {
    expect(Number(x)).toBeGreaterThan(0);
    expect(Number(x) + Number(width)).toBeLessThan(860);
  }
});

const row = (from: number, to: number): GrowthRow => {
  return { of: "rows", figure: "p50Ms", what: "a page", sizes: [1_000, 10_000], values: [from, to] };
};

test("growth is named by its power, not by its factor", () => {
  expect([5, 10, 12, 40, 100, 120, 900].map((to) => grew(row(10, to)))).toEqual([
    "falling",
    "flat",
    "flat",
    "below linear",
    "linear",
    "linear",
    "ABOVE LINEAR",
  ]);
  const rate = (to: number): GrowthRow => ({ ...row(1000, to), figure: "rate" });
  expect([2000, 1000, 500, 100, 10].map((to) => grew(rate(to)))).toEqual([
    "falling",
    "flat",
    "below linear",
    "linear",
    "ABOVE LINEAR",
  ]);
  expect([row(0, 1), row(1, 0), row(Number.NaN, 1)].map(grew)).toEqual(Array(3).fill("not measured"));
  expect(growthTable([row(2, 2)])).toContain("| rows | a page | 1,000: 2 ms | 10,000: 2 ms | flat |");
});

test("the README's chapter is written between its marks, and again in the same place", () => {
  const section = sectionOf([result()], { tracing: result({ costShare: 0.0312, rateShare: 0.02 }) });
  const before = "a\n<!-- bench:start -->\nold\n<!-- bench:end -->\nz\n";
  const once = withBenchmarks(before, section);
  expect(once).toContain("Measured 2026-01-02 with everything");
  expect(once).toContain("3.1 % of the processor time for each notification and 2.0 % of its rate");
  expect(once).not.toContain("old");
  expect(once.startsWith("a\n") && once.endsWith("\nz\n")).toBe(true);
  expect(withBenchmarks(once, section)).toBe(once);
  expect(() => withBenchmarks("no marks", section)).toThrow("bench:start");
});
