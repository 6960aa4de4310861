import type { SpanContext } from "@opentelemetry/api";
import type { SendRequest, SendResponse } from "#gen/posthorn/v1/send_service_pb.ts";
import type { NewId } from "#src/ids.ts";
import type { Draft } from "./prepare.ts";

/** A notification to be. `content`: where it is not that of its draft, but in its recipient's language. */
export type NewRow = {
  id: string;
  userId: string;
  scheduledAt: Date | undefined;
  expiresAt: Date | undefined;
  content?: Uint8Array | undefined;
};

/** What of a recipient a notification depends on. */
export type Recipient = { readonly timeZone: string; readonly language: string };

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
  { newId, known, skipBefore }: { newId: NewId; known: Recipients; skipBefore?: Date | null },
): NewRow[] {
  return userIds.flatMap((userId) => {
    const zone = zoneIn(known, userId);
    const asked = skipBefore == null ? undefined : draft.asked(zone);
    if (skipBefore != null && asked !== undefined && asked < skipBefore) return [];
    const content = draft.contentIn?.(known?.get(userId)?.language ?? "");
    return [{ id: newId(), userId, ...draft.times(zone), ...(content && { content }) }];
  });
}

/** Those who are not in it, and all where there is none, are in UTC and speak no language in particular. */
export type Recipients = ReadonlyMap<string, Recipient> | undefined;

export function zoneIn(known: Recipients, userId: string): string {
  return known?.get(userId)?.timeZone ?? "UTC";
}

/** Whether rows of it depend on who gets them, so that recipients have to be looked up. */
export function dependsOnRecipient({ local, contentIn }: Draft): boolean {
  return local !== undefined || contentIn !== undefined;
}

/** Those of a group that are stored, with their rows and answers. */
export type Accepted = ReadonlyMap<Submission, { rows: NewRow[]; response: SendResponse }>;
