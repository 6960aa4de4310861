import { sql } from "drizzle-orm";
import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { hourOf } from "#src/analytics/hour.ts";
import { BatchRole } from "#src/batches/role.ts";
import { plain, texts } from "#src/store/arrays.ts";
import type { Db, Tx } from "#src/store/store.ts";
import type { DeadlineDefinition, DeadlineRow } from "./deadline.ts";
import type { Reminder } from "./plan.ts";

/** The deadline, made if there was none; its row stays locked, so that its reminders change one change at a time. */
export async function lockDeadline(
  tx: Tx,
  tenantId: string,
  wanted: DeadlineDefinition,
  now: Date,
): Promise<{ row: DeadlineRow; isNew: boolean }> {
  const { userId, key, type, at, content, priority, offsetsMs } = wanted;
  const made = await tx`
    insert into deadlines (tenant_id, user_id, key, type, at, content, priority, offsets_ms, reminders, revision,
      created_at, updated_at)
    values (${tenantId}, ${userId}, ${key}, ${type}, ${at}, ${content as Buffer}, ${priority},
      ${offsetsMs === null ? null : plain(offsetsMs)}::bigint[], '[]', 1, ${now}, ${now})
    on conflict (tenant_id, user_id, key) do nothing returning key`;
  const row = await findDeadline(tx, tenantId, userId, key, true);
  // Deleted between the two: whoever calls again makes it anew.
  if (row === undefined) return lockDeadline(tx, tenantId, wanted, now);
  return { row, isNew: made.length > 0 };
}

export async function findDeadline(
  tx: Tx,
  tenantId: string,
  userId: string,
  key: string,
  lock = false,
): Promise<DeadlineRow | undefined> {
  const [row] = await tx<DeadlineRow[]>`
    select ${columns(tx)} from deadlines where tenant_id = ${tenantId} and user_id = ${userId} and key = ${key}
    ${lock ? tx`for update` : tx``}`;
  return row;
}

/** Up to `limit` deadlines of a user after a key, in the order of keys; none after contents of more than `maxBytes`. */
export async function pageDeadlines(
  tx: Tx,
  tenantId: string,
  userId: string,
  after: string,
  { limit, maxBytes }: { limit: number; maxBytes: number },
): Promise<DeadlineRow[]> {
  return tx<DeadlineRow[]>`
    with page as materialized (
      select key, sum(octet_length(content)) over (order by key) - octet_length(content) as before from deadlines
      where tenant_id = ${tenantId} and user_id = ${userId} and key > ${after} order by key limit ${limit}
    )
    select ${columns(tx)} from deadlines where tenant_id = ${tenantId} and user_id = ${userId}
      and key in (select key from page where before <= ${maxBytes}) order by key`;
}

/** Whether the user has more than so many deadlines to come. Of two that are made at once each may count the other out. */
export async function hasMoreDeadlines(
  tx: Tx,
  tenantId: string,
  userId: string,
  most: number,
  now: Date,
): Promise<boolean> {
  const rows = await tx`
    select from deadlines where tenant_id = ${tenantId} and user_id = ${userId} and at > ${now} limit ${most + 1}`;
  return rows.length > most;
}

/** Changes a locked deadline. */
export async function changeDeadline(
  tx: Tx,
  tenantId: string,
  { userId, key, type, at, content, priority, offsetsMs }: DeadlineDefinition,
  { reminders, revision }: { reminders: readonly Reminder[]; revision: number },
  now: Date,
): Promise<void> {
  await tx`
    update deadlines set type = ${type}, at = ${at}, content = ${content as Buffer}, priority = ${priority},
      offsets_ms = ${offsetsMs === null ? null : plain(offsetsMs)}::bigint[], reminders = ${tx.json([...reminders])},
      revision = ${revision}, updated_at = ${now}
    where tenant_id = ${tenantId} and user_id = ${userId} and key = ${key}`;
}

/** Removes a deadline and answers it, if there was one. */
export async function removeDeadline(
  tx: Tx,
  tenantId: string,
  userId: string,
  key: string,
): Promise<DeadlineRow | undefined> {
  const [row] = await tx<DeadlineRow[]>`
    delete from deadlines where tenant_id = ${tenantId} and user_id = ${userId} and key = ${key}
    returning ${columns(tx)}`;
  return row;
}

/** Removes up to `limit` deadlines of a user; answers how many. */
export async function removeDeadlines(tx: Tx, tenantId: string, userId: string, limit: number): Promise<number> {
  const removed = await tx`
    delete from deadlines where tenant_id = ${tenantId} and user_id = ${userId} and key = any(array(
      select key from deadlines where tenant_id = ${tenantId} and user_id = ${userId} order by key limit ${limit}
      for update))`;
  return removed.count;
}

/** Those of the notifications that are not decided yet, that have reached nobody yet, and that were cancelled. They stay so. */
export async function lockReminders(
  tx: Tx,
  tenantId: string,
  ids: readonly string[],
): Promise<{ open: Set<string>; outside: Set<string>; cancelled: Set<string> }> {
  if (ids.length === 0) return { open: new Set(), outside: new Set(), cancelled: new Set() };
  const rows = await tx<{ id: string; status: number; merged: boolean }[]>`
    select id, status, batch_role is not distinct from ${BatchRole.MERGED} as merged from notifications
    where tenant_id = ${tenantId} and id = any(${plain(ids)}::uuid[]) order by id for update`;
  const those = (which: (row: (typeof rows)[number]) => boolean) => new Set(rows.filter(which).map(({ id }) => id));
  return {
    open: those(({ status, merged }) => OPEN.has(status) && !merged),
    outside: those(({ status, merged }) => status === Status.PROCESSING && !merged),
    cancelled: those(({ status }) => status === Status.CANCELLED),
  };
}

const OPEN = new Set<number>([Status.ACCEPTED, Status.SCHEDULED, Status.HELD, Status.BATCHED]);

function columns(tx: Tx) {
  return tx`tenant_id as "tenantId", user_id as "userId", key, type, at, content, priority,
    offsets_ms::float8[] as "offsetsMs", reminders, revision, created_at as "createdAt", updated_at as "updatedAt"`;
}

/** A deadline that says no offsets itself: its reminders follow its user's. */
export type Following = Pick<DeadlineRow, "userId" | "key" | "type" | "at" | "content" | "priority" | "reminders">;

type FollowingColumns = Omit<Following, "userId" | "at"> & { at: string };

/** Those of a user that are still to come, locked in the order of their keys. */
export async function lockFollowing(db: Db, tenantId: string, userId: string, now: Date): Promise<Following[]> {
  const rows = await db.execute<FollowingColumns>(sql`
    select key, type, at, content, priority, reminders from deadlines
    where tenant_id = ${tenantId}::uuid and user_id = ${userId} and offsets_ms is null and at > ${timestamp(now)}
    order by key for update`);
  return rows.map((row) => ({ ...row, userId, at: new Date(row.at) }));
}

/** Notes the reminders of deadlines that the transaction has locked. */
export async function saveReminders(
  db: Db,
  { tenantId, userId }: { tenantId: string; userId: string },
  changed: readonly { key: string; reminders: readonly Reminder[] }[],
  now: Date,
): Promise<void> {
  if (changed.length === 0) return;
  await db.execute(sql`
    update deadlines d set reminders = t.reminders::jsonb, revision = d.revision + 1, updated_at = ${timestamp(now)}
    from unnest(
      ${texts(changed.map(({ key }) => key))}::text[],
      ${texts(changed.map(({ reminders }) => JSON.stringify(reminders)))}::text[]
    ) as t (key, reminders)
    where d.tenant_id = ${tenantId}::uuid and d.user_id = ${userId} and d.key = t.key`);
}

/** Cancels those of the reminders that are not handed over yet; answers them. */
export async function cancelReminders(
  db: Db,
  tenantId: string,
  ids: readonly string[],
  { actor, now }: { actor: string; now: Date },
): Promise<{ id: string; userId: string }[]> {
  if (ids.length === 0) return [];
  const rows = await db.execute<{ id: string; user_id: string }>(sql`
    with which as (
      select id from notifications
      where tenant_id = ${tenantId}::uuid and id = any(${plain(ids)}::uuid[]) and ${isOpen} order by id for update
    ), ended as (
      update notifications n
      set status = ${Status.CANCELLED}, reason = ${Reason.CANCELLED}, due_at = null,
        updated_at = greatest(n.updated_at, ${timestamp(now)})
      where n.tenant_id = ${tenantId}::uuid and n.id = any(array(select id from which)) and ${isOpen}
      returning n.id, n.user_id, n.type, n.updated_at
    ), history as (
      insert into timeline (tenant_id, notification_id, at, status, channel, reason, actor)
      select ${tenantId}::uuid, id, updated_at, ${Status.CANCELLED}, 0, ${Reason.CANCELLED}, ${actor} from ended
    ), counted as (
      insert into counters (tenant_id, hour, type, channel, status, slot, count)
      select ${tenantId}::uuid, ${timestamp(hourOf(now))}, type, 0, ${Status.CANCELLED}, 0, count(*) from ended
      group by type order by type
      on conflict (tenant_id, hour, type, channel, status, slot) do update set count = counters.count + excluded.count
    )
    select id, user_id from ended`);
  return rows.map(({ id, user_id }) => ({ id, userId: user_id }));
}

const isOpen = sql`status in (1, 2, 3, 4) and batch_role is distinct from ${BatchRole.MERGED}`;

function timestamp(at: Date) {
  return sql`${at.toISOString()}::timestamptz`;
}
