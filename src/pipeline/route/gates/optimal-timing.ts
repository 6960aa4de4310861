import { Priority, Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { isGoodMoment, nextGoodMoment, placeOf } from "#src/learning/good-moment.ts";
import { isReminder } from "#src/notifications/own-tags.ts";
import { patternFor } from "#src/preferences/clock-rules.ts";
import type { Gate } from "./gate.ts";

/**
 * Its type lets it wait, the user seldom looks in this hour, and there is a better one in time: one that the clock's rules
 * allow too. What comes together waits once, before it does.
 */
export const optimalTiming: Gate = ({ notification, preferences, good }, now) => {
  const { rules, priority, batchedAlready, userId, acceptedAt, scheduledAt, expiresAt, tags, senderId } = notification;
  const { timing, clock: clockRules } = preferences;
  if (rules?.maxWaitMs === undefined || good === undefined || timing === undefined || batchedAlready) return undefined;
  if (priority >= Priority.HIGH || acceptedAt === undefined) return undefined;
  const clock = timing.clock();
  const nowMs = now.getTime();
  if (isGoodMoment(good, clock, nowMs)) return undefined;
  const since = Math.max(acceptedAt.getTime(), scheduledAt?.getTime() ?? 0);
  const expires = expiresAt?.getTime() ?? Number.POSITIVE_INFINITY;
  const latest = Math.min(since + rules.maxWaitMs, isReminder(tags) ? (nowMs + expires) / 2 : expires - 1);
  const blocks = clockRules === undefined ? [] : patternFor(clockRules, { critical: false, senderId }).all;
  const until = nextGoodMoment({ good, clock, blocks, place: placeOf(userId ?? "") }, nowMs, latest);
  return until === undefined ? undefined : { kind: "hold", reason: Reason.OPTIMAL_TIMING, until: new Date(until) };
};
