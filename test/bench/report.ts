import { availableParallelism } from "node:os";
import { ELSEWHERE } from "./processes.ts";
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
  date: string;
} & Finding;

export function machineOf(versions: { postgres: string; nats: string; redis: string }): Machine {
  const { postgres, nats, redis } = versions;
  return { cores: availableParallelism(), node: process.versions.node, postgres, nats, redis };
}

/** The form DESIGN.md gives it: our figures at the top, the same of each peer, ratios and machine. */
export function jsonOf({ goals }: Scenario, report: Report): Record<string, unknown> {
  const { scenario, figures, peers, ratios, machine, faults, client, seconds, date } = report;
  const bars = goals.map((goal) => ({ ...goal, reached: reached(goal, figures[goal.figure]) }));
  return rounded({ scenario, ...figures, bars, faults, peers, ratios, client, seconds, date, machine });
}

/** The same for people, as a table with a line for us and each peer. */
export function linesOf({ about, goals }: Scenario, report: Report): string[] {
  const { figures, peers, ratios, faults, machine, client } = report;
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
    `${report.scenario}: ${about}`,
    ...aligned(rows).map((line) => `  ${line}`),
    ...Object.entries(peers).flatMap(([name, peer]) =>
      isSkipped(peer) ? [`  skipped: ${name} (${peer.skipped})`] : [],
    ),
    ...measured.flatMap(([name, { faults }]) =>
      Array.isArray(faults) ? faults.map((fault) => `  ${name}: ${fault}`) : [],
    ),
    ...goals.map((goal) => {
      const { figure, bar, aim } = goal;
      const said = { aim: "aim reached", bar: "bar reached, aim not", neither: "BAR NOT REACHED" };
      return `  ${figure}: ${said[reached(goal, figures[figure])]} (bar ${number(bar)}, aim ${number(aim)})`;
    }),
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

function coreLines({ cores }: Figures): string[] {
  const busy = Object.entries((cores ?? {}) as Record<string, number>);
  if (busy.length === 0) return [];
  const elsewhere = busy.find(([name]) => name === ELSEWHERE)?.[1] ?? 0;
  return [
    `  cores kept busy: ${busy.map(([name, value]) => `${name} ${value}`).join(", ")}`,
    ...(elsewhere > QUIET ? ["  the machine was not quiet: measure again"] : []),
  ];
}

function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length);
  return rows.map((row) =>
    row
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
      .join("  ")
      .trimEnd(),
  );
}

function number(value: unknown): string {
  if (typeof value !== "number") return "";
  return value >= 100 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)));
}

/** Numbers at the precision they have: whole from 100 on, three digits below. */
function rounded<T>(value: T): T {
  const round = (_: string, each: unknown) => {
    if (typeof each !== "number" || Number.isInteger(each)) return each;
    return Math.abs(each) >= 100 ? Math.round(each) : Number(each.toPrecision(3));
  };
  return JSON.parse(JSON.stringify(value, round)) as T;
}
