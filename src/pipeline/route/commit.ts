import { Channel, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { hourOf } from "#src/analytics/hour.ts";
import { followWholes, type MaybeWhole } from "#src/batches/follow.ts";
import { type BatchSummary, readSummaries } from "#src/batches/queries.ts";
import { BatchRole } from "#src/batches/role.ts";
import { groupParts } from "#src/inbox/group.ts";
import { fenceNames, sharedFence } from "#src/preferences/fence.ts";
import { bytes, instants, plain, texts } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import type { Conclusion } from "./conclusion.ts";

/** Where a delivered notification stands in its user's inbox, and the inbox after it. */
export type Placed = {
  id: string;
  userId: string;
  seq: number;
  epoch: number;
  headSeq: number;
  seenSeq: number;
  unread: number;
  total: number;
  archived: number;
  snoozed: number;
  /** Of what is a batch. */
  batch?: BatchSummary | undefined;
};

/**
 * `decided`: the ids whose conclusion was stored; the others, or the rules they were decided by, had been changed, or they
 * had been cancelled or decided by somebody else.
 */
export type Committed = { decided: Set<string>; placed: Placed[] };

/**
 * Stores decisions and makes the in-app deliveries, in one statement: takes the notifications that are still ACCEPTED
 * (so that a cancel and a delivery cannot both happen), gives the deliveries the next sequences of their users' inboxes
 * under the heads' row locks, writes entries, statuses, history and counters.
 *
 * What is DELIVERED here is so in the inbox: outside channels are handed theirs after the commit (hand-over.ts).
 *
 * The batches that some of them join are locked already (batches/join.ts). Members of closed batches follow.
 *
 * Heads are locked in the order of user ids, after the notifications: everything that locks both does it in this order.
 * Before both comes the fence of those that shall wait (preferences/fence.ts).
 */
export async function commitDecisions(
  tx: Tx,
  tenantId: string,
  conclusions: readonly Conclusion[],
  context: { now: Date; slot: number; epoch: number },
): Promise<Committed> {
  const { now, slot, epoch } = context;
  const ids = conclusions.map((conclusion) => conclusion.id);
  const sorted = [...ids].sort();
  // The planner takes what the parts of this statement hand each other for one row, and would join 250 with 250 by trying
  // all pairs. So: by hash. The rows themselves are found by `id = any`, through the index however far apart they are; the
  // bounds besides let it leave out the months the chunk has nothing in; and `status + 0` keeps it from taking the index of
  // all that waits instead, which costs as much as the backlog is long.
  // Where nothing is batched the statement is the one that all plain chunks share, and so is its plan.
  const batched = conclusions.some(({ batch }) => batch !== undefined);
  const given = batched ? tx`, ${plain(conclusions.map(({ batch }) => batch?.id))}::uuid[]` : tx``;
  const joins = batched ? tx`, joins` : tx``;
  const join = batched
    ? tx`, batch_id = coalesce(t.joins, n.batch_id),
        batch_role = case when t.joins is null then n.batch_role else ${BatchRole.MEMBER} end,
        batched_at = case when t.joins is null then n.batched_at else coalesce(n.batched_at, ${now}) end`
    : tx``;
  const groups = groupParts(tx, tenantId, conclusions, now);
  const fences = fencesOf(tenantId, conclusions);
  const told = (
    fences === undefined
      ? tx`select set_config('enable_nestloop', 'off', true)`
      : tx`select set_config('enable_nestloop', 'off', true), ${sharedFence(tx, fences)}`
  ).execute();
  const decided = tx<(Omit<Placed, "seq"> & MaybeWhole & { seq: number | null })[]>`
    with conclusion as (
      select * from unnest(
        ${plain(ids)}::uuid[],
        ${plain(conclusions.map((conclusion) => conclusion.status))}::smallint[],
        ${plain(conclusions.map((conclusion) => conclusion.reason))}::smallint[],
        ${instants(conclusions.map((conclusion) => conclusion.dueAt ?? null))}::timestamptz[],
        ${bytes(conclusions.map((conclusion) => conclusion.detail ?? null))}::bytea[],
        ${plain(conclusions.map((conclusion) => conclusion.version))}::xid[],
        ${plain(conclusions.map((conclusion) => conclusion.rules?.user))}::xid[],
        ${texts(conclusions.map((conclusion) => conclusion.rules?.zone))}::text[],
        ${instants(conclusions.map((conclusion) => conclusion.bookedAt ?? null))}::timestamptz[]${given}
      ) as t (id, status, reason, due_at, detail, version, rules, zone, booked_at${joins})
    ), taken as (
      select n.id, n.user_id, n.type, n.category, n.priority, n.tags, n.expires_at, n.batch_id, n.batch_role,
        c.status, c.reason, c.due_at, c.detail, c.booked_at${joins}
      from conclusion c join notifications n on n.id = c.id
      where n.tenant_id = ${tenantId} and n.id = any(${plain(sorted)}::uuid[])
        and n.id between ${sorted[0] ?? ""} and ${sorted.at(-1) ?? ""} and n.status + 0 = 1
        and (c.version is null or n.xmin = c.version)
        and (c.rules is null or c.rules = coalesce((
          select p.xmin from preferences p where p.tenant_id = ${tenantId} and p.user_id = n.user_id), '0'::xid))
        and (c.rules is null or ${conclusions[0]?.rules?.tenant ?? "0"}::xid = coalesce((
          select d.xmin from default_preferences d where d.tenant_id = ${tenantId}), '0'::xid))
        and (c.zone is null or c.zone = coalesce((
          select u.time_zone from users u where u.tenant_id = ${tenantId} and u.id = n.user_id), ''))
      order by n.id for update of n
    ), arriving as (
      select *, row_number() over (partition by user_id order by id) as place, count(*) over (partition by user_id) as many
      from taken where status = ${Status.DELIVERED}
    ), head as (
      insert into inbox_heads (tenant_id, user_id, epoch, seq, unread, total)
      select ${tenantId}, user_id, ${epoch}, count(*), count(*), count(*) from arriving group by user_id order by user_id
      on conflict (tenant_id, user_id) do update
        set seq = inbox_heads.seq + excluded.seq, unread = inbox_heads.unread + excluded.unread,
            total = inbox_heads.total + excluded.total
      returning user_id, epoch, seq, seen_seq, unread, total, archived, snoozed
    ), placed as (
      select a.id, a.user_id, h.seq - a.many + a.place as seq, a.type, a.category, a.priority, a.tags, a.expires_at,
        h.epoch, h.seq as head_seq, h.seen_seq, h.unread, h.total, h.archived, h.snoozed
      from arriving a join head h using (user_id)
    ) ${groups?.assignment ?? tx``}, entry as (
      insert into inbox (tenant_id, user_id, seq, arrived_at, notification_id, type, category, priority, tags, expires_at
        ${groups?.column ?? tx``})
      select ${tenantId}, user_id, seq, ${now}, id, type, category, priority, tags, expires_at ${groups?.column ?? tx``}
      from placed ${groups?.join ?? tx``}
    ), moved as (
      update notifications n
      set status = t.status, reason = t.reason, due_at = t.due_at, booked_at = t.booked_at,
        attempts = least(n.attempts + 1, 32767), updated_at = ${now},
        delivered_at = case when t.status = ${Status.DELIVERED} then ${now}::timestamptz end, inbox_seq = p.seq${join}
      from taken t left join placed p on p.id = t.id
      where n.tenant_id = ${tenantId} and n.id = t.id and n.id = any(${plain(sorted)}::uuid[])
        and n.id between ${sorted[0] ?? ""} and ${sorted.at(-1) ?? ""}
    ), history as (
      insert into timeline (tenant_id, notification_id, at, status, channel, reason, detail)
      select ${tenantId}, id, ${now}, status,
        case when status = ${Status.DELIVERED} then ${Channel.IN_APP} else 0 end, reason, detail from taken
    ), counted as (
      insert into counters (tenant_id, hour, type, channel, status, slot, count)
      select ${tenantId}, ${hourOf(now)}, type, case when status = ${Status.DELIVERED} then ${Channel.IN_APP} else 0 end,
        status, ${slot}, count(*)
      from taken group by type, status order by type, status
      on conflict (tenant_id, hour, type, channel, status, slot) do update set count = counters.count + excluded.count
    )
    select t.id, t.user_id as "userId", p.seq::int8::float8 as seq, p.epoch, p.head_seq::float8 as "headSeq",
      p.seen_seq::float8 as "seenSeq", p.unread, p.total, p.archived, p.snoozed, t.batch_id as "batchId",
      t.batch_role as "batchRole"
    from taken t left join placed p on p.id = t.id order by t.id`;
  const [rows] = await Promise.all([decided, told]);
  await followWholes(tx, tenantId, rows, now, slot);
  const placed = rows.filter((row): row is typeof row & Placed => row.seq !== null);
  const wholes = placed.filter(({ batchRole }) => batchRole === BatchRole.WHOLE);
  if (wholes.length > 0) {
    const ids = wholes.map(({ id }) => id);
    const summaries = await readSummaries(tx, tenantId, ids);
    for (const whole of wholes) whole.batch = summaries.get(whole.id);
  }
  return { decided: new Set(rows.map((row) => row.id)), placed };
}

/**
 * Takes the fence of all that shall wait before the commit does: for chunks that join batches, because the fence comes
 * before the locks of these.
 */
export async function takeFence(tx: Tx, tenantId: string, conclusions: readonly Conclusion[]): Promise<void> {
  const fences = fencesOf(tenantId, conclusions);
  if (fences !== undefined) await tx`select ${sharedFence(tx, fences)}`;
}

/** Locks for what shall wait, so that a change of its rules cannot miss it: see preferences/fence.ts. */
function fencesOf(tenantId: string, conclusions: readonly Conclusion[]): string[] | undefined {
  const userIds = conclusions.flatMap((conclusion) =>
    waits(conclusion) && conclusion.rules !== undefined ? [conclusion.rules.userId] : [],
  );
  return userIds.length === 0 ? undefined : fenceNames(tenantId, ["", ...userIds]);
}

/** HELD, or in a batch: not final, so a change of rules has to find it. */
function waits({ dueAt, plan }: Conclusion): boolean {
  return dueAt !== undefined || plan !== undefined;
}
