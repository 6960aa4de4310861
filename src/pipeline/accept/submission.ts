import type { SpanContext } from "@opentelemetry/api";
import type { SendRequest, SendResponse } from "#gen/posthorn/v1/send_service_pb.ts";
import type { NewId } from "#src/ids.ts";
import type { Draft } from "./prepare.ts";

/** A notification to be. */
export type NewRow = { id: string; userId: string; scheduledAt: Date | undefined; expiresAt: Date | undefined };

/** `skipBefore`: members for whom the asked-for time was before get nothing. */
export type NewFanout = { id: string; request: SendRequest; skipBefore?: Date };

/** One Send, ready to be stored. */
export type Submission = {
  draft: Draft;
  /** One per user id, no user twice. */
  rows: NewRow[];
  /** Of the rows: who is in a zone where the asked-for time was before, when they are stored, gets nothing. */
  skipBefore?: Date | null;
  /** Present when the Send names topics, roles or everyone. */
  fanout: NewFanout | undefined;
  idempotency: { key: string; hash: Uint8Array } | undefined;
  actor: string;
  /** Of one that passes the limits: ids for the audit's entries, and what those of one call share. */
  bypass: { auditIds: { notification: string; fanout: string }; callId: string } | undefined;
  /** When it began to wait for its group, by `performance.now()`. */
  submittedAt: number;
  /** The caller's trace, if it is recorded. */
  trace: SpanContext | undefined;
};

/** The rows of a draft, without those whose time was before `skipBefore`. */
export function rowsOf(
  draft: Draft,
  userIds: readonly string[],
  { newId, zoneOf, skipBefore }: { newId: NewId; zoneOf(userId: string): string; skipBefore?: Date | null },
): NewRow[] {
  return userIds.flatMap((userId) => {
    const zone = zoneOf(userId);
    const asked = skipBefore == null ? undefined : draft.asked(zone);
    if (skipBefore != null && asked !== undefined && asked < skipBefore) return [];
    return [{ id: newId(), userId, ...draft.times(zone) }];
  });
}

/** Those of a group that are stored, with their rows and answers. */
export type Accepted = ReadonlyMap<Submission, { rows: NewRow[]; response: SendResponse }>;
