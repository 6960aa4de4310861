import { create } from "@bufbuild/protobuf";
import { type Content, ContentSchema, type Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { RecipientsSchema, SendRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import { notFound } from "#src/errors.ts";
import { deadlineTag } from "#src/notifications/own-tags.ts";
import type { Tx } from "#src/store/store.ts";
import { insertRows } from "./commit.ts";
import { draftOf, type TypeDefaults } from "./prepare.ts";

export type ReminderRequest = {
  userId: string;
  key: string;
  type: TypeDefaults | undefined;
  content: Content | undefined;
  priority: Priority;
  at: Date;
};

/** What a deadline reminds with. Checks the content as a Send does. Throws NOT_FOUND for an unknown type. */
export function remindersOf(tenantId: string, asked: ReminderRequest, now: Date) {
  const { userId, key, content, priority, at, type } = asked;
  if (type === undefined) throw notFound("type");
  const request = create(SendRequestSchema, {
    to: create(RecipientsSchema, { userIds: [userId] }),
    content: content ?? create(ContentSchema),
    priority,
    tags: [deadlineTag(key)],
  });
  const draft = draftOf(request, type, now, 0);
  const expiresAt = (dueAt: Date) =>
    type.defaultTtlMs === null ? at : new Date(Math.min(at.getTime(), dueAt.getTime() + type.defaultTtlMs));
  return {
    content: draft.content,
    expiresAt,
    insert(tx: Tx, reminders: readonly { id: string; dueAt: Date }[], by: { now: Date; slot: number }): Promise<void> {
      const rows = reminders.map(({ id, dueAt }) => ({
        row: { id, userId, scheduledAt: dueAt, expiresAt: expiresAt(dueAt) },
        draft,
      }));
      return insertRows(tx, tenantId, rows, undefined, { ...by, idempotencyTtlMs: 0 });
    },
  };
}
