import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { clockGate } from "./clock.ts";

/** Times of the week when things wait; CRITICAL and emergency contacts pass the periods that allow them. */
export const doNotDisturb = clockGate("doNotDisturb", Reason.DO_NOT_DISTURB);
