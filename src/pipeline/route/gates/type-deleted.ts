import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { type Gate, suppress } from "./gate.ts";

/** For what was accepted in the moment its type was deleted, or by a process that had not heard of it yet. */
export const typeDeleted: Gate = ({ notification }) =>
  notification.typeDeleted ? suppress(Reason.TYPE_DELETED) : undefined;
