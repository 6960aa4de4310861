import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import type { Gate } from "./gate.ts";

/** The user has subscribed to it, and none of the subscriptions lets this one through. */
export const filtered: Gate = ({ notification, preferences: { wishes } }) => {
  // The notification of a batch has other words than its members, who were asked one by one.
  if (wishes === undefined || notification.isWhole) return undefined;
  const { type, category, priority, tags = [], content } = notification;
  const answer = wishes.ask({ type, category, priority, tags, content });
  if (answer === "match") return undefined;
  return { kind: "suppress", reason: Reason.FILTERED, ...(answer === "failed" ? { filterFailed: true } : {}) };
};
