import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { type Gate, suppress } from "./gate.ts";

/** The user wants nothing at all, CRITICAL included. */
export const optedOut: Gate = ({ preferences }) => (preferences.optedOut ? suppress(Reason.USER_OPTED_OUT) : undefined);
