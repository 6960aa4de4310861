import { Channel } from "#gen/posthorn/v1/notification_pb.ts";

// A notification's channels are stored as one number: bit n is set when channel n was asked for.

export function channelBits(channels: readonly number[]): number {
  return channels.reduce((bits, channel) => bits | (1 << channel), 0);
}

export function channelsOf(bits: number): Channel[] {
  return Object.values(Channel).filter((channel) => channel !== 0 && (bits & (1 << channel)) !== 0);
}

/** Those asked for; and, of what goes to the inbox, where else its recipient wants that. */
export function channelsFor(bits: number, { delivery }: { delivery: { method: Channel } }): Channel[] {
  return channelsOf((bits & (1 << Channel.IN_APP)) === 0 ? bits : bits | (1 << delivery.method));
}
