import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { type Gate, suppress } from "./gate.ts";

/** Less urgent than the user asks for. */
export const belowMinimumPriority: Gate = ({ notification: { type, category, priority }, preferences }) =>
  priority < preferences.scope(type, category).minimumPriority ? suppress(Reason.BELOW_MINIMUM_PRIORITY) : undefined;
