import { availableParallelism } from "node:os";
import { aligned, number } from "./figures.ts";
import { growthLines } from "./growth-table.ts";
import { ELSEWHERE, STOLEN } from "./processes.ts";
import { type Figures, type Finding, isSkipped, reached, type Scenario } from "./scenario.ts";

/** Cores that others may take without the figures meaning less. */
const QUIET = 0.2;

export type Machine = { cores: number; node: string; postgres: string; nats: string; redis: string };

/** A finding and where it was made: what --json prints and `.results/bench/` keeps. */
export type Report = {
  scenario: string;
  machine: Machine;
  client: string;
  seconds: number;
  /** What the command line had different from the scenario's own numbers. */
  adjusted: Readonly<Record<string, number>>;
  date: string;
} & Finding;

export function machineOf(versions: { postgres: string; nats: string; redis: string }): Machine {
  const { postgres, nats, redis } = versions;
  return { cores: availableParallelism(), node: process.versions.node, postgres, nats, redis };
}

/** The form DESIGN.md gives it: our figures at the top, the same of each peer, ratios and machine. */
export function jsonOf({ goals, about, compared }: Scenario, report: Report): Record<string, unknown> {
  const { scenario, figures, peers, ratios, machine, faults, client, seconds, adjusted, date } = report;
  const bars = goals.map((goal) => ({ ...goal, reached: reached(goal, figures[goal.figure]) }));
  const own = { scenario, about, ...(compared === undefined ? {} : { compared }), ...figures, bars, faults };
  const quiet = disturbance(figures) <= QUIET;
  return rounded({ ...own, quiet, peers, ratios, client, seconds, adjusted, date, machine });
}

/** The same for people, as a table with a line for us and each peer. */
export function linesOf(scenario: Scenario, report: Report): string[] {
  const { about, goals } = scenario;
  const { figures, peers, ratios, faults, machine, client, adjusted } = report;
  const changed = Object.entries(adjusted).map(([name, value]) => `${name} ${value.toLocaleString("en")}`);
  const { cores, node, postgres, nats, redis } = machine;
  const measured = Object.entries({ posthorn: figures, ...peers }).flatMap(([name, peer]) =>
    isSkipped(peer) ? [] : [[name, peer] as const],
  );
  const rows = [
    ["", "per s", "p50 ms", "p99 ms", "MiB", "ours ÷ theirs"],
    ...measured.map(([name, peer]) => [name, ...cellsOf(peer), factorsOf(name, ratios)]),
  ];
  return [
    "",
    `${report.scenario}: ${about}${changed.length === 0 ? "" : ` (but ${changed.join(", ")})`}`,
    ...(Array.isArray(figures.grown) ? growthLines(figures.grown) : aligned(rows)).map((line) => `  ${line}`),
    ...Object.entries(peers).flatMap(([name, peer]) =>
      isSkipped(peer) ? [`  skipped: ${name} (${peer.skipped})`] : [],
    ),
    ...measured.flatMap(([name, { faults }]) =>
      Array.isArray(faults) ? faults.map((fault) => `  ${name}: ${fault}`) : [],
    ),
    ...goals.map((goal) => {
      const { figure, bar, aim } = goal;
      const said = { aim: "aim reached", bar: "bar reached, aim not", neither: "BAR NOT REACHED" };
      const reach = said[reached(goal, figures[figure])];
      return `  ${figure} ${number(figures[figure])}: ${reach} (bar ${number(bar)}, aim ${number(aim)})`;
    }),
    ...otherLines(scenario, figures),
    ...coreLines(figures),
    ...faults.map((fault) => `  FAULT: ${fault}`),
    `  ${cores} cores, Node ${node}, Postgres ${postgres}, NATS ${nats}, Redis ${redis}, load client in ${client}`,
  ];
}

function cellsOf({ rate, p50Ms, p99Ms, rssMb }: Figures): string[] {
  return [number(rate), number(p50Ms), number(p99Ms), number(rssMb)];
}

function factorsOf(peer: string, ratios: Finding["ratios"]): string {
  const own = Object.entries(ratios).filter(([name]) => name.startsWith(`${peer}.`));
  if (own.length === 1) return own.map(([, value]) => value.toFixed(2)).join();
  return own.map(([name, value]) => `${name.slice(peer.length + 1)} ${value.toFixed(2)}`).join(", ");
}

const SHOWN_ELSEWHERE = new Set([
  "rate",
  "p50Ms",
  "p99Ms",
  "rssMb",
  "cores",
  "cpuUs",
  "cpuUsEach",
  "perSecond",
  "grown",
]);

/** What a scenario tells beside its goals. */
function otherLines({ goals }: Scenario, figures: Figures): string[] {
  const others = Object.entries(figures).filter(
    ([name]) => !SHOWN_ELSEWHERE.has(name) && !goals.some(({ figure }) => figure === name),
  );
  const shown = (value: unknown): string =>
    typeof value === "number" ? number(value) : JSON.stringify(rounded(value)).replaceAll('"', "");
  return others.length === 0 ? [] : [`  ${others.map(([name, value]) => `${name} ${shown(value)}`).join(", ")}`];
}

function coreLines({ cores, cpuUs, cpuUsEach }: Figures): string[] {
  const listed = (values: unknown) =>
    Object.entries((values ?? {}) as Record<string, number>)
      .map(([name, value]) => `${name} ${number(value)}`)
      .join(", ");
  const [busy, each] = [listed(cores), listed(cpuUs)];
  return [
    ...(busy === "" ? [] : [`  cores kept busy: ${busy}`]),
    ...(each === "" ? [] : [`  processor time for each, µs: ${number(cpuUsEach)} = ${each.replaceAll(", ", " + ")}`]),
    ...(disturbance({ cores }) > QUIET ? ["  the machine was not quiet: measure again"] : []),
  ];
}

/** Cores that others took, on this machine or as seen from its host. */
function disturbance({ cores }: Figures): number {
  const { [ELSEWHERE]: elsewhere = 0, [STOLEN]: stolen = 0 } = (cores ?? {}) as Record<string, number>;
  return elsewhere + stolen;
}

/** Numbers at the precision they have: whole from 100 on, three digits below. */
function rounded<T>(value: T): T {
  const round = (_: string, each: unknown) => {
    if (typeof each !== "number" || Number.isInteger(each)) return each;
    return Math.abs(each) >= 100 ? Math.round(each) : Number(each.toPrecision(3));
  };
  return JSON.parse(JSON.stringify(value, round)) as T;
}
