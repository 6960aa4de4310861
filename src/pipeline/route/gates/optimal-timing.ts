import { Priority, Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { isGoodMoment, nextGoodMoment, placeOf } from "#src/learning/good-moment.ts";
import { isReminder } from "#src/notifications/own-tags.ts";
import { patternFor } from "#src/preferences/clock-rules.ts";
import { type Wait, waitsOf } from "../when-they-look.ts";
import type { Facts, Gate } from "./gate.ts";

/** Its type lets it wait for a better hour, or the user wants quiet hours when they hardly ever look. */
export const optimalTiming: Gate = (facts, now) => {
  const found = betterMoment(facts, now);
  return found && { kind: "hold", reason: Reason.OPTIMAL_TIMING, until: found.until };
};

/**
 * Where it does not come in such an hour, and there is one in time that the clock's rules allow too: when, and what it
 * waits for. What comes together waits once, before it does. Pure.
 */
export function betterMoment(
  { notification, preferences, good }: Facts,
  now: Date,
): { until: Date; wait: Wait } | undefined {
  const { rules, priority, batchedAlready, userId, acceptedAt, scheduledAt, expiresAt, tags, senderId } = notification;
  const { timing, clock: clockRules } = preferences;
  if (good === undefined || timing === undefined || batchedAlready) return undefined;
  if (priority >= Priority.HIGH || acceptedAt === undefined) return undefined;
  const clock = timing.clock();
  const nowMs = now.getTime();
  const since = Math.max(acceptedAt.getTime(), scheduledAt?.getTime() ?? 0);
  const expires = expiresAt?.getTime() ?? Number.POSITIVE_INFINITY;
  const inTime = isReminder(tags) ? (nowMs + expires) / 2 : expires - 1;
  const blocks = clockRules === undefined ? [] : patternFor(clockRules, { critical: false, senderId }).all;
  const place = placeOf(userId ?? "");
  for (const wait of waitsOf(timing, rules, good)) {
    const { hours, maxMs } = wait;
    if (isGoodMoment(hours, clock, nowMs)) continue;
    const latest = Math.min(since + maxMs, inTime);
    const until = nextGoodMoment({ good: hours, clock, blocks, place }, nowMs, latest);
    if (until !== undefined) return { until: new Date(until), wait };
  }
  return undefined;
}
