import type { Lab } from "./lab.ts";

/** One benchmark. A new one is a file in scenarios/ and a line in scenarios.ts. */
export type Scenario = {
  readonly name: string;
  /** What is measured, in a line. */
  readonly about: string;
  /** The figure in which we are set beside our peers in a table or a picture of all scenarios. */
  readonly compared?: Compared;
  readonly goals: readonly Goal[];
  run(lab: Lab): Promise<Finding>;
};

export type Compared = { readonly figure: string; readonly better: "more" | "less" };

/** What a figure has to reach, and what we would like. */
export type Goal = {
  readonly figure: string;
  readonly better: "more" | "less";
  readonly bar: number;
  readonly aim: number;
};

/** Rates per second, times in milliseconds, memory in MiB; scenarios add figures of their own. */
export type Figures = {
  readonly rate?: number;
  readonly p50Ms?: number;
  readonly p99Ms?: number;
  readonly rssMb?: number;
  readonly [figure: string]: unknown;
};

/** A peer that could not be measured here, and why. */
export type Skipped = { readonly skipped: string };

export type Finding = {
  readonly figures: Figures;
  /** What the same machine, minutes apart, does with something else: other systems, and the raw limits of our parts. */
  readonly peers: Readonly<Record<string, Figures | Skipped>>;
  /** Ours divided by theirs, named `<peer>.<figure>`. */
  readonly ratios: Readonly<Record<string, number>>;
  /** What must not happen and did: notifications lost, doubled, out of order. Empty in a good run. */
  readonly faults: readonly string[];
};

export function isSkipped(peer: Figures | Skipped): peer is Skipped {
  return "skipped" in peer;
}

/** These figures of ours by those of every peer that has them. */
export function ratiosOf(figures: readonly string[], ours: Figures, peers: Finding["peers"]): Record<string, number> {
  return Object.fromEntries(
    Object.entries(peers).flatMap(([name, peer]) =>
      figures.flatMap((figure) => {
        const mine = ours[figure];
        const theirs = isSkipped(peer) ? undefined : peer[figure];
        if (typeof mine !== "number" || typeof theirs !== "number" || theirs === 0) return [];
        return [[`${name}.${figure}`, mine / theirs] as const];
      }),
    ),
  );
}

export type Reached = "aim" | "bar" | "neither";

export function reached(goal: Goal, value: unknown): Reached {
  if (typeof value !== "number") return "neither";
  const within = (limit: number) => (goal.better === "more" ? value >= limit : value <= limit);
  return within(goal.aim) ? "aim" : within(goal.bar) ? "bar" : "neither";
}
