import { sql } from "drizzle-orm";
import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { hourOf } from "#src/analytics/hour.ts";
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
  due_at: string;
  scheduled_at: string | null;
  expires_at: string | null;
  local_time: string | null;
  local_ttl_ms: string | null;
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
    select ${columns} from notifications
    where tenant_id = ${tenantId}::uuid and user_id = any(${texts(userIds)}::text[]) and status in (2, 3)
      and id > ${after}::uuid
    order by id limit ${limit} for update`);
  return rows.map(toRow);
}

/** What was looked at, and the last of it: undefined when there is no more. */
export type Page = { rows: WaitingRow[]; looked: number; last: string | undefined };

/**
 * What waits in one status after an id, for all users of a tenant, of one type or of all: locked. Looks at no more than
 * `limit`, whatever the type: what waits is not indexed by it.
 */
export async function lockWaiting(
  db: Db,
  { tenantId, type }: RuleChange,
  { status, after }: Progress,
  limit: number,
): Promise<Page> {
  const inStatus = sql`tenant_id = ${tenantId}::uuid and status = ${sql.raw(String(status))}`;
  const [page] = await db.execute<{ ids: string[] | null; looked: number; last: string | null }>(sql`
    select array_agg(id order by id) filter (where ${type} = '' or type = ${type}) as ids, count(*)::int as looked,
      (array_agg(id order by id desc))[1] as last
    from (select id, type from notifications where ${inStatus} and id > ${after}::uuid order by id limit ${limit}) as page`);
  const { ids, looked, last } = page ?? { ids: null, looked: 0, last: null };
  const end = looked < limit ? undefined : (last ?? undefined);
  if (ids === null) return { rows: [], looked, last: end };
  // The range lets the planner leave out the months that hold none of them.
  const rows = await db.execute<Columns>(sql`
    select ${columns} from notifications
    where ${inStatus} and id = any(${plain(ids)}::uuid[])
      and id between ${ids[0] ?? null}::uuid and ${ids.at(-1) ?? null}::uuid
    order by id for update`);
  return { rows: rows.map(toRow), looked, last: end };
}

const columns = sql`id, user_id, type, category, priority, channels, status, reason, bypass_limits, sender_id, due_at,
  scheduled_at, expires_at, local_time, local_ttl_ms`;

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
    dueAt: new Date(row.due_at),
    scheduledAt: at(row.scheduled_at),
    expiresAt: at(row.expires_at),
    localTime: row.local_time ?? undefined,
    localTtlMs: row.local_ttl_ms === null ? undefined : Number(row.local_ttl_ms),
  };
}

/** Those of the types that exist. */
export async function existingTypes(db: Db, tenantId: string, keys: readonly string[]): Promise<Set<string>> {
  const rows = await db.execute<{ key: string }>(sql`
    select key from types where tenant_id = ${tenantId}::uuid and key = any(${texts(keys)}::text[])`);
  return new Set(rows.map(({ key }) => key));
}

export type Decided = { row: WaitingRow; outcome: Exclude<Outcome, { kind: "unchanged" }> };

/** Writes what became of notifications that the transaction has locked: with history and counters where it was decided. */
export async function storeOutcomes(db: Db, tenantId: string, decided: readonly Decided[], now: Date): Promise<void> {
  if (decided.length === 0) return;
  const changes = decided.map(({ row, outcome }) => changeOf(row, outcome, now));
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
        ${plain(changes.map(({ told }) => told))}::boolean[]
      ) as t (id, status, reason, due_at, scheduled_at, expires_at, detail, told)
    ), changed as (
      update notifications n
      set status = c.status, reason = c.reason, due_at = c.due_at, scheduled_at = c.scheduled_at,
        expires_at = c.expires_at, updated_at = ${at}
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
};

function changeOf(row: WaitingRow, outcome: Decided["outcome"], now: Date): Change {
  const { id, status, reason } = row;
  const { times } = outcome;
  // A release writes its own history.
  if (outcome.kind === "released") return { id, status, reason, dueAt: now, times, detail: null, told: false };
  return { ...columnsOf(outcome.conclusion), id, times, told: true };
}

/** A row that is SCHEDULED has no reason; its history has. */
function columnsOf({ status, reason, dueAt, detail }: Moved) {
  const scheduled = status === Status.SCHEDULED;
  return { status, reason: scheduled ? 0 : reason, dueAt: dueAt ?? null, detail: scheduled ? null : (detail ?? null) };
}
