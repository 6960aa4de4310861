import { USER_WINDOWS } from "./windows.ts";

/**
 * When a notification refused by its user's limits should be tried again: the first instant at which all windows have
 * room for it behind the `ahead` others that wait, supposing that nothing else arrives. So a thousand held for one user
 * come back a few at a time and not all at once. Pure.
 *
 * `usage` and `limits` are those of USER_WINDOWS. Every window begins where a shorter one does, so once it waits for a
 * later window, the shorter ones are empty when that begins.
 */
export function userSlot(usage: readonly number[], limits: readonly number[], ahead: number, nowMs: number): number {
  const windows = capacities(usage, limits, nowMs);
  let at = nowMs;
  let place = ahead;
  let inLaterWindow = false;
  for (const { ms, whole, left } of windows.toReversed()) {
    let later = 0;
    if (!inLaterWindow) {
      if (place < left) continue;
      place -= left;
      later = 1;
      inLaterWindow = true;
    }
    later += Math.floor(place / whole);
    place %= whole;
    at = (Math.floor(at / ms) + later) * ms;
  }
  return at;
}

/** How many each window takes as a whole, and what is left of the one that is open; no more than shorter ones let in. */
function capacities(
  usage: readonly number[],
  limits: readonly number[],
  nowMs: number,
): { ms: number; whole: number; left: number }[] {
  const result: { ms: number; whole: number; left: number }[] = [];
  for (const [w, { ms }] of USER_WINDOWS.entries()) {
    const limit = limits[w] ?? 1;
    // Those that are never refused may have gone beyond the limit.
    const unused = Math.max(limit - (usage[w] ?? 0), 0);
    const shorter = result[w - 1];
    if (shorter === undefined) {
      result.push({ ms, whole: limit, left: unused });
      continue;
    }
    const parts = ms / shorter.ms;
    const partsLeft = parts - 1 - Math.floor((nowMs % ms) / shorter.ms);
    result.push({
      ms,
      whole: Math.min(limit, parts * shorter.whole),
      left: Math.min(unused, shorter.left + partsLeft * shorter.whole),
    });
  }
  return result;
}

/** The same for a limit that many users share: what waits is spread evenly over the windows that it needs. Pure. */
export function sharedSlot(windowMs: number, limit: number, ahead: number, nowMs: number): number {
  const next = (Math.floor(nowMs / windowMs) + 1) * windowMs;
  return next + Math.floor((ahead / Math.max(limit, 1)) * windowMs);
}

/**
 * Full jitter over an exponential backoff: 0 to 1 s × multiplier^attempt, at most `maxBackoffMs`. Keeps those that have
 * the same slot apart, the more the oftener they have met a limit. `random` is at least 0 and less than 1. Pure.
 */
export function jitter(
  attempt: number,
  { backoffMultiplier, maxBackoffMs }: { backoffMultiplier: number; maxBackoffMs: number },
  random: number,
): number {
  return Math.floor(random * Math.min(maxBackoffMs, 1000 * backoffMultiplier ** attempt));
}
