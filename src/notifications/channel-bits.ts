import { Channel } from "#gen/posthorn/v1/notification_pb.ts";

// A notification's channels are stored as one number: bit n is set when channel n was asked for.

export function channelBits(channels: readonly number[]): number {
  return channels.reduce((bits, channel) => bits | (1 << channel), 0);
}

export function channelsOf(bits: number): Channel[] {
  return Object.values(Channel).filter((channel) => channel !== 0 && (bits & (1 << channel)) !== 0);
}
