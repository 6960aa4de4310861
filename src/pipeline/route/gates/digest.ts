import { Priority, Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { DigestRule } from "#gen/posthorn/v1/type_service_pb.ts";
import { digestPlan, isTooLateFor } from "#src/batches/plan.ts";
import { isReminder } from "#src/notifications/own-tags.ts";
import type { Gate } from "./gate.ts";

/** The user wants it together with others at set times; CRITICAL passes, and a reminder that would come too late. */
export const digest: Gate = ({ notification, preferences }, now) => {
  const {
    type,
    category,
    priority,
    channels,
    rules,
    batchedAlready,
    tags,
    expiresAt,
    batchedSince: since,
  } = notification;
  if (priority === Priority.CRITICAL || batchedAlready) return undefined;
  const { digestMode } = preferences.scope(type, category);
  const rule = rules?.digest ?? DigestRule.UNSPECIFIED;
  const plan = digestPlan({ channels, since }, rule, digestMode, preferences.digest, now);
  if (plan === undefined || (isReminder(tags) && isTooLateFor(plan, expiresAt, now))) return undefined;
  return { kind: "batch", reason: Reason.DIGEST, plan };
};
