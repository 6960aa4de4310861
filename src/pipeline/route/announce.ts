import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { Live } from "#src/stream/live.ts";
import type { Conclusion } from "./conclusion.ts";

/** Tells a user's streams what a decision made of a notification, but for its delivery, which the arrival tells. */
export function announceConclusion(
  live: Live,
  tenantId: string,
  userId: string,
  conclusion: Conclusion,
  at: Date,
): void {
  if (conclusion.status === Status.DELIVERED) return;
  live.statusChanged(tenantId, userId, {
    notificationId: conclusion.id,
    status: conclusion.status,
    reason: conclusion.reason as never,
    time: timestampFromDate(at),
    ...(conclusion.dueAt === undefined ? {} : { retryTime: timestampFromDate(conclusion.dueAt) }),
  });
}

/** Tells users' streams that notifications to them were cancelled. */
export function announceCancelled(
  live: Live,
  tenantId: string,
  notifications: readonly { id: string; userId: string }[],
  at: Date,
): void {
  const time = timestampFromDate(at);
  for (const { id: notificationId, userId } of notifications)
    live.statusChanged(tenantId, userId, { notificationId, status: Status.CANCELLED, reason: Reason.CANCELLED, time });
}
