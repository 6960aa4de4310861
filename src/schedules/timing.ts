import type { Steps } from "#src/breathe.ts";
import { instantOfLocal, localTimeOf } from "#src/notifications/local-time.ts";
import { type Recurrence, TooSeldom } from "./recurrence.ts";

const HOUR_MS = 3_600_000;
/** A wall-clock time comes first at UTC+14 and last at UTC-12. */
const FIRST_ZONE_MS = 14 * HOUR_MS;
const LAST_ZONE_MS = 12 * HOUR_MS;
const LAST_ZONE = "Etc/GMT+12";
/** What is later than this is left out: nobody wants the morning's digest in the evening. */
export const GRACE_MS = HOUR_MS;
/** Occurrences passed over in one go, so that others get their turn; the next goes on. */
const MOST_PASSED = 200;

/** A rule and whose clock it goes by; zone "": each recipient's. */
export type Timing = { recurrence: Recurrence; zone: string };

/** When an occurrence has to be stored: when it comes, or first comes to anybody. */
export function firesAt({ zone }: Pick<Timing, "zone">, occurrence: string): Date {
  if (zone !== "") return instantOfLocal(occurrence, zone);
  return new Date(instantOfLocal(occurrence, "UTC").getTime() - FIRST_ZONE_MS);
}

/** When nobody's clock is before it any more. */
function comesLast({ zone }: Pick<Timing, "zone">, occurrence: string): number {
  if (zone !== "") return instantOfLocal(occurrence, zone).getTime();
  return instantOfLocal(occurrence, "UTC").getTime() + LAST_ZONE_MS;
}

/** The first occurrence that is still to come to somebody after an instant, and that is later than the `last` one sent. */
export function* firstAfter(timing: Timing, instant: Date, last?: string): Steps<string | undefined> {
  const { recurrence, zone } = timing;
  // A day earlier by any clock, because a gap or an overlap moves what is near it.
  const from = new Date(instant.getTime() - (zone === "" ? LAST_ZONE_MS : 0) - 24 * HOUR_MS);
  const local = localTimeOf(from, zone === "" ? "UTC" : zone);
  let occurrence = yield* recurrence.after(last !== undefined && last > local ? last : local);
  while (occurrence !== undefined && comesLast(timing, occurrence) <= instant.getTime()) {
    occurrence = yield* recurrence.after(occurrence);
  }
  return occurrence;
}

/**
 * What the last occurrence sent is on the clock that a schedule goes by from now on, so that what comes after it is told
 * from what was before. What every recipient had on their own clock they have had by any; what came at an instant came
 * before all that is later than it, also where clocks show less.
 */
export function lastOn(last: string | null, from: string, to: string): string | null {
  if (last === null || from === to || from === "") return last;
  return localTimeOf(instantOfLocal(last, from), to === "" ? LAST_ZONE : to);
}

/** Occurrences from a given one on, it included, as far as they are found. */
export function* upcoming(
  { recurrence }: Timing,
  first: () => Steps<string | undefined>,
  most: number,
): Steps<string[]> {
  const found: string[] = [];
  try {
    let next = yield* first();
    while (next !== undefined) {
      found.push(next);
      next = found.length < most ? yield* recurrence.after(next) : undefined;
    }
  } catch (error) {
    if (!(error instanceof TooSeldom)) throw error;
  }
  return found;
}

/** What becomes of an occurrence whose time has come. */
export type Step = {
  /** The one to send, unless it is too late for everybody. */
  send: string | undefined;
  /** Recipients for whom it came before get nothing. */
  skipBefore: Date;
  /** Occurrences that nobody gets. */
  missed: number;
  /** Undefined: there are no more. */
  next: string | undefined;
};

/**
 * Goes on from the occurrence at hand. What lies more than an hour back is left out; so is one that a gap in the zone's
 * clock moves onto the instant of the one before. `notBefore`: when the schedule was made, changed or resumed.
 */
export function* step(timing: Timing, occurrence: string, notBefore: Date, now: Date): Steps<Step> {
  const skipBefore = skippedBefore(notBefore, now);
  let missed = 0;
  let at: string | undefined = occurrence;
  while (at !== undefined && comesLast(timing, at) < skipBefore.getTime() && missed < MOST_PASSED) {
    at = yield* nextOf(timing, at);
    missed++;
  }
  if (at === undefined || firesAt(timing, at) > now || missed === MOST_PASSED) {
    return { send: undefined, skipBefore, missed, next: at };
  }
  const sent = firesAt(timing, at).getTime();
  let next = yield* nextOf(timing, at);
  while (next !== undefined && firesAt(timing, next).getTime() <= sent) next = yield* nextOf(timing, next);
  return { send: at, skipBefore, missed, next };
}

/** Occurrences that are before are left out. `notBefore` decides nothing else. */
export function skippedBefore(notBefore: Date, now: Date): Date {
  return new Date(Math.max(notBefore.getTime(), now.getTime() - GRACE_MS));
}

/** One that cannot be found ends the schedule: whoever looked again would not find it either. */
function* nextOf({ recurrence }: Timing, occurrence: string): Steps<string | undefined> {
  try {
    return yield* recurrence.after(occurrence);
  } catch (error) {
    if (error instanceof TooSeldom) return undefined;
    throw error;
  }
}
