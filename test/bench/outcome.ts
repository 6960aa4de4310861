import type { LoadRun } from "./load-on.ts";
import type { Figures } from "./scenario.ts";

/** What a run of load says about a system: its figures, and what must not happen and did. */
export type Outcome = { figures: Figures; faults: string[] };

const MISTAKES = ["lost", "gaps", "doubles", "refused", "failed"];

/** Every notification must arrive, once and in its user's order; where nothing arrives, every call must be answered. */
export function outcomeOf({ result, cores, cpuUs, rssMb }: LoadRun): Outcome {
  const count = (name: string) => Number(result[name] ?? 0);
  const { rate, p50Ms, p90Ms, p99Ms, maxMs, firstFailure } = result;
  const why = [firstFailure, result.firstCut].filter((text) => typeof text === "string" && text !== "");
  const total = count("sent") || count("measured");
  const shares = Object.values(cpuUs);
  return {
    figures: {
      ...(rate === undefined ? {} : { rate }),
      ...(p50Ms === undefined ? {} : { p50Ms, p90Ms, p99Ms, maxMs }),
      ...(rssMb === undefined ? {} : { rssMb }),
      ...Object.fromEntries(KEPT.flatMap((name) => (name in result ? [[name, result[name]]] : []))),
      cores,
      ...(shares.length === 0 ? {} : { cpuUs, cpuUsEach: shares.reduce((sum, each) => sum + each, 0) }),
      ...("perSecond" in result ? { perSecond: result.perSecond } : {}),
    },
    faults: MISTAKES.filter((name) => count(name) > 0).map((name) =>
      [`${name}: ${count(name)} of ${total}`, ...why].join("; "),
    ),
  };
}

/** Counts of the load client that are kept as they are. */
const KEPT = [
  "sent",
  "arrived",
  "measured",
  "cuts",
  "openMs",
  "drainMs",
  "callP50Ms",
  "callP99Ms",
  "acceptedPerSecond",
  "countsP50Ms",
  "countsP99Ms",
];
