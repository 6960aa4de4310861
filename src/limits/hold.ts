import { USER_WINDOWS, WINDOWS, windowEnd } from "./windows.ts";

/** How long a slot is kept for a notification that comes late: for the scheduler's tick, the queue and a short standstill. */
export const SLOT_KEPT_MS = 60_000;

/** What one was given when it was held for the reason. */
export type Given = { at: Date; reason: number };

/**
 * The turn of one that the limits have let through, to be handed in where they would be asked again: they count it once. It
 * lies back a little, so that it has come by a clock that is behind, too.
 */
export function turnThatHasCome(now: Date): Given {
  return { at: new Date(now.getTime() - SLOT_KEPT_MS / 2), reason: USER_WINDOWS[0].reason };
}

/**
 * What becomes of a slot that was taken when the notification was held: it is still ahead, it is there, or it was missed,
 * and a new one has to be asked for. Missed is what comes more than a minute late because something else held it; what
 * only a limit held is late through the platform, and is let through until the hour of its slot has ended. Pure.
 */
export function slotNow({ at, reason }: Given, nowMs: number): "ahead" | "here" | "missed" {
  const slotMs = at.getTime();
  if (slotMs > nowMs) return "ahead";
  if (nowMs - slotMs <= SLOT_KEPT_MS) return "here";
  const limited = WINDOWS.some((window) => window.reason === reason);
  return limited && nowMs < windowEnd(HOUR, slotMs) ? "here" : "missed";
}

const HOUR = USER_WINDOWS[2];

/**
 * How long to wait for a limiter that is away: 5 s, and an exponential backoff from 0 to 1 s × multiplier^attempt, at
 * most `maxBackoffMs`. `share` (at least 0, less than 1) keeps users apart; one user's keep their order, if they have
 * waited equally often. Pure.
 */
export function waitForLimiter(
  attempt: number,
  { backoffMultiplier, maxBackoffMs }: { backoffMultiplier: number; maxBackoffMs: number },
  share: number,
): number {
  return 5000 + Math.floor(share * Math.min(maxBackoffMs, 1000 * backoffMultiplier ** attempt));
}
