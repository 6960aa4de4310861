import { create } from "@bufbuild/protobuf";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { type UpdateNotificationRequest, UpdateNotificationRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import { Fault, invalidField } from "#src/errors.ts";
import type { NotificationRow } from "#src/notifications/notification.ts";
import type { Changes } from "#src/notifications/queries.ts";
import { maskPaths } from "#src/rpc/field-mask.ts";
import { checkedTime, checkTags } from "./prepare.ts";

const CHANGEABLE = new Set(["content", "schedule_time", "local_schedule_time", "expire_time", "tags"]);

function pathsOf(request: UpdateNotificationRequest): string[] {
  const given = create(UpdateNotificationRequestSchema, { ...request, id: "" });
  delete given.updateMask;
  return maskPaths(request.updateMask, UpdateNotificationRequestSchema, given);
}

/** The wall-clock time that is asked for; "" is absent under the mask: at once, as with schedule_time. */
export function localTimeOf(request: UpdateNotificationRequest): string | undefined {
  return pathsOf(request).includes("local_schedule_time") ? request.localScheduleTime : undefined;
}

/** Whether new content is asked for: what becomes of it is for `typedContent`, which has to know the type. */
export function changesContent(request: UpdateNotificationRequest): boolean {
  return pathsOf(request).includes("content");
}

/** What the request asks to change but for the content. Throws INVALID_REQUEST naming the field that cannot be. */
export function changesOf(request: UpdateNotificationRequest, now: Date): Changes {
  const paths = pathsOf(request);
  const changes: Changes = {};
  for (const path of paths) {
    if (!CHANGEABLE.has(path)) {
      throw new Fault(ErrorReason.INVALID_FIELD_MASK, {
        message: `update_mask: "${path}" cannot be changed; use ${[...CHANGEABLE].join(", ")}`,
        fields: [{ field: "update_mask", description: `"${path}" cannot be changed` }],
      });
    }
  }
  if (paths.includes("content")) {
    if (request.content === undefined) throw invalidField("content", "cannot be taken away");
  }
  if (paths.includes("schedule_time")) changes.scheduledAt = scheduleOf(request, now);
  if (paths.includes("expire_time"))
    changes.expiresAt = request.expireTime ? checkedTime("expire_time", request.expireTime, now) : null;
  if (paths.includes("tags")) {
    checkTags(request.tags);
    changes.tags = request.tags;
  }
  return changes;
}

/** As in Send, a time in the past means at once. */
function scheduleOf(request: UpdateNotificationRequest, now: Date): Date | null {
  if (request.scheduleTime === undefined) return null;
  const time = checkedTime("schedule_time", request.scheduleTime, now);
  return time > now ? time : null;
}

/** Throws INVALID_REQUEST when it would expire before it is due, or has. */
export function checkExpiry(changes: Changes, before: NotificationRow, now: Date): void {
  if (changes.expiresAt && changes.expiresAt <= now)
    throw invalidField("expire_time", "must lie in the future; to have it end now, cancel it (CancelNotification)");
  const scheduled = changes.scheduledAt === undefined ? before.scheduledAt : changes.scheduledAt;
  const expires = changes.expiresAt === undefined ? before.expiresAt : changes.expiresAt;
  if (scheduled !== null && expires !== null && expires <= scheduled) {
    throw invalidField(
      changes.expiresAt === undefined ? "schedule_time" : "expire_time",
      "schedule_time must be before expire_time",
    );
  }
}
