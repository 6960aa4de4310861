import { type DecideDeps, decideCounting } from "./decide-in-slices.ts";
import { endingBy } from "./ended-by.ts";
import { holdingBy } from "./held-by.ts";
import { intoDigest } from "./into-digest.ts";
import type { RouteDeps } from "./route.ts";
import { turnsOfWholes } from "./turns-of-wholes.ts";

/** What the rules say to a batch that is about to close: the stage that closes it asks them as the route would. */
export function rulesForClosing(deps: DecideDeps, reserve: RouteDeps["reserve"]) {
  return {
    endedBy: endingBy((facts, now) => decideCounting(deps, facts, now)),
    heldBy: holdingBy(deps.decide),
    turnsOf: turnsOfWholes(reserve),
    intoDigest: intoDigest(deps.decide),
  };
}
