import type { PendingQuery, Row } from "postgres";
import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { hourOf } from "#src/analytics/hour.ts";
import { BatchRole } from "#src/batches/role.ts";
import { type Cancelled, type Reached, stopReached } from "#src/notifications/cancel.ts";
import { plain, texts } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import { unpruned } from "#src/store/unpruned.ts";

/** One that takes the place of the same user's earlier ones with the key. */
export type Collapsing = { id: string; userId: string; key: string };

/**
 * Ends what the rows, which are stored already, take the place of. Of rows given together the one with the greatest id
 * stays; of rows that were stored by others it does not matter whose clock was ahead, and their history keeps its order.
 * Of those that are decided what has come stays, and what has not goes to outside channels no more. Answers those of
 * which something was stopped. Call `lockCollapseKeys` first.
 *
 * All are locked at once, in the order of their ids. What waits outside is looked for once they are: what was still to be
 * decided may have been, meanwhile.
 */
export async function supersedeRows(
  tx: Tx,
  tenantId: string,
  rows: readonly Collapsing[],
  now: Date,
  slot: number,
): Promise<Cancelled[]> {
  if (rows.length === 0) return [];
  const ids = plain(rows.map((row) => row.id));
  const users = texts(rows.map((row) => row.userId));
  const keys = texts(rows.map((row) => row.key));
  const newer = tx`unnest(${ids}::uuid[], ${users}::text[], ${keys}::text[]) as newer (id, user_id, key)`;
  const waiting = waitingOutside(tx, tenantId, newer);
  const lock = tx`
    select count(*) from (
      select from notifications where tenant_id = ${tenantId} and id = any(array(
        select n.id from ${newer}
        join notifications n on n.tenant_id = ${tenantId} and n.user_id = newer.user_id and n.collapse_key = newer.key
        where n.status in (1, 2, 3, 4) and n.id <> all(${ids}::uuid[])
        union ${waiting}
      )) order by id for update) locked`;
  const supersede = tx<{ id: string; userId: string }[]>`
    with superseded as (
      select n.id from ${newer}
      join notifications n on n.tenant_id = ${tenantId} and n.user_id = newer.user_id and n.collapse_key = newer.key
      where n.status in (1, 2, 3, 4) and n.batch_role is distinct from ${BatchRole.MERGED} and (n.id < newer.id or n.id <> all(${ids}::uuid[]))
      order by n.id for update of n
    ), ended as (
      update notifications n
      set status = ${Status.CANCELLED}, reason = ${Reason.SUPERSEDED}, due_at = null,
        updated_at = greatest(n.updated_at, ${now})
      where n.tenant_id = ${tenantId} and n.id = any(array(select id from superseded)) and n.status in (1, 2, 3, 4)
        and n.batch_role is distinct from ${BatchRole.MERGED}
      returning n.id, n.user_id, n.type, n.updated_at
    ), history as (
      insert into timeline (tenant_id, notification_id, at, status, channel, reason)
      select ${tenantId}, id, updated_at, ${Status.CANCELLED}, 0, ${Reason.SUPERSEDED} from ended
    ), counted as (
      insert into counters (tenant_id, hour, type, channel, status, slot, count)
      select ${tenantId}, ${hourOf(now)}, type, 0, ${Status.CANCELLED}, ${slot}, count(*) from ended group by type order by type
      on conflict (tenant_id, hour, type, channel, status, slot) do update set count = counters.count + excluded.count
    )
    select id, user_id as "userId" from ended order by id`;
  const decided = tx<Reached[]>`
    select id, user_id as "userId", status, reason from notifications
    where tenant_id = ${tenantId} and id = any(array(${waiting})) and id <> all(${ids}::uuid[])
      and status + 0 in (${Status.PROCESSING}, ${Status.DELIVERED}, ${Status.READ})
      and batch_role is distinct from ${BatchRole.MERGED}`;
  // Sent together: one round trip.
  const [, ended, reached] = await Promise.all([lock, supersede, decided]);
  const superseded = ended.map((each) => ({ ...each, ...SUPERSEDED }));
  if (reached.length === 0) return superseded;
  const stop = { actor: null, reason: Reason.SUPERSEDED, now, slot: STOPS };
  return [...superseded, ...(await stopReached(tx, tenantId, reached, stop))];
}

/** Of one that was still to be decided. */
const SUPERSEDED = {
  ...{ status: Status.CANCELLED, reason: Reason.SUPERSEDED, why: Reason.SUPERSEDED },
  ...{ channels: [], pending: [], escalated: false },
} as const;

/** Their ids: of those users', with those keys, of which outside channels have not got all, or an escalation goes on. */
function waitingOutside(tx: Tx, tenantId: string, newer: PendingQuery<Row[]>) {
  // From what waits for the user, which is little: what they have had with the key may be much.
  const of = (waiting: PendingQuery<Row[]>) => tx`
    select n.id from ${newer} join ${waiting} o on o.tenant_id = ${tenantId} and o.user_id = newer.user_id
    join notifications n on n.tenant_id = ${tenantId} and n.id = ${unpruned(tx, tx`o.notification_id`)}
      and n.collapse_key = newer.key`;
  return tx`${of(tx`hand_overs`)} and o.cancelled_by is null union ${of(tx`escalations`)} and o.due_at is not null`;
}

/**
 * The slot of what ends thereby: one that whoever stores Sends counts nothing else in, because by then the counters of what
 * was superseded before it was decided are locked, of whatever types.
 */
const STOPS = 0;

/**
 * Lets Sends with the same user and collapse key store one after the other: of two at once, neither would see the other,
 * and both would be delivered.
 */
export async function lockCollapseKeys(
  tx: Tx,
  tenantId: string,
  rows: readonly Omit<Collapsing, "id">[],
): Promise<void> {
  if (rows.length === 0) return;
  const names = texts(rows.map((row) => `${tenantId} ${row.userId} ${row.key}`));
  await tx`
    select pg_advisory_xact_lock(lock) from (
      select distinct hashtextextended(name, 0) as lock from unnest(${names}::text[]) as t (name) order by lock) as locks`;
}
