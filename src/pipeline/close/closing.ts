import { fromBinary } from "@bufbuild/protobuf";
import { BatchKind } from "#gen/posthorn/v1/batch_service_pb.ts";
import type { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { BatchWordingSchema } from "#gen/posthorn/v1/type_service_pb.ts";
import { type Merged, mergeBatch, mergeDigest } from "#src/batches/merge.ts";
import { wordsIn } from "#src/batches/wording.ts";
import type { NewId } from "#src/ids.ts";
import { type Given, turnThatHasCome } from "#src/limits/hold.ts";
import type { Reservation } from "#src/limits/notification-limits.ts";
import type { NotificationTypeRow } from "#src/types/type.ts";
import type { DueBatch, MemberRow } from "./queries.ts";

export type Ended = { id: string; userId: string; status: Status; reason: Reason };

/**
 * What becomes of a batch and its members. `heldUntil`: it does not close yet, because its notification would only wait:
 * open, its members can still be changed, and all of it is asked again then.
 */
export type Closing = {
  batch: DueBatch;
  /** Who is no longer wanted, or too late. */
  ended: Ended[];
  /** Who is left. */
  merged: MemberRow[];
  /** What goes on: the notification they become, or the only one of them. Undefined: nobody is left. */
  next: { id: string; priority: number } | undefined;
  /** The notification they become, where there is more than one. */
  whole: Merged | undefined;
  heldUntil?: Date;
  /** The turn under a limit, if any: of one that waits for it; of one that closes, what goes on hands it in. */
  turn?: Given | undefined;
  /** It waits for a limit. */
  limited?: boolean;
  /** The hourly cap has no room for it: who is left goes into the user's digest instead (pour.ts). */
  refused?: { members: readonly MemberRow[]; by: Refusal };
};

export type Refusal = Extract<Reservation, { allowed: false }>;

/** What is known of that before it closes; `id` is the batch's where it is a notification that is yet to be made. */
export type Becoming = Pick<
  MemberRow,
  "id" | "type" | "category" | "priority" | "channels" | "senderId" | "bypassLimits" | "expiresAt"
>;

export type ClosingRules = {
  /** The recipient's. */
  language: string;
  endedBy(member: MemberRow): { status: Status; reason: Reason } | undefined;
  heldBy(next: Becoming): { until: Date } | undefined;
  /** What the limits say about what it would become; undefined: they were not asked. */
  turn: Reservation | undefined;
};

/** The turn under a limit that a batch was given when it waited for that. */
export function turnOf({ bookedAt, bookedFor }: DueBatch): Given | undefined {
  return bookedAt === null || bookedFor === null ? undefined : { at: bookedAt, reason: bookedFor };
}

/** Closes one batch: see `Closing`. Pure but for the id. `members` come in the order of their ids. */
export function closing(
  batch: DueBatch,
  members: readonly MemberRow[],
  type: NotificationTypeRow | undefined,
  { language, endedBy, heldBy, turn }: ClosingRules,
  { newId, now }: { newId: NewId; now: Date },
): Closing {
  const ended: Ended[] = [];
  const merged = members.filter((member) => {
    const end = endedBy(member);
    if (end !== undefined) ended.push({ id: member.id, userId: member.userId, ...end });
    return end === undefined;
  });
  const [first] = merged;
  const stays = { batch, ended, merged: [], next: undefined, whole: undefined };
  if (first === undefined) return stays;
  const waits = (until: Date): Closing => ({ ...stays, heldUntil: until });
  const byLimits = (expiresAt: Date | null): Closing | undefined => {
    if (turn === undefined || turn.allowed) return undefined;
    if (turn.digest) return { ...stays, refused: { members: merged, by: turn } };
    // What cannot come in time is not kept waiting for that: it closes, and is EXPIRED when it is decided.
    if (expiresAt !== null && turn.until >= expiresAt) return undefined;
    const { until, reason, slot } = turn;
    return { ...waits(until), limited: true, turn: slot ? { at: until, reason } : undefined };
  };
  const come = turn?.allowed ? turnThatHasCome(now) : turnOf(batch);
  if (merged.length === 1) {
    const hold = heldBy(first);
    if (hold !== undefined) return waits(hold.until);
    const next = { id: first.id, priority: first.priority };
    return byLimits(first.expiresAt) ?? { batch, ended, merged, next, whole: undefined, turn: come };
  }
  const wording = type?.batchWording == null ? undefined : fromBinary(BatchWordingSchema, type.batchWording);
  const words = wording && wordsIn(wording, language);
  const named = { key: batch.type, displayName: type?.displayName ?? "" };
  const whole =
    batch.kind === BatchKind.DIGEST ? mergeDigest(batch.id, merged, words) : mergeBatch(batch.id, merged, named, words);
  const { id, type: key, category } = batch;
  const hold = heldBy({ ...whole, id, type: key, category });
  if (hold !== undefined) return waits(hold.until);
  const next = { id: newId(), priority: whole.priority };
  return byLimits(whole.expiresAt) ?? { batch, ended, merged, next, whole, turn: come };
}
