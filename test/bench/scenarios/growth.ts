import type { GrowthRow } from "../growth-table.ts";
import type { Lab, Wishes } from "../lab.ts";
import type { Figures, Finding, Scenario } from "../scenario.ts";
import { backlog } from "./backlog.ts";
import { endToEnd } from "./end-to-end.ts";
import { history } from "./history.ts";
import { streams } from "./streams.ts";

const TIMES = 10;

/**
 * Ten times the users, streams, rows and backlog: other scenarios at a tenth of their size and at the whole of it, without
 * peers, and what became of their figures.
 */
export const growth: Scenario = {
  name: "growth",
  about: "ten times the users, streams, rows and backlog: what is flat and what is linear",
  goals: [],
  async run(lab) {
    const { wishes } = lab;
    const users = wishes.users ?? 10_000;
    const rows = wishes.rows ?? 5_000_000;
    const queued = wishes.count ?? 1_000_000;
    const faults: string[] = [];
    const at = async (scenario: Scenario, wish: Partial<Wishes>): Promise<Figures> => {
      const found: Finding = await scenario.run(smaller(lab, wish));
      faults.push(...found.faults.map((fault) => `${scenario.name}: ${fault}`));
      return found.figures;
    };
    const both = async (scenario: Scenario, size: number, wish: (size: number) => Partial<Wishes>) => {
      const sizes = [Math.ceil(size / TIMES), size] as const;
      return { sizes, found: [await at(scenario, wish(sizes[0])), await at(scenario, wish(sizes[1]))] as const };
    };
    const grown = [
      ...rowsOf("users", await both(endToEnd, users, (users) => ({ users, count: undefined })), [
        ["rate", "notifications from send to stream"],
        ["cpuUsEach", "processor time for each"],
      ]),
      ...rowsOf("streams", await both(streams, users, (users) => ({ users, count: undefined })), [
        ["streamKb", "memory of each"],
        ["p99Ms", "a message to all, until the last has it"],
      ]),
      ...rowsOf("rows", inSteps(await at(history, { rows, users: undefined, count: undefined })), [
        ["p50Ms", "a page of an inbox, at any depth (median)"],
        ["countsP50Ms", "its counts (median)"],
      ]),
      ...rowsOf("backlog", await both(backlog, queued, (count) => ({ count, users: undefined })), [
        ["rssMb", "memory of the worker"],
        ["rate", "decided"],
      ]),
    ];
    return { figures: { grown }, peers: {}, ratios: {}, faults };
  },
};

function smaller(lab: Lab, wish: Partial<Wishes>): Lab {
  return { ...lab, wishes: { ...lab.wishes, ...wish, peers: false, profile: false } };
}

type Both = { sizes: readonly [number, number]; found: readonly [Figures, Figures] };

function rowsOf(of: string, { sizes, found }: Both, figures: readonly (readonly [string, string])[]): GrowthRow[] {
  return figures.map(([figure, what]) => {
    const value = (figures: Figures) => Number(figures[figure]);
    return { of, figure, what, sizes, values: [value(found[0]), value(found[1])] };
  });
}

/** It has measured itself at a tenth, too. */
function inSteps({ steps }: Figures): Both {
  const [small, large] = (steps as Figures[]).slice(-2);
  if (small === undefined || large === undefined) throw new Error("history has not measured two sizes");
  return { sizes: [Number(small.rows), Number(large.rows)], found: [small, large] };
}
