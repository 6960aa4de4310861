import { type Blocks, WEEK } from "#src/preferences/clock-rules.ts";
import { isBlocked, nextAllowed } from "#src/preferences/next-allowed.ts";
import type { ZoneClock } from "#src/preferences/zone-clock.ts";
import { type DayHours, isGood, localHour } from "./looks.ts";

const HOUR_MS = 3_600_000;
/** Of an hour, from its beginning: what waited for it is spread over this. */
const SPREAD_MS = HOUR_MS / 2;

/** Whether an instant lies in one of these hours. */
export function isGoodMoment(good: DayHours, clock: ZoneClock, atMs: number): boolean {
  return isGood(good, localHour(atMs, clock.stretchAt(atMs).offsetMs).cell);
}

/**
 * The instant in the next good hour for what is not to come now: after `fromMs`, not after `untilMs`, and in none of the
 * blocks. `place`, from 0 to 1, says where in the hour; as far as blocks leave room. Undefined: there is none. Pure.
 */
export function nextGoodMoment(
  { good, clock, blocks, place }: { good: DayHours; clock: ZoneClock; blocks: Blocks; place: number },
  fromMs: number,
  untilMs: number,
): number | undefined {
  if (blocks[0]?.[0] === 0 && blocks[0][1] === WEEK) return undefined;
  for (let at = fromMs; at <= untilMs; ) {
    const { offsetMs, until } = clock.stretchAt(at);
    const { cell, beginsAt } = localHour(at, offsetMs);
    // A zone may change its offset within an hour.
    const ends = Math.min(beginsAt + HOUR_MS, until);
    const start = isGood(good, cell) ? nextAllowed(blocks, clock, at) : undefined;
    if (start !== undefined && start < ends) {
      const spread = start + Math.floor(place * Math.min(SPREAD_MS, ends - start));
      const found = isBlocked(blocks, clock, spread) || spread >= ends ? start : spread;
      return found <= untilMs ? found : undefined;
    }
    at = ends;
  }
  return undefined;
}

/** Where in an hour a user's things come: the same for all of them, so that they come together. FNV-1a, from 0 to 1. */
export function placeOf(userId: string): number {
  let hash = 0x811c9dc5;
  for (let n = 0; n < userId.length; n++) hash = Math.imul(hash ^ userId.charCodeAt(n), 0x01000193);
  // Its low bits are the better mixed.
  return (Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d) >>> 0) / 2 ** 32;
}
