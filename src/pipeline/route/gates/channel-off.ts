import { Priority, Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { type ChannelGate, suppress } from "./gate.ts";

/** The user does not want this channel: at all or for this category or type, or for what is not CRITICAL. */
export const channelOff: ChannelGate = ({ notification: { type, category, priority }, preferences }, channel) => {
  const { channelsOff, criticalOnly } = preferences.scope(type, category);
  if ((channelsOff & (1 << channel)) !== 0) return suppress(Reason.CHANNEL_DISABLED);
  if (priority === Priority.CRITICAL || (criticalOnly & (1 << channel)) === 0) return undefined;
  return suppress(Reason.EMERGENCY_ONLY);
};
