import type { Lab } from "./lab.ts";
import type { Job } from "./load.ts";
import { loadOn, type Target } from "./load-on.ts";
import { type Outcome, outcomeOf } from "./outcome.ts";

/** A flood, and what it brings; `paced` is measured from when the flood waits, or begins, until all of it has arrived. */
export type Beside = { paced: Outcome; flood: Outcome };

/**
 * Measures a paced load beside a flood of another user group or tenant.
 *
 * With `release`, the flood is let wait first: when all of it is accepted, `release` is called, which begins the work on
 * it, and only then is the paced load sent. Without, both begin together. Either way measuring ends when every
 * notification of the flood is on its stream.
 */
export async function besideFlood(
  lab: Lab,
  jobs: { paced: Job; flood: Job },
  target: Target,
  release?: () => Promise<void>,
): Promise<Beside> {
  const ready = Promise.withResolvers<void>(); // The paced load has its streams open.
  const waits = Promise.withResolvers<void>(); // The flood has its own open, and with `release` is accepted.
  const begun = Promise.withResolvers<void>(); // Both may go.
  const arrived = Promise.withResolvers<void>(); // All of the flood is on its streams.
  const measured = Promise.withResolvers<void>(); // The paced load is, to its last event.
  const failure = Promise.withResolvers<never>();
  const orFailure = <T>(wanted: Promise<T>) => Promise.race([wanted, failure.promise]);
  failure.promise.catch(() => undefined);

  const flood = loadOn(lab, { ...jobs.flood, hold: true }, { ...target, profile: false }, async ({ event }, tell) => {
    if (event === "open") {
      await orFailure(ready.promise);
      if (release === undefined) {
        waits.resolve();
        await orFailure(begun.promise);
      }
      tell("go");
    }
    if (event === "accepted") waits.resolve();
    if (event === "measured") {
      arrived.resolve();
      // What its streams cost as they close is none of the paced load's.
      await orFailure(measured.promise);
      tell("leave");
    }
  });
  flood.catch(failure.reject);

  const paced = loadOn(lab, { ...jobs.paced, hold: true }, target, async ({ event }, tell) => {
    if (event === "open") {
      ready.resolve();
      await orFailure(waits.promise);
      await release?.();
      begun.resolve();
      tell("go");
    }
    if (event === "measuring") {
      await orFailure(arrived.promise);
      tell("stop");
    }
  });
  paced.then(() => measured.resolve(), failure.reject);
  const [one, other] = await Promise.all([paced, flood]);
  return { paced: outcomeOf(one), flood: outcomeOf(other) };
}
