import type { Channel } from "#gen/posthorn/v1/notification_pb.ts";

/** How many of a channel. */
export type OfChannel = { readonly channel: Channel; readonly size: number };

/**
 * So many slots for each channel, none of which another can have: who does not answer keeps only its own waiting. Claim
 * for what is `free`, say with `filled` what came of it, and `take` a slot for each.
 */
export function channelSlots(channels: readonly Channel[], size: number) {
  const held = new Map<Channel, number>();
  /** Those for which as much was due as they had room for: there may be more. */
  const behind = new Set<Channel>();
  let freed = Promise.withResolvers<void>();
  const freeOf = (channel: Channel) => size - (held.get(channel) ?? 0);
  return {
    free(): OfChannel[] {
      return channels.map((channel) => ({ channel, size: freeOf(channel) })).filter((each) => each.size > 0);
    },
    filled(channel: Channel, isFull: boolean): void {
      if (isFull) behind.add(channel);
      else behind.delete(channel);
    },
    take(channel: Channel): void {
      held.set(channel, (held.get(channel) ?? 0) + 1);
    },
    give(channel: Channel): void {
      held.set(channel, (held.get(channel) ?? 0) - 1);
      if (behind.has(channel)) freed.resolve();
    },
    /** When a channel for which more may be due has room again; undefined: there is none. */
    roomForMore(): Promise<void> | undefined {
      if (behind.size === 0) return undefined;
      if ([...behind].some((channel) => freeOf(channel) > 0)) return Promise.resolve();
      freed = Promise.withResolvers<void>();
      return freed.promise;
    },
  };
}
