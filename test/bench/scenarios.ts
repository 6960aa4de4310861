import type { Scenario } from "./scenario.ts";
import { accept } from "./scenarios/accept.ts";
import { backlog } from "./scenarios/backlog.ts";
import { critical } from "./scenarios/critical.ts";
import { endToEnd } from "./scenarios/end-to-end.ts";
import { growth } from "./scenarios/growth.ts";
import { history } from "./scenarios/history.ts";
import { latency } from "./scenarios/latency.ts";
import { neighbour } from "./scenarios/neighbour.ts";
import { resume } from "./scenarios/resume.ts";
import { rules } from "./scenarios/rules.ts";
import { streams } from "./scenarios/streams.ts";
import { tracing } from "./scenarios/tracing.ts";
import { typed } from "./scenarios/typed.ts";

/** In the order in which they run when none is named. */
export const scenarios: readonly Scenario[] = [
  endToEnd,
  accept,
  latency,
  critical,
  neighbour,
  streams,
  resume,
  backlog,
  history,
];

/** Those that run only when named: what they measure is not one figure beside others. */
export const onRequest: readonly Scenario[] = [growth, tracing, rules, typed];
