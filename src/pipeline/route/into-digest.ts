import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { BatchPlan } from "#src/batches/plan.ts";
import { channelsFor } from "#src/notifications/channel-bits.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import { type NotificationTypeRow, rulesOf } from "#src/types/type.ts";
import { capOf, collected } from "./cap.ts";
import { conclude, concludeBatched } from "./conclude.ts";
import type { Refusal } from "./conclusion.ts";
import type { Candidate } from "./ended-by.ts";
import type { ChannelVerdict, Facts } from "./gates/decide.ts";
import { recording } from "./record.ts";

/** What becomes of a member whose batch the hourly cap has refused. `detail`: as a Conclusion's. */
export type Collected =
  | { kind: "joins"; plan: BatchPlan; detailIn(digest: { id: string; flushAt: Date }): Uint8Array | undefined }
  | { kind: "ends"; status: Status; reason: number; detail: Uint8Array | undefined }
  /** It does not wait for a digest, and is decided by itself. */
  | { kind: "goes" };

/**
 * Where a member goes whose batch the hourly cap has refused: as if the cap had refused it by itself. It joins the digest of
 * the next full hour; what expires before that does so now, and a reminder that would come too late is asked about alone,
 * because the cap lets it pass. Pure.
 */
export function intoDigest(decide: (facts: Facts, now: Date) => ChannelVerdict[]) {
  return (
    member: Candidate & { senderId: string | null },
    { preferences, type }: { preferences: CompiledPreferences; type: NotificationTypeRow | undefined },
    refusal: Refusal,
    now: Date,
  ): Collected => {
    const { channels, expiresAt, tags, senderId, ...rest } = member;
    const facts: Facts = {
      notification: {
        ...rest,
        channels: channelsFor(channels, preferences),
        expiresAt: expiresAt ?? undefined,
        tags: tags ?? undefined,
        senderId: senderId ?? undefined,
        rules: type && rulesOf(type),
      },
      // Filters have been asked about each member.
      preferences: { ...preferences, wishes: undefined },
    };
    if (capOf(facts, now)?.over === "pass") return { kind: "goes" };
    const asIs = { ...facts, notification: { ...facts.notification, batchedAlready: true, collected: true } };
    const verdicts = collected(decide(asIs, now), refusal, facts, now);
    const conclusion = conclude(member.id, verdicts, refusal, expiresAt, recording(now)(facts, type?.revision ?? 0));
    const { status, reason, plan, detail } = conclusion;
    if (plan !== undefined) {
      const detailIn = (digest: { id: string; flushAt: Date }) =>
        concludeBatched(conclusion, verdicts, refusal, digest).detail;
      return { kind: "joins", plan, detailIn };
    }
    return status === Status.HELD ? { kind: "goes" } : { kind: "ends", status, reason, detail };
  };
}
