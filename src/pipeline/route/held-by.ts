import type { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { channelsFor } from "#src/notifications/channel-bits.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import type { ChannelVerdict, Facts } from "./gates/decide.ts";

/** What a batch would become: the notification of its members, or the only one of them. */
export type Becoming = {
  id: string;
  type: string;
  category: string;
  priority: number;
  channels: number;
  senderId: string | null;
  bypassLimits: boolean;
  expiresAt: Date | null;
};

/**
 * What of the clock would hold a batch's notification if it closed now, and until when; undefined: nothing. What collects
 * has had its say, and so have the filters, about each member. Pure.
 */
export function holdingBy(decide: (facts: Facts, now: Date) => ChannelVerdict[]) {
  return (
    { channels, senderId, expiresAt, ...rest }: Becoming,
    preferences: CompiledPreferences,
    now: Date,
  ): { reason: Reason; until: Date } | undefined => {
    const notification = {
      ...rest,
      channels: channelsFor(channels, preferences),
      senderId: senderId ?? undefined,
      expiresAt: expiresAt ?? undefined,
      batchedAlready: true,
      collected: true,
    };
    const verdicts = decide({ notification, preferences: { ...preferences, wishes: undefined } }, now);
    return verdicts.find((verdict) => verdict.kind === "hold");
  };
}
