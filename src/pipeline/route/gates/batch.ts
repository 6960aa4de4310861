import { Priority, Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { batchPlan, isTooLateFor } from "#src/batches/plan.ts";
import { isReminder } from "#src/notifications/own-tags.ts";
import type { Gate } from "./gate.ts";

/**
 * It waits for others of its type, where type and user want that. CRITICAL passes, and what would expire while it waits,
 * however far the window slides; a reminder too that would come too late.
 */
export const batch: Gate = ({ notification, preferences }, now) => {
  const rule = notification.rules?.batching;
  const { type, category, priority, channels, expiresAt, batchedAlready, batchedSince: since } = notification;
  if (rule === undefined || priority === Priority.CRITICAL || batchedAlready) return undefined;
  const own = preferences.scope(type, category).batching;
  if (own === undefined) return undefined;
  const plan = batchPlan({ type, priority, channels, since }, rule, own, now);
  if (plan === undefined || (expiresAt !== undefined && expiresAt <= plan.latestFlushAt)) return undefined;
  if (isReminder(notification.tags) && isTooLateFor(plan, expiresAt, now)) return undefined;
  return { kind: "batch", reason: Reason.BATCHING, plan };
};
