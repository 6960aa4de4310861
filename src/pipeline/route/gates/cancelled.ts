import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { type Gate, suppress } from "./gate.ts";

/** Only spares work: the commit takes nothing that was cancelled before it. */
export const cancelled: Gate = ({ notification }) => (notification.cancelled ? suppress(Reason.CANCELLED) : undefined);
