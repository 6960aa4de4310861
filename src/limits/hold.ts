/** How long a slot is kept for a notification that comes late: for the scheduler's tick, the queue and a short standstill. */
export const SLOT_KEPT_MS = 60_000;

/**
 * What becomes of a slot that was taken when the notification was held: it is still ahead, it is there, or it was missed,
 * because something else held the notification or the platform stood still, and a new one has to be asked for. Pure.
 */
export function slotNow(slotMs: number, nowMs: number): "ahead" | "here" | "missed" {
  if (slotMs > nowMs) return "ahead";
  return nowMs - slotMs <= SLOT_KEPT_MS ? "here" : "missed";
}

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
