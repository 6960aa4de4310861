import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { clockGate } from "./clock.ts";

/** Saturdays and Sundays, for users who want none then; CRITICAL passes. */
export const weekend = clockGate("weekend", Reason.WEEKEND);
