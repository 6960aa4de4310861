import type { Channel } from "#gen/posthorn/v1/notification_pb.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import type { ChannelVerdict, Facts } from "./gates/decide.ts";

/** A notification that has been decided, of which another channel is asked. */
export type Asked = {
  id: string;
  type: string;
  category: string;
  priority: number;
  bypassLimits: boolean;
  expiresAt: Date | null;
  senderId: string | null;
  /** It is the notification of a batch, or was left alone in one; undefined: neither. */
  collected?: boolean;
};

/**
 * What the recipient's rules say, at this instant, about one more channel of a notification that has reached them. What
 * collects has had its say, and so have the filters. Pure.
 */
export function askingChannel(decide: (facts: Facts, now: Date) => ChannelVerdict[]) {
  return (
    { expiresAt, senderId, ...asked }: Asked,
    channel: Channel,
    preferences: CompiledPreferences,
    now: Date,
  ): ChannelVerdict | undefined => {
    const notification = {
      ...asked,
      channels: [channel],
      expiresAt: expiresAt ?? undefined,
      senderId: senderId ?? undefined,
      batchedAlready: true,
    };
    return decide({ notification, preferences: { ...preferences, wishes: undefined } }, now)[0];
  };
}
