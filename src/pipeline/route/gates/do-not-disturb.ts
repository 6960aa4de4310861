import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { clockGate } from "./clock.ts";

/** Times of the week when things wait; CRITICAL passes the periods that allow it. */
export const doNotDisturb = clockGate("doNotDisturb", Reason.DO_NOT_DISTURB);
