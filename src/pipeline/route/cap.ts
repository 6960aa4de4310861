import { Priority, Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { DigestRule } from "#gen/posthorn/v1/type_service_pb.ts";
import { type BatchPlan, hourlyPlan, isTooLateFor } from "#src/batches/plan.ts";
import { budget } from "#src/limits/budget.ts";
import type { Reservation } from "#src/limits/notification-limits.ts";
import { CAP_WINDOW, type Cap, windowEnd } from "#src/limits/windows.ts";
import { isReminder } from "#src/notifications/own-tags.ts";
import { USUAL_WORTH } from "#src/types/type.ts";
import type { ChannelVerdict, Facts } from "./gates/decide.ts";

/**
 * What its user's hourly cap says about a notification; undefined: nothing. CRITICAL passes, and a reminder that would come
 * too late; what its type or its past keeps out of digests waits for an hour with room. Pure.
 */
export function capOf(facts: Facts, now: Date): Cap | undefined {
  const { notification, preferences } = facts;
  const { maxPerHour: perHour } = preferences;
  if (perHour === undefined) return undefined;
  if (notification.priority === Priority.CRITICAL) return { perHour, share: perHour, over: "pass" };
  const { rules, batchedAlready } = notification;
  const over = batchedAlready || rules?.digest === DigestRule.NEVER ? "wait" : "digest";
  const isLate =
    isReminder(notification.tags) && isTooLateFor(nextChance(facts, over, now), notification.expiresAt, now);
  return { perHour, share: budget(perHour, worthOf(notification)), over: isLate ? "pass" : over };
}

/** When one that the cap refuses would come: with the digest, or in the next hour at the earliest. */
function nextChance(
  { notification, preferences }: Facts,
  over: "wait" | "digest",
  now: Date,
): Pick<BatchPlan, "latestFlushAt"> {
  if (over === "digest") return hourlyPlan(notification, preferences.digest, now);
  return { latestFlushAt: new Date(windowEnd(CAP_WINDOW, now.getTime())) };
}

/** In which order those that are decided together ask the limits: the most first. All alike where there is no cap. Pure. */
export function rankOf({ notification, preferences }: Facts): number {
  return preferences.maxPerHour === undefined ? USUAL_WORTH : worthOf(notification);
}

/** The notification of a digest has no type, and is worth what things usually are. */
function worthOf({ rules }: Facts["notification"]): number {
  return rules?.worth ?? USUAL_WORTH;
}

/** The verdicts, where the cap has refused it: what would be delivered goes into the user's digest. Pure. */
export function collected(
  verdicts: readonly ChannelVerdict[],
  reservation: Reservation | undefined,
  { notification, preferences }: Facts,
  now: Date,
): readonly ChannelVerdict[] {
  if (reservation === undefined || reservation.allowed || reservation.digest !== true) return verdicts;
  const { reason } = reservation;
  const plan = hourlyPlan(notification, preferences.digest, now);
  // With the digest it comes by the channels that are for digests alone, too.
  const goes = (verdict: ChannelVerdict) =>
    verdict.kind === "deliver" || (verdict.kind === "suppress" && verdict.reason === Reason.DIGEST_ONLY);
  return verdicts.map(
    (verdict): ChannelVerdict => (goes(verdict) ? { channel: verdict.channel, kind: "batch", reason, plan } : verdict),
  );
}
