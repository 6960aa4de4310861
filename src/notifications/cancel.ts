import type { PendingQuery, Row } from "postgres";
import { type Channel, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { hourOf } from "#src/analytics/hour.ts";
import { followWholes, type MaybeWhole } from "#src/batches/follow.ts";
import { BatchRole } from "#src/batches/role.ts";
import { endLost } from "#src/escalation/settle.ts";
import { type Stop, stopOutside } from "#src/escalation/stop.ts";
import { plain } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import { conditions, EVERYTHING, type Filter, open } from "./queries.ts";

/** Whoever cancels. */
export type By = { actor: string; now: Date; slot: number };

/** One of which something was stopped, and what it has become: CANCELLED, or what it was if something of it has come. */
export type Cancelled = {
  id: string;
  userId: string;
  status: Status;
  reason: Reason;
  /** The outside channels that it goes to no more. */
  channels: readonly Channel[];
  /** Those that are being given it. */
  pending: readonly Channel[];
  escalated: boolean;
  /** Why it was stopped. */
  why: Reason;
};

const REACHED = [Status.PROCESSING, Status.DELIVERED, Status.READ];

/**
 * Cancels those of the ids that still wait, and stops what outside channels have not got of the others. Answers those of
 * which something was stopped, in the order of their ids. Locks them in one go, in that order, as everything does that locks
 * several; but for members of closed batches, whose fate is that of the batch's notification. With a filter those alone
 * that match it once they are locked.
 */
export async function cancelByIds(
  tx: Tx,
  tenantId: string,
  ids: readonly string[],
  by: By,
  filter = EVERYTHING,
): Promise<Cancelled[]> {
  if (ids.length === 0) return [];
  await tx`
    select count(*) from (
      select from notifications where tenant_id = ${tenantId} and id = any(${plain(ids)}::uuid[])
        and batch_role is distinct from ${BatchRole.MERGED} order by id for update) locked`;
  const these = tx`n.tenant_id = ${tenantId} and n.id = any(${plain(ids)}::uuid[]) ${conditions(tx, filter)}`;
  const which = tx`select n.id from notifications n where ${these}`;
  const ended = await cancelOpen(tx, tenantId, which, by);
  const reached = await tx<Reached[]>`
    select id, user_id as "userId", status, reason from notifications n
    where ${these} and n.status + 0 = any(${plain(REACHED)}::int[]) and batch_role is distinct from ${BatchRole.MERGED}`;
  if (reached.length === 0) return ended;
  return [...ended, ...(await stopReached(tx, tenantId, reached, { ...by, reason: Reason.CANCELLED }))];
}

/** Cancels up to `limit` notifications that match and are still to be decided. */
export async function cancelByFilter(
  tx: Tx,
  tenantId: string,
  filter: Filter,
  limit: number,
  by: By,
): Promise<Cancelled[]> {
  const which = tx`select n.id from notifications n where n.tenant_id = ${tenantId} ${conditions(tx, filter)}
    and ${open(tx)} order by n.id limit ${limit} for update`;
  return cancelOpen(tx, tenantId, which, by);
}

async function cancelOpen(
  tx: Tx,
  tenantId: string,
  which: PendingQuery<Row[]>,
  { actor, now, slot }: By,
): Promise<Cancelled[]> {
  const ended = await tx<({ userId: string } & MaybeWhole)[]>`
    with which as (${which}), ended as (
      update notifications n
      set status = ${Status.CANCELLED}, reason = ${Reason.CANCELLED}, due_at = null,
        updated_at = greatest(n.updated_at, ${now})
      where n.tenant_id = ${tenantId} and n.id = any(array(select id from which)) and ${open(tx)}
      returning n.id, n.user_id, n.type, n.updated_at, n.batch_id, n.batch_role
    ), history as (
      insert into timeline (tenant_id, notification_id, at, status, channel, reason, actor)
      select ${tenantId}, id, updated_at, ${Status.CANCELLED}, 0, ${Reason.CANCELLED}, ${actor} from ended
    ), counted as (
      insert into counters (tenant_id, hour, type, channel, status, slot, count)
      select ${tenantId}, ${hourOf(now)}, type, 0, ${Status.CANCELLED}, ${slot}, count(*) from ended group by type order by type
      on conflict (tenant_id, hour, type, channel, status, slot) do update set count = counters.count + excluded.count
    )
    select id, user_id as "userId", batch_id as "batchId", batch_role as "batchRole" from ended`;
  await followWholes(tx, tenantId, ended, now, slot);
  return ended.map(({ id, userId }) => ({ id, userId, ...CANCELLED }));
}

const CANCELLED = {
  status: Status.CANCELLED,
  reason: Reason.CANCELLED,
  channels: [],
  pending: [],
  escalated: false,
  why: Reason.CANCELLED,
} as const;

/** One that is decided. */
export type Reached = { id: string; userId: string; status: Status; reason: Reason };

/** Of notifications that are decided and locked. What has come stays; of what has not nothing more goes out. */
export async function stopReached(
  tx: Tx,
  tenantId: string,
  reached: readonly Reached[],
  { actor, reason, now, slot }: Stop & { now: Date; slot: number },
): Promise<Cancelled[]> {
  const ids = reached.map(({ id }) => id);
  const stopped = new Map(
    (await stopOutside(tx, tenantId, ids, { actor, reason, now })).map((each) => [each.id, each]),
  );
  const cancelled = new Map(ids.map((id) => [id, { actor, reason }]));
  const lost = new Map((await endLost(tx, tenantId, ids, { now, slot, cancelled })).map((each) => [each.id, each]));
  const kept = [...stopped.keys()].filter((id) => !lost.has(id));
  await tellKept(tx, tenantId, kept, { actor, reason, now });
  return reached.flatMap((each) => {
    const { channels, pending, escalated } = stopped.get(each.id) ?? CANCELLED;
    if (!stopped.has(each.id) && !lost.has(each.id)) return [];
    return [{ ...each, ...lost.get(each.id), channels, pending, escalated, why: reason }];
  });
}

/** Of what goes on, as it has come or is being handed over, that it was stopped for the rest. */
async function tellKept(
  tx: Tx,
  tenantId: string,
  ids: readonly string[],
  { actor, reason, now }: Stop & { now: Date },
): Promise<void> {
  if (ids.length === 0) return;
  await tx`
    insert into timeline (tenant_id, notification_id, at, status, channel, reason, actor)
    select ${tenantId}, id, ${now}, 0, 0, ${reason}, ${actor} from unnest(${plain(ids)}::uuid[]) as t (id)`;
}

/**
 * What was stopped of a notification that had been decided, by whoever cancelled it, whenever that was. `byRequest`: somebody
 * has. `pending`: the channels that have it in hand.
 */
export async function readStopped(
  tx: Tx,
  tenantId: string,
  id: string,
): Promise<{ byRequest: boolean; channels: Channel[]; pending: Channel[] }> {
  // That nobody knows what came of an attempt has an actor only where a cancelling made it final.
  const rows = await tx<{ channel: Channel; pending: boolean }[]>`
    select distinct channel, false as pending from timeline
    where tenant_id = ${tenantId} and notification_id = ${id} and actor is not null
      and reason in (${Reason.CANCELLED}, ${Reason.OUTCOME_UNKNOWN})
    union all
    select distinct channel, true from hand_overs
    where tenant_id = ${tenantId} and notification_id = ${id} and cancelled_by is not null
    order by channel`;
  const outside = (those: boolean) =>
    rows.flatMap(({ channel, pending }) => (pending === those && channel !== 0 ? [channel] : []));
  return { byRequest: rows.length > 0, channels: outside(false), pending: outside(true) };
}
