import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { type ChannelGate, suppress } from "./gate.ts";

/** There is no such channel here. Bit n of `available` is set where channel n can be used. */
export const channelUnavailable =
  (available: number): ChannelGate =>
  (_, channel) =>
    (available & (1 << channel)) === 0 ? suppress(Reason.CHANNEL_UNAVAILABLE) : undefined;
