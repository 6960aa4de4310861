import { sql } from "drizzle-orm";
import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { hourOf } from "#src/analytics/hour.ts";
import { BatchRole } from "#src/batches/role.ts";
import { SCHEDULE_TAG } from "#src/notifications/own-tags.ts";
import type { Progress, RuleChange } from "#src/preferences/rule-changes.ts";
import { bytes, instants, plain, texts } from "#src/store/arrays.ts";
import type { Db } from "#src/store/store.ts";
import type { Moved, Outcome, Times, WaitingRow } from "./outcome.ts";

type Columns = {
  id: string;
  user_id: string;
  type: string;
  category: string;
  priority: number;
  channels: number;
  status: number;
  reason: number;
  bypass_limits: boolean;
  sender_id: string | null;
  due_at: string | null;
  scheduled_at: string | null;
  expires_at: string | null;
  local_time: string | null;
  local_ttl_ms: string | null;
  of_schedule: boolean;
  batch_role: number | null;
  batched_at: string | null;
  escalates: boolean;
  batch_key: string | null;
  tags: string[] | null;
};

/** What waits for users after an id, in the order of ids, locked. Literal statuses: only those let Postgres use its index. */
export async function lockWaitingOfUsers(
  db: Db,
  tenantId: string,
  userIds: readonly string[],
  after: string,
  limit: number,
): Promise<WaitingRow[]> {
  const rows = await db.execute<Columns>(sql`
    select ${columns} from notifications n
    where tenant_id = ${tenantId}::uuid and user_id = any(${texts(userIds)}::text[]) and status in (2, 3, 4) and ${waits}
      and id > ${after}::uuid
    order by id limit ${limit} for update of n`);
  return rows.map(toRow);
}

/** Of the ids after another, those that wait; how many were looked at, and the last: undefined when there is no more. */
export type Page = { ids: string[]; looked: number; last: string | undefined };

/**
 * What waits in one status after an id, for all users of a tenant, of one type or of all: without their locks. Looks at no
 * more than `limit`, whatever the type: what waits is not indexed by it.
 */
export async function lookAtWaiting(
  db: Db,
  { tenantId, type }: RuleChange,
  { status, after }: Progress,
  limit: number,
): Promise<Page> {
  const [page] = await db.execute<{ ids: string[] | null; looked: number; last: string | null }>(sql`
    select array_agg(id order by id) filter (where (${type} = '' or type = ${type}) and ${waits}) as ids,
      count(*)::int as looked, (array_agg(id order by id desc))[1] as last
    from (
      select id, type, status, batch_role from notifications
      where tenant_id = ${tenantId}::uuid and status = ${sql.raw(String(status))} and id > ${after}::uuid
      order by id limit ${limit}) as page`);
  const { ids, looked, last } = page ?? { ids: null, looked: 0, last: null };
  return { ids: ids ?? [], looked, last: looked < limit ? undefined : (last ?? undefined) };
}

/** Those of the ids that still wait in the status, locked. */
export async function lockWaiting(
  db: Db,
  tenantId: string,
  status: number,
  ids: readonly string[],
): Promise<WaitingRow[]> {
  if (ids.length === 0) return [];
  // The range lets the planner leave out the months that hold none of them.
  const rows = await db.execute<Columns>(sql`
    select ${columns} from notifications n
    where tenant_id = ${tenantId}::uuid and status = ${sql.raw(String(status))} and ${waits}
      and id = any(${plain(ids)}::uuid[]) and id between ${ids[0] ?? null}::uuid and ${ids.at(-1) ?? null}::uuid
    order by id for update of n`);
  return rows.map(toRow);
}

/** Members of closed batches do not: their fate is that of the batch's notification. */
const waits = sql`(status <> ${Status.BATCHED} or batch_role = ${BatchRole.MEMBER})`;

const columns = sql`id, user_id, type, category, priority, channels, status, reason, bypass_limits, sender_id, due_at,
  scheduled_at, expires_at, local_time, local_ttl_ms, batch_role, batched_at, tags,
  local_time is not null and exists (select from unnest(tags) as t where t ^@ ${SCHEDULE_TAG}) as of_schedule,
  escalation is not null as escalates,
  case when status = ${Status.BATCHED} then
    (select key from batches b where b.tenant_id = n.tenant_id and b.id = n.batch_id and b.state in (1, 2)) end
    as batch_key`;

function toRow(row: Columns): WaitingRow {
  const at = (time: string | null) => (time === null ? undefined : new Date(time));
  return {
    id: row.id,
    userId: row.user_id,
    type: row.type,
    category: row.category,
    priority: row.priority,
    channels: row.channels,
    status: row.status,
    reason: row.reason,
    bypassLimits: row.bypass_limits,
    senderId: row.sender_id ?? undefined,
    dueAt: at(row.due_at),
    scheduledAt: at(row.scheduled_at),
    expiresAt: at(row.expires_at),
    localTime: row.local_time ?? undefined,
    localTtlMs: row.local_ttl_ms === null ? undefined : Number(row.local_ttl_ms),
    ofSchedule: row.of_schedule,
    batchRole: row.batch_role ?? undefined,
    batchedAt: at(row.batched_at),
    batchKey: row.batch_key ?? undefined,
    tags: row.tags ?? [],
    escalates: row.escalates,
  };
}

/** What filters may ask about, of notifications by id. */
export async function readContents(db: Db, tenantId: string, ids: readonly string[]): Promise<Map<string, Uint8Array>> {
  const rows = await db.execute<{ id: string; content: Uint8Array | null }>(sql`
    select n.id, coalesce(n.content, f.content) as content from notifications n
    left join fanouts f on f.tenant_id = n.tenant_id and f.id = n.fanout_id and n.content is null
    where n.tenant_id = ${tenantId}::uuid and n.id = any(${plain(ids)}::uuid[])`);
  return new Map(rows.flatMap(({ id, content }) => (content === null ? [] : [[id, content] as const])));
}

export type Decided = { row: WaitingRow; outcome: Exclude<Outcome, { kind: "unchanged" }> };

type Told = { row: WaitingRow; outcome: Extract<Outcome, { conclusion: Moved }> };

/**
 * Whether it is concluded here, not by a release. The notification of a batch ends with its members, where that is done for
 * whatever ends: it is made due, and the route suppresses it.
 */
export function isTold(decided: Decided): decided is Told {
  const { row, outcome } = decided;
  return "conclusion" in outcome && !(outcome.kind === "suppressed" && row.batchRole === BatchRole.WHOLE);
}

/** Writes what became of notifications that the transaction has locked: with history and counters where it was decided. */
export async function storeOutcomes(db: Db, tenantId: string, decided: readonly Decided[], now: Date): Promise<void> {
  if (decided.length === 0) return;
  const changes = decided.map((each) => changeOf(each, now));
  const ids = plain(changes.map(({ id }) => id));
  const at = sql`${now.toISOString()}::timestamptz`;
  await db.execute(sql`
    with change as (
      select * from unnest(
        ${ids}::uuid[],
        ${plain(changes.map(({ status }) => status))}::smallint[],
        ${plain(changes.map(({ reason }) => reason))}::smallint[],
        ${instants(changes.map(({ dueAt }) => dueAt))}::timestamptz[],
        ${instants(changes.map(({ times }) => times.scheduledAt ?? null))}::timestamptz[],
        ${instants(changes.map(({ times }) => times.expiresAt ?? null))}::timestamptz[],
        ${bytes(changes.map(({ detail }) => detail))}::bytea[],
        ${plain(changes.map(({ told }) => told))}::boolean[],
        ${plain(changes.map(({ leaves }) => leaves))}::boolean[]
      ) as t (id, status, reason, due_at, scheduled_at, expires_at, detail, told, leaves)
    ), changed as (
      update /* locked before */ notifications n
      set status = c.status, reason = c.reason, due_at = c.due_at, scheduled_at = c.scheduled_at,
        expires_at = c.expires_at, updated_at = ${at},
        -- As route/booking.ts has it: one that is held beyond its turn, or ends, gives it up.
        booked_at = case when c.told and (c.due_at is null or n.booked_at < c.due_at) then null else n.booked_at end,
        batch_id = case when c.leaves then null else n.batch_id end,
        batch_role = case when c.leaves then null else n.batch_role end
      from change c where n.tenant_id = ${tenantId}::uuid and n.id = any(${ids}::uuid[]) and n.id = c.id
      returning n.id, n.type, c.status, c.reason, c.detail, c.told
    ), history as (
      insert into timeline (tenant_id, notification_id, at, status, channel, reason, detail)
      select ${tenantId}::uuid, id, ${at}, status, 0,
        case when status = ${Status.SCHEDULED} then ${Reason.SCHEDULED} else reason end, detail
      from changed where told
    )
    insert into counters (tenant_id, hour, type, channel, status, slot, count)
    select ${tenantId}::uuid, ${hourOf(now).toISOString()}::timestamptz, type, 0, status, 0, count(*) from changed
    where told group by type, status order by type, status
    on conflict (tenant_id, hour, type, channel, status, slot) do update set count = counters.count + excluded.count`);
}

type Change = {
  id: string;
  status: number;
  reason: number;
  dueAt: Date | null;
  times: Times;
  detail: Uint8Array | null;
  told: boolean;
  /** It waits outside its batch from now on. */
  leaves: boolean;
};

function changeOf(decided: Decided, now: Date): Change {
  const { row, outcome } = decided;
  const { id, status, reason } = row;
  const { times } = outcome;
  // A release writes its own history.
  if (!isTold(decided)) return { id, status, reason, dueAt: now, times, detail: null, told: false, leaves: false };
  const leaves = row.batchRole === BatchRole.MEMBER && decided.outcome.kind === "moved";
  return { ...columnsOf(decided.outcome.conclusion), id, times, told: true, leaves };
}

/** A row that is SCHEDULED has no reason; its history has. */
function columnsOf({ status, reason, dueAt, detail }: Moved) {
  const scheduled = status === Status.SCHEDULED;
  return { status, reason: scheduled ? 0 : reason, dueAt: dueAt ?? null, detail: scheduled ? null : (detail ?? null) };
}
