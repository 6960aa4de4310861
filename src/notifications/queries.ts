import type { PendingQuery, Row } from "postgres";
import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { hourOf } from "#src/analytics/hour.ts";
import { BatchRole } from "#src/batches/role.ts";
import { texts } from "#src/store/arrays.ts";
import { uuidFloor } from "#src/store/partitions.ts";
import type { Tx } from "#src/store/store.ts";
import type { NotificationRow, TimelineRow } from "./notification.ts";
import { OWN_TAGS } from "./own-tags.ts";

const OPEN = [Status.ACCEPTED, Status.SCHEDULED, Status.HELD, Status.BATCHED];
/** Statuses in the partial index notifications_exceptions. */
const USUAL: readonly number[] = [Status.ACCEPTED, Status.DELIVERED, Status.READ];

export type Filter = {
  userId: string | undefined;
  types: string[];
  statuses: number[];
  tag: string | undefined;
  from: Date | undefined;
  until: Date | undefined;
  fanoutId: string | undefined;
  batchId: string | undefined;
};

/** The filter that asks for nothing. */
export const EVERYTHING: Filter = {
  userId: undefined,
  types: [],
  statuses: [],
  tag: undefined,
  from: undefined,
  until: undefined,
  fanoutId: undefined,
  batchId: undefined,
};

export async function findNotifications(tx: Tx, tenantId: string, ids: readonly string[]): Promise<NotificationRow[]> {
  return tx<NotificationRow[]>`
    select ${columns(tx)} from notifications n
    left join fanouts f on f.tenant_id = n.tenant_id and f.id = n.fanout_id and n.content is null
    where n.tenant_id = ${tenantId} and n.id = any(${ids as string[]}::uuid[])`;
}

/** Holds a notification still until the transaction ends, for a change that depends on how it stands. */
export async function lockNotification(tx: Tx, tenantId: string, id: string): Promise<void> {
  await tx`select from notifications where tenant_id = ${tenantId} and id = ${id} for update`;
}

export async function readTimeline(tx: Tx, tenantId: string, id: string): Promise<TimelineRow[]> {
  // ctid breaks ties: rows of one millisecond come in the order they were written.
  return tx<TimelineRow[]>`
    select at, status, channel, reason, actor, detail from timeline
    where tenant_id = ${tenantId} and notification_id = ${id} order by at, ctid`;
}

/** The beginning and the end of a history, where it is long, and how many entries are between. */
export async function readTimelineEnds(
  tx: Tx,
  tenantId: string,
  id: string,
  { first, last }: { first: number; last: number },
): Promise<{ rows: TimelineRow[]; omitted: number }> {
  const rows = await tx<(TimelineRow & { many: number })[]>`
    select at, status, channel, reason, actor, detail, many from (
      select *, row_number() over (order by at, ctid) as n, count(*) over ()::int as many from timeline
      where tenant_id = ${tenantId} and notification_id = ${id}
    ) as numbered where n <= ${first} or n > many - ${last} order by n`;
  return { rows, omitted: (rows[0]?.many ?? 0) - rows.length };
}

/** How many of the tenant's notifications with the same priority wait in front of one; counts no further than `most`. */
export async function queuePosition(
  tx: Tx,
  tenantId: string,
  id: string,
  priority: number,
  most: number,
): Promise<number> {
  const [row] = await tx<{ count: number }[]>`
    select count(*)::int as count from (
      select from notifications where tenant_id = ${tenantId} and priority = ${priority} and status = 1 and id < ${id}
      limit ${most}) as waiting`;
  return row?.count ?? 0;
}

/** A page, newest first, below the id `before`. */
export async function pageNotifications(
  tx: Tx,
  tenantId: string,
  filter: Filter,
  before: string | undefined,
  limit: number,
): Promise<NotificationRow[]> {
  return tx<NotificationRow[]>`
    select ${columns(tx)} from notifications n
    left join fanouts f on f.tenant_id = n.tenant_id and f.id = n.fanout_id and n.content is null
    where n.tenant_id = ${tenantId} ${conditions(tx, filter)}
      ${before === undefined ? tx`` : tx`and n.id < ${before}`}
    order by n.id desc limit ${limit}`;
}

/** Of a row: it waits, and is not part of another notification already. */
export function open(tx: Tx) {
  return tx`status = any(${OPEN}) and batch_role is distinct from ${BatchRole.MERGED}`;
}

export type Changes = {
  content?: Uint8Array;
  scheduledAt?: Date | null;
  /** The wall-clock time that `scheduledAt` is in the recipient's zone, which it then follows. */
  localTime?: string;
  expiresAt?: Date | null;
  tags?: string[];
};

/**
 * Changes an open notification. A new schedule in the future makes it SCHEDULED; one in the past, or none, releases a
 * SCHEDULED one at the scheduler's next tick. An instant takes the place of a wall-clock time, and with a new time of
 * either kind what it expires at stays the instant that it is.
 * Returns false when it is no longer open.
 */
export async function updateOpen(tx: Tx, tenantId: string, id: string, changes: Changes, now: Date): Promise<boolean> {
  return updateRow(tx, tenantId, id, changes, now, open(tx));
}

/** The same for one that meets a condition, whatever it was: one that is decided with a new schedule is so no more. */
export async function updateRow(
  tx: Tx,
  tenantId: string,
  id: string,
  changes: Changes,
  now: Date,
  condition: PendingQuery<Row[]>,
): Promise<boolean> {
  const scheduled = changes.scheduledAt;
  const later = scheduled !== undefined && scheduled !== null && scheduled > now;
  const rows = await tx`
    update notifications set
      ${changes.content === undefined ? tx`` : tx`content = ${changes.content as Buffer},`}
      ${changes.tags === undefined ? tx`` : tx`tags = ${texts(changes.tags)}::text[] || array(select t from unnest(tags) as t where t ^@ any(${texts(OWN_TAGS)}::text[])),`}
      ${changes.expiresAt === undefined ? tx`` : tx`expires_at = ${changes.expiresAt},`}
      ${changes.expiresAt === undefined && scheduled === undefined ? tx`` : tx`local_ttl_ms = null,`}
      ${scheduled === undefined ? tx`` : tx`scheduled_at = ${scheduled}, local_time = ${changes.localTime ?? null},`}
      ${later ? tx`status = ${Status.SCHEDULED}, reason = 0, due_at = ${scheduled}, booked_at = null, ${withoutBatch(tx)},` : tx``}
      ${scheduled !== undefined && !later ? tx`due_at = case when status = ${Status.SCHEDULED} then ${now}::timestamptz else due_at end,` : tx``}
      updated_at = ${now}
    where tenant_id = ${tenantId} and id = ${id} and ${condition}
    returning id, status`;
  return rows.length > 0;
}

/** What an update of a row sets so that it is no member any more. The batch closes without it. */
export function withoutBatch(tx: Tx) {
  return tx`batch_id = case when batch_role = ${BatchRole.MEMBER} then null else batch_id end,
    batch_role = case when batch_role = ${BatchRole.MEMBER} then null else batch_role end`;
}

/** Writes that a notification was put off, with its counter. */
export async function recordScheduled(
  tx: Tx,
  tenantId: string,
  row: { id: string; type: string },
  by: { actor: string; now: Date; slot: number },
): Promise<void> {
  await tx`
    with history as (
      insert into timeline (tenant_id, notification_id, at, status, channel, reason, actor)
      values (${tenantId}, ${row.id}, ${by.now}, ${Status.SCHEDULED}, 0, ${Reason.SCHEDULED}, ${by.actor})
    )
    insert into counters (tenant_id, hour, type, channel, status, slot, count)
    values (${tenantId}, ${hourOf(by.now)}, ${row.type}, 0, ${Status.SCHEDULED}, ${by.slot}, 1)
    on conflict (tenant_id, hour, type, channel, status, slot) do update set count = counters.count + 1`;
}

function columns(tx: Tx) {
  return tx`n.id, n.user_id as "userId", n.type, n.category, n.priority, n.status, n.reason,
    coalesce(n.content, f.content) as content, n.channels, n.tags, n.attempts, n.scheduled_at as "scheduledAt",
    n.expires_at as "expiresAt", n.due_at as "dueAt", n.delivered_at as "deliveredAt", n.updated_at as "updatedAt",
    n.dedup_key as "dedupKey", n.collapse_key as "collapseKey", n.sender_id as "senderId", n.fanout_id as "fanoutId",
    n.batch_id as "batchId", n.group_key as "groupKey",
    n.confirmed_at as "confirmedAt", n.bypass_limits as "bypassLimits"`;
}

/** What a filter asks for, as `and …` each. */
export function conditions(tx: Tx, filter: Filter) {
  const exceptions = filter.statuses.length > 0 && !filter.statuses.some((status) => USUAL.includes(status));
  return tx`
    ${filter.userId === undefined ? tx`` : tx`and n.user_id = ${filter.userId}`}
    ${filter.types.length === 0 ? tx`` : tx`and n.type = any(${filter.types}::text[])`}
    ${filter.statuses.length === 0 ? tx`` : tx`and n.status = any(${filter.statuses}::smallint[])`}
    ${exceptions ? tx`and n.status not in (1, 7, 8)` : tx``}
    ${filter.tag === undefined ? tx`` : tx`and ${filter.tag} = any(n.tags)`}
    ${filter.from === undefined ? tx`` : tx`and n.id >= ${uuidFloor(filter.from)}`}
    ${filter.until === undefined ? tx`` : tx`and n.id < ${uuidFloor(filter.until)}`}
    ${filter.fanoutId === undefined ? tx`` : tx`and n.fanout_id = ${filter.fanoutId}`}
    ${filter.batchId === undefined ? tx`` : tx`and n.batch_id = ${filter.batchId}`}`;
}
