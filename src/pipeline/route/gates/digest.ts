import { Priority, Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { DigestRule } from "#gen/posthorn/v1/type_service_pb.ts";
import { digestPlan, isTooLateFor } from "#src/batches/plan.ts";
import { isReminder } from "#src/notifications/own-tags.ts";
import type { Gate } from "./gate.ts";

/** The user wants it together with others at set times; CRITICAL passes, and a reminder that would come too late. */
export const digest: Gate = ({ notification, preferences }, now) => {
  const { type, category, priority, channels, rules, batchedAlready, tags, expiresAt } = notification;
  if (priority === Priority.CRITICAL || batchedAlready) return undefined;
  const { digestMode } = preferences.scope(type, category);
  const plan = digestPlan({ channels }, rules?.digest ?? DigestRule.UNSPECIFIED, digestMode, preferences.digest, now);
  if (plan === undefined || (isReminder(tags) && isTooLateFor(plan, expiresAt, now))) return undefined;
  return { kind: "batch", reason: Reason.DIGEST, plan };
};
