import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { chart } from "./chart.ts";
import { type GrowthRow, growthTable } from "./growth-table.ts";
import { RESULTS, ROOT } from "./lab.ts";
import { type Result, summaryTable } from "./summary.ts";

const CHART = "test/bench/chart.svg";
const START = "<!-- bench:start -->";
const END = "<!-- bench:end -->";

/** The last result of each scenario, in this order; those never run, or written by an older benchmark, are left out. */
export async function lastResults(names: readonly string[]): Promise<Result[]> {
  const files = names.map((name) => join(RESULTS, `${name}.json`)).filter((file) => existsSync(file));
  const found = await Promise.all(
    files.map(async (file) => JSON.parse(await readFile(file, "utf8")) as Partial<Result>),
  );
  return found.filter((result) => result.adjusted !== undefined) as Result[];
}

/** Puts the last results into the README, and their picture beside the benchmarks. @throws when there are none. */
export async function writeReadme(names: readonly string[]): Promise<string[]> {
  const results = await lastResults(names);
  if (results.length === 0) throw new Error("there are no results yet: npm run bench");
  const [growth] = await lastResults(["growth"]);
  const [tracing] = await lastResults(["tracing"]);
  const file = join(ROOT, "README.md");
  await writeFile(join(ROOT, CHART), chart(results));
  await writeFile(file, withBenchmarks(await readFile(file, "utf8"), sectionOf(results, { growth, tracing })));
  return [CHART, "README.md"];
}

/** @throws when the README has no place for it. */
export function withBenchmarks(readme: string, section: string): string {
  const [from, to] = [readme.indexOf(START), readme.indexOf(END)];
  if (from < 0 || to < from) throw new Error(`the README has no ${START} … ${END}`);
  return `${readme.slice(0, from + START.length)}\n\n${section}\n\n${readme.slice(to)}`;
}

/** Those that are no line of the table. */
type Others = { growth?: Result | undefined; tracing?: Result | undefined };

export function sectionOf(results: readonly Result[], { growth, tracing }: Others): string {
  const days = [...new Set(results.map(({ date }) => date.slice(0, 10)))].sort();
  const when = days.length === 1 ? days.join() : `${days.at(0)} to ${days.at(-1)}`;
  const { cores, node, postgres, nats, redis } = results[0]?.machine ?? {};
  return [
    `![How Posthorn stands to its peers in each scenario](${CHART})`,
    summaryTable(results),
    `Measured ${when} with everything, the load clients too, on the same ${cores} cores: Node ${node}, Postgres ${postgres}, NATS ${nats}, Redis ${redis}. To repeat: \`npm run bench\`, then \`npm run bench -- --readme\`.`,
    ...(growth === undefined
      ? []
      : [
          "What ten times as much costs (`npm run bench -- growth`):",
          growthTable((growth.grown ?? []) as readonly GrowthRow[]),
        ]),
    ...(tracing === undefined ? [] : [tracingLine(tracing)]),
  ].join("\n\n");
}

function tracingLine({ costShare, rateShare }: Result): string {
  // Less than the runs differ from each other may come out below nothing.
  const percent = (share: unknown) => (Number(share) <= 0 ? "nothing" : `${(100 * Number(share)).toFixed(1)} %`);
  return (
    `A collector, at production's sampling, costs \`end-to-end\` ${percent(costShare)} of the processor time for each ` +
    `notification and ${percent(rateShare)} of its rate (\`npm run bench -- tracing\`).`
  );
}
