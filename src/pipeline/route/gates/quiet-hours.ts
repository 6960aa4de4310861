import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { clockGate } from "./clock.ts";

/** A time of every day when things wait; CRITICAL passes unless the user says otherwise. */
export const quietHours = clockGate("quietHours", Reason.QUIET_HOURS);
