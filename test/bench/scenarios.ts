import type { Scenario } from "./scenario.ts";
import { accept } from "./scenarios/accept.ts";
import { endToEnd } from "./scenarios/end-to-end.ts";
import { latency } from "./scenarios/latency.ts";

/** In the order in which they run when none is named. */
export const scenarios: readonly Scenario[] = [accept, endToEnd, latency];
