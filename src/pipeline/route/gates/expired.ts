import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { type Gate, suppress } from "./gate.ts";

/** At its expire_time a notification has expired: it is never delivered at that instant or later. */
export const expired: Gate = ({ notification: { expiresAt } }, now) =>
  expiresAt !== undefined && expiresAt <= now ? suppress(Reason.EXPIRED) : undefined;
