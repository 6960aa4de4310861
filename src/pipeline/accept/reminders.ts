import { create, fromBinary } from "@bufbuild/protobuf";
import { sql } from "drizzle-orm";
import { type Content, ContentSchema, type Priority, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { RecipientsSchema, SendRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import { hourOf } from "#src/analytics/hour.ts";
import type { NewReminder } from "#src/deadlines/reconcile.ts";
import { notFound } from "#src/errors.ts";
import { deadlineTag } from "#src/notifications/own-tags.ts";
import { bytes, instants, plain, texts } from "#src/store/arrays.ts";
import type { Db, Tx } from "#src/store/store.ts";
import { checkSunset } from "#src/types/deprecation.ts";
import { insertRows } from "./commit.ts";
import { fenceContracts } from "./fence-contracts.ts";
import { type Draft, draftOf, type TypeDefaults } from "./prepare.ts";

type ReminderRequest = {
  userId: string;
  key: string;
  type: TypeDefaults | undefined;
  content: Content | undefined;
  priority: Priority;
  at: Date;
  /** The user's: some types word what has no title in several. */
  language: string;
};

/** What a deadline reminds with. Checks the content as a Send does. Throws NOT_FOUND for an unknown type, or TYPE_SUNSET. */
export function remindersOf(tenantId: string, asked: ReminderRequest, now: Date) {
  if (asked.type !== undefined) checkSunset(asked.type, now);
  const { draft: inNone, expiresAt } = reminderDraft(asked, now);
  const draft = { ...inNone, content: inNone.contentIn?.(asked.language) ?? inNone.content };
  return {
    content: draft.content,
    warnings: draft.warnings,
    /** Makes sure that what judged the content still does when the transaction ends. Throws StaleContract. */
    fence: (tx: Tx) => fenceContracts(tx, tenantId, [draft]),
    expiresAt,
    insert(tx: Tx, reminders: readonly { id: string; dueAt: Date }[], by: { now: Date; slot: number }): Promise<void> {
      const rows = reminders.map(({ id, dueAt }) => ({
        row: { id, userId: asked.userId, scheduledAt: dueAt, expiresAt: expiresAt(dueAt) },
        draft,
      }));
      return insertRows(tx, tenantId, rows, undefined, { ...by, idempotencyTtlMs: 0 });
    },
  };
}

function reminderDraft(
  { userId, key, content, priority, at, type }: ReminderRequest,
  now: Date,
  { judged = false } = {},
): { draft: Draft; expiresAt(dueAt: Date): Date } {
  if (type === undefined) throw notFound("type");
  const request = create(SendRequestSchema, {
    to: create(RecipientsSchema, { userIds: [userId] }),
    content: content ?? create(ContentSchema),
    priority,
    tags: [deadlineTag(key)],
  });
  const { defaultTtlMs } = type;
  return {
    draft: draftOf(request, type, now, 0, { judged }),
    expiresAt: (dueAt) =>
      defaultTtlMs === null ? at : new Date(Math.min(at.getTime(), dueAt.getTime() + defaultTtlMs)),
  };
}

/** Stores reminders of deadlines that are there, in the transaction of a change of their user's preferences. */
export async function storeReminders(
  db: Db,
  tenantId: string,
  reminders: readonly NewReminder[],
  now: Date,
): Promise<void> {
  if (reminders.length === 0) return;
  const rows = reminders.map(({ deadline, type, id, dueAt }) => {
    const { content, priority } = deadline;
    const stored = { content: fromBinary(ContentSchema, content), priority: priority as Priority };
    const asked = { ...deadline, type, ...stored, language: "" };
    const { draft, expiresAt } = reminderDraft(asked, now, { judged: true });
    return { id, userId: deadline.userId, dueAt, expiresAt: expiresAt(dueAt), draft };
  });
  const at = sql`${now.toISOString()}::timestamptz`;
  await db.execute(sql`
    with added as (
      insert into notifications (tenant_id, id, user_id, type, category, priority, status, channels, content, tags,
        scheduled_at, expires_at, due_at, updated_at, group_key)
      select ${tenantId}::uuid, id, user_id, type, category, priority, ${Status.SCHEDULED}, channels, content,
        tags::text[], due_at, expires_at, due_at, ${at}, group_key
      from unnest(
        ${plain(rows.map(({ id }) => id))}::uuid[],
        ${texts(rows.map(({ userId }) => userId))}::text[],
        ${texts(rows.map(({ draft }) => draft.type))}::text[],
        ${texts(rows.map(({ draft }) => draft.category))}::text[],
        ${plain(rows.map(({ draft }) => draft.priority))}::smallint[],
        ${plain(rows.map(({ draft }) => draft.channels))}::int[],
        ${bytes(rows.map(({ draft }) => draft.content))}::bytea[],
        ${texts(rows.map(({ draft }) => texts(draft.tags)))}::text[],
        ${instants(rows.map(({ dueAt }) => dueAt))}::timestamptz[],
        ${instants(rows.map(({ expiresAt }) => expiresAt))}::timestamptz[],
        ${texts(rows.map(({ draft }) => draft.groupKey ?? null))}::text[]
      ) as t (id, user_id, type, category, priority, channels, content, tags, due_at, expires_at, group_key)
      returning id, type
    ), history as (
      insert into timeline (tenant_id, notification_id, at, status, channel, reason)
      select ${tenantId}::uuid, id, ${at}, ${Status.SCHEDULED}, 0, ${Reason.SCHEDULED} from added
    )
    insert into counters (tenant_id, hour, type, channel, status, slot, count)
    select ${tenantId}::uuid, ${hourOf(now).toISOString()}::timestamptz, type, 0, status, 0, count(*)
    from added cross join unnest(${plain([Status.ACCEPTED, Status.SCHEDULED])}::smallint[]) as t (status)
    group by type, status order by type, status
    on conflict (tenant_id, hour, type, channel, status, slot) do update set count = counters.count + excluded.count`);
}
