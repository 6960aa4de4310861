import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { channelsFor } from "#src/notifications/channel-bits.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import type { ChannelVerdict, Facts } from "./gates/decide.ts";

/** A member of a batch that closes. */
export type Candidate = {
  id: string;
  type: string;
  category: string;
  priority: number;
  channels: number;
  bypassLimits: boolean;
  expiresAt: Date | null;
  tags: readonly string[] | null;
  /** Encoded posthorn.v1.Content. */
  content: Uint8Array;
};

/**
 * What ends a member of a batch for good: the user's word since it joined, or time. Undefined: it is still wanted; that
 * it would wait by itself is no reason to leave it out. Filters are asked again, because it may have been updated: get them
 * ready before. Pure.
 */
export function endingBy(decide: (facts: Facts, now: Date) => ChannelVerdict[]) {
  return (
    member: Candidate,
    preferences: CompiledPreferences,
    now: Date,
  ): { status: Status; reason: Reason } | undefined => {
    const { expiresAt, tags, ...rest } = member;
    const notification = {
      ...rest,
      channels: channelsFor(member.channels, preferences),
      expiresAt: expiresAt ?? undefined,
      tags: tags ?? undefined,
      // It goes with its batch.
      collected: true,
    };
    const verdicts = decide({ notification, preferences }, now);
    const [first] = verdicts;
    if (first === undefined) return { status: Status.SUPPRESSED, reason: Reason.NO_CHANNEL };
    if (first.kind !== "suppress" || verdicts.some((verdict) => verdict.kind !== "suppress")) return undefined;
    return { status: first.reason === Reason.EXPIRED ? Status.EXPIRED : Status.SUPPRESSED, reason: first.reason };
  };
}
