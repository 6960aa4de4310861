import { aligned, isRate, written } from "./figures.ts";
import type { Machine } from "./report.ts";
import type { Compared, Figures, Goal, Reached, Skipped } from "./scenario.ts";
import { isSkipped, reached } from "./scenario.ts";

/** What `.results/bench/<scenario>.json` holds, as far as a summary of all looks at it. */
export type Result = Figures & {
  scenario: string;
  about: string;
  compared?: Compared;
  bars: readonly (Goal & { reached: Reached })[];
  peers: Readonly<Record<string, Figures | Skipped>>;
  faults: readonly string[];
  /** What the command line had different from the scenario's own numbers. */
  adjusted: Readonly<Record<string, number>>;
  quiet: boolean;
  date: string;
  machine: Machine;
};

/** How we stand to a peer: above 1 we are better by that factor, below 1 worse. */
export type Standing = { peer: string; theirs: number; advantage: number };

/** Our standing to each peer in the figure in which the scenario compares. */
export function standings({ compared, peers, ...result }: Result): Standing[] {
  const ours = compared === undefined ? undefined : result[compared.figure];
  if (compared === undefined || typeof ours !== "number" || ours <= 0) return [];
  return Object.entries(peers).flatMap(([peer, figures]) => {
    const theirs = isSkipped(figures) ? undefined : figures[compared.figure];
    if (typeof theirs !== "number" || theirs <= 0) return [];
    return [{ peer, theirs, advantage: compared.better === "more" ? ours / theirs : theirs / ours }];
  });
}

/**
 * What a bare grpc-js server (`grpc-echo`) answers a second on the machines that the bars were set on, at least. Another
 * machine, a slower one mostly, does in proportion what is bound by its processor.
 */
const ECHO_OF_BARS = 27_000;

/** How fast this machine is beside those of the bars; undefined without an `accept` run with its peers. */
export function speedOf(results: readonly Result[]): number | undefined {
  const echo = results.find(({ scenario }) => scenario === "accept")?.peers["grpc-echo"];
  const rate = echo === undefined || isSkipped(echo) ? undefined : echo.rate;
  return rate === undefined ? undefined : rate / ECHO_OF_BARS;
}

/** The goal as it is at this speed; undefined for what is the same on every machine: memory, and ratios. */
function goalAt(goal: Goal, speed: number | undefined): Goal | undefined {
  if (speed === undefined) return undefined;
  if (isRate(goal.figure)) return { ...goal, bar: goal.bar * speed, aim: goal.aim * speed };
  if (goal.figure.endsWith("Ms")) return { ...goal, bar: goal.bar / speed, aim: goal.aim / speed };
  return undefined;
}

function reachedAt(result: Result, goal: Goal, speed: number | undefined): string {
  const here = goalAt(goal, speed);
  if (here === undefined) return "";
  const { figure, bar } = here;
  return `${written(figure, bar)}: ${REACHED[reached(here, result[figure])]}`;
}

const REACHED = { aim: "aim", bar: "bar", neither: "NO" } as const;

/** Heads of the summary's columns, and a row for each goal; peers stand in the row of the figure they are compared in. */
function rowsOf(results: readonly Result[]): string[][] {
  const speed = speedOf(results);
  const rows = results.flatMap((result) => {
    const { figure } = result.compared ?? {};
    const atPeers = result.bars.some((goal) => goal.figure === figure);
    return result.bars.map((goal, n) => [
      n === 0 ? nameOf(result) : "",
      goal.figure,
      written(goal.figure, result[goal.figure]),
      written(goal.figure, goal.bar),
      written(goal.figure, goal.aim),
      REACHED[goal.reached],
      reachedAt(result, goal, speed),
      goal.figure === figure || (!atPeers && n === 0) ? peersOf(result) : "",
    ]);
  });
  return [
    ["scenario", "figure", "measured", "bar", "aim", "reached", "bar at this speed", "peers, and how we stand to them"],
    ...rows,
  ];
}

function nameOf({ scenario, adjusted, quiet, faults }: Result): string {
  const changed = Object.entries(adjusted).map(([name, value]) => `${name} ${value.toLocaleString("en")}`);
  const doubts = [...changed, ...(quiet ? [] : ["not quiet"]), ...(faults.length > 0 ? ["FAULTS"] : [])];
  return doubts.length === 0 ? scenario : `${scenario} (${doubts.join(", ")})`;
}

function peersOf(result: Result): string {
  const { figure = "" } = result.compared ?? {};
  const skipped = Object.entries(result.peers).flatMap(([name, peer]) =>
    isSkipped(peer) ? [`${name} skipped (${reasonOf(peer)})`] : [],
  );
  const own = result.bars.some((goal) => goal.figure === figure)
    ? ""
    : ` (${figure} ${written(figure, result[figure])})`;
  const met = standings(result).map(
    ({ peer, theirs, advantage }) => `${peer} ${written(figure, theirs)}: ${factor(advantage)}`,
  );
  return [...met, ...skipped].join("; ") + (met.length > 0 ? own : "");
}

/** Longer ones would make a table of one cell. */
const MOST_OF_REASON = 120;

/** Why a peer was not measured, in a line. */
function reasonOf({ skipped }: Skipped): string {
  const [line = ""] = skipped.trim().split("\n");
  return line.length > MOST_OF_REASON ? `${line.slice(0, MOST_OF_REASON).toWellFormed()}…` : line;
}

export function factor(advantage: number): string {
  const [times, word] = advantage >= 1 ? [advantage, "ahead"] : [1 / advantage, "behind"];
  return `${times >= 10 ? Math.round(times) : times.toFixed(1)}× ${word}`;
}

/** For a terminal. */
export function summaryLines(results: readonly Result[]): string[] {
  return aligned(rowsOf(results).map(([peers = "", ...row]) => [peers, ...row]));
}

/** For a page: the same in Markdown. */
export function summaryTable(results: readonly Result[]): string {
  const [head = [], ...rows] = rowsOf(results);
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  const marked = rows.map(([name = "", figure = "", ...rest]) => [name && `\`${name}\``, figure, ...rest]);
  return [line(head), line(head.map(() => "---")), ...marked.map(line)].join("\n");
}
