import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import type { Gate } from "./gate.ts";

/** Released too early, by a clock that runs ahead or an update that moved it: it waits for its time. */
export const scheduled: Gate = ({ notification: { scheduledAt } }, now) =>
  scheduledAt !== undefined && scheduledAt > now
    ? { kind: "hold", reason: Reason.SCHEDULED, until: scheduledAt }
    : undefined;
