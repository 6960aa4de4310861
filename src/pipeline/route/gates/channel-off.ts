import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { type ChannelGate, suppress } from "./gate.ts";

/** The user does not want this channel, at all or for this category or type. */
export const channelOff: ChannelGate = ({ notification: { type, category }, preferences }, channel) =>
  (preferences.scope(type, category).channelsOff & (1 << channel)) === 0
    ? undefined
    : suppress(Reason.CHANNEL_DISABLED);
