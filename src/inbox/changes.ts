import { Channel, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { followWholes, type MaybeWhole } from "#src/batches/follow.ts";
import { BatchRole } from "#src/batches/role.ts";
import { ChainState } from "#src/escalation/state.ts";
import { instants } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import type { Head } from "./entry.ts";
import { type Fragment, headColumns, idRange, located, type Owner, oneOf } from "./queries.ts";

// An entry is in one of three places, and read or unread in each:
//
//            archive                    snooze
//   archived ◀────── in the inbox ──────────────▶ snoozed
//      │  ──────────▶  (unread,  ◀── unsnooze ───    │ ▲
//      │  unarchive     total)   ◀── release ────    │ │
//      └───────────────────────── snooze ────────────┼─┘
//      ◀───────────────────────── archive ───────────┘
//
// Locks are taken in one order everywhere, here and where entries arrive: open batches by user and key, then
// notifications by id, then heads by user, then
// entries (only under their head's lock, so they need no order), then counters. So nothing here can deadlock, and the
// statement after the head's lock, which sees what was committed before it, sees the entries as they stay.

export type Change =
  | { kind: "read"; actor: string; counterSlot: number }
  | { kind: "unread" }
  | { kind: "archive" }
  | { kind: "unarchive" }
  | { kind: "snooze"; until: Date }
  | { kind: "unsnooze" }
  | { kind: "delete" };

/** Where an entry was found. If a snooze has moved it meanwhile it is not found there, and left alone. */
export type Place = { notificationId: string; seq: number; arrivedAt: Date };

/** Which entries: those of these notifications wherever they are, or those at these places. */
export type Which = { notificationIds: readonly string[] } | { places: readonly Place[] };

export type Changed = {
  /** Notifications whose entries changed. */
  notificationIds: string[];
  /** Of them, those that went from DELIVERED to READ. */
  becameRead: string[];
  /** How many escalations that ended. */
  answered: number;
  /** The inbox after it; undefined for a user to whom nothing has arrived. */
  head: Head | undefined;
};

/**
 * Changes entries and what follows from it: the head's counts by what really changed, and with `read` the notification's
 * status, escalation, history and counters. Entries that are already as wanted, of other users or unknown are passed over. One
 * round trip: the statements are sent together.
 */
export async function changeEntries(tx: Tx, owner: Owner, which: Which, change: Change, now: Date): Promise<Changed> {
  const ids = "places" in which ? which.places.map((place) => place.notificationId) : which.notificationIds;
  // Each is put on the way here, in this order: a statement otherwise waits to be awaited.
  const [, [before], [after]] = await Promise.all([
    lockNotifications(tx, owner, ids, change),
    tx<Head[]>`
      select ${headColumns(tx)} from inbox_heads h
      where h.tenant_id = ${owner.tenantId} and h.user_id = ${owner.userId} for update`.execute(),
    tx<(Head & Told)[]>`
      with target as materialized (
        ${"places" in which ? placed(tx, owner, which.places) : located(tx, owner, ids)} ${qualifies(tx, change)}
      ), changed as (
        ${change.kind === "delete" ? removal(tx, owner) : update(tx, owner, assignment(tx, change, now))}
      ), head as (
        update inbox_heads h
        set unread = h.unread + d.unread, total = h.total + d.total, archived = h.archived + d.archived,
          snoozed = h.snoozed + d.snoozed
        from (
          select count(*) filter (where sign = 1) as entries, sum(sign * unread) as unread, sum(sign * total) as total,
            sum(sign * archived) as archived, sum(sign * snoozed) as snoozed
          from (
            select 1 as sign, unread, total, archived, snoozed from changed
            union all select -1, ${counted(tx, tx`t`)} from target t
          ) both_ways
        ) d
        where h.tenant_id = ${owner.tenantId} and h.user_id = ${owner.userId} and d.entries > 0
        returning h.*
      ) ${consequences(tx, owner, ids, change, now)}
      select (select coalesce(array_agg(notification_id), '{}') from changed) as ids,
        ${change.kind === "read" ? tx`(select array_agg(id) from became)` : tx`null::uuid[]`} as "becameRead",
        ${change.kind === "read" ? tx`(select count(*)::int from answered)` : tx`0`} as answered,
        ${change.kind === "read" ? wholesOf(tx) : tx`null::json`} as wholes,
        h.seq is not null as moved, ${headColumns(tx)}
      from (select) one left join head h on true`.execute(),
  ]);
  if (after === undefined) return { notificationIds: [], becameRead: [], answered: 0, head: before };
  const { ids: notificationIds, becameRead, answered, wholes, moved, ...head } = after;
  if (change.kind === "read" && wholes !== null)
    await followWholes(tx, owner.tenantId, wholes, now, change.counterSlot);
  return { notificationIds, becameRead: becameRead ?? [], answered, head: moved ? head : before };
}

/** What the statement says beside the head. */
type Told = {
  ids: string[];
  becameRead: string[] | null;
  answered: number;
  wholes: MaybeWhole[] | null;
  moved: boolean;
};

/** READ and deletion write to notifications as well; what is READ already will not change again by being read. */
function lockNotifications(tx: Tx, { tenantId, userId }: Owner, ids: readonly string[], change: Change) {
  if (change.kind !== "read" && change.kind !== "delete") return undefined;
  return tx`
    select count(*) from (
      select from notifications n
      where n.tenant_id = ${tenantId} ${oneOf(tx, ids)} and n.user_id = ${userId}
        ${change.kind === "read" ? tx`and n.status < ${Status.READ}` : tx``}
      order by n.id for update
    ) locked`.execute();
}

function placed(tx: Tx, { tenantId, userId }: Owner, places: readonly Place[]): Fragment {
  return tx`
    select i.* from unnest(
      ${places.map((place) => place.seq)}::bigint[], ${instants(places.map((place) => place.arrivedAt))}::timestamptz[]
    ) as place (seq, arrived_at)
    cross join lateral (
      select * from inbox i
      where i.tenant_id = ${tenantId} and i.user_id = ${userId} and i.seq = place.seq
        and i.arrived_at = place.arrived_at
      limit 1
    ) i
    where true`;
}

function qualifies(tx: Tx, change: Change): Fragment {
  switch (change.kind) {
    case "read":
      return tx`and i.read_at is null`;
    case "unread":
      return tx`and i.read_at is not null`;
    case "archive":
      return tx`and i.archived_at is null`;
    case "unarchive":
      return tx`and i.archived_at is not null`;
    case "snooze":
      return tx`and i.snoozed_until is distinct from ${change.until}`;
    case "unsnooze":
      return tx`and i.snoozed_until is not null`;
    case "delete":
      return tx``;
  }
}

function assignment(tx: Tx, change: Exclude<Change, { kind: "delete" }>, now: Date): Fragment {
  switch (change.kind) {
    case "read":
      return tx`read_at = ${now}`;
    case "unread":
      return tx`read_at = null`;
    case "archive":
      return tx`archived_at = ${now}, snoozed_until = null`;
    case "unarchive":
      return tx`archived_at = null`;
    case "snooze":
      return tx`snoozed_until = ${change.until}, archived_at = null`;
    case "unsnooze":
      return tx`snoozed_until = null`;
  }
}

/**
 * Applies an assignment to the targets and tells what they add to each count after it. Entries change under the lock of
 * their head; the escalations that a read ends may change meanwhile, but by then this has looked into all its partitions.
 */
function update(tx: Tx, owner: Owner, assignment: Fragment): Fragment {
  return tx`
    update /* locked before */ inbox i set ${assignment} where ${targeted(tx, owner)}
    returning i.notification_id, ${counted(tx, tx`i`)}`;
}

function removal(tx: Tx, owner: Owner): Fragment {
  return tx`
    delete /* locked before */ from inbox i where ${targeted(tx, owner)}
    returning i.notification_id, 0 as unread, 0 as total, 0 as archived, 0 as snoozed`;
}

/**
 * The targets once more, for writing: a user has a sequence once. No join, because the planner would read a whole inbox
 * that it takes for small; the times keep it from opening months that hold no target.
 */
function targeted(tx: Tx, { tenantId, userId }: Owner): Fragment {
  return tx`i.tenant_id = ${tenantId} and i.user_id = ${userId} and i.seq = any(array(select seq from target))
    and i.arrived_at >= (select min(arrived_at) from target) and i.arrived_at <= (select max(arrived_at) from target)`;
}

/** What an entry adds to each of its head's counts, 0 or 1, as columns. This is what the counts mean. */
export function counted(tx: Tx, row: Fragment): Fragment {
  return tx`
    (${row}.read_at is null and ${row}.archived_at is null and ${row}.snoozed_until is null)::int as unread,
    (${row}.archived_at is null and ${row}.snoozed_until is null)::int as total,
    (${row}.archived_at is not null)::int as archived, (${row}.snoozed_until is not null)::int as snoozed`;
}

function consequences(tx: Tx, { tenantId }: Owner, ids: readonly string[], change: Change, now: Date): Fragment {
  switch (change.kind) {
    case "read":
      return tx`, became as (
        update notifications n set status = ${Status.READ}, updated_at = ${now}
        where n.tenant_id = ${tenantId} and n.status = ${Status.DELIVERED} ${among(tx, ids)}
        returning n.id, n.type, n.batch_id, n.batch_role
      ), answered as (
        update escalations e set state = ${ChainState.READ}, due_at = null, turn_at = null, ended_at = ${now}
        where e.tenant_id = ${tenantId} and e.notification_id = any(array(select id from became))
          and e.state = ${ChainState.WAITING} and not e.confirmation_required
        returning 1
      ), history as (
        insert into timeline (tenant_id, notification_id, at, status, channel, reason, actor)
        select ${tenantId}::uuid, id, ${now}::timestamptz, ${Status.READ}, ${Channel.IN_APP}, 0, ${change.actor}::text
        from became
      ), tallied as (
        insert into counters (tenant_id, hour, type, channel, status, slot, count)
        select ${tenantId}::uuid, date_trunc('hour', ${now}::timestamptz, 'UTC'), type, ${Channel.IN_APP},
          ${Status.READ}, ${change.counterSlot}::smallint, count(*)
        from became group by type order by type
        on conflict (tenant_id, hour, type, channel, status, slot)
          do update set count = counters.count + excluded.count
      )`;
    case "delete":
      return tx`, forgotten as (
        update notifications n set inbox_seq = null where n.tenant_id = ${tenantId} ${among(tx, ids)}
      )`;
    default:
      return tx``;
  }
}

/** The batches' notifications among those that became READ: their members become so with them. */
function wholesOf(tx: Tx): Fragment {
  return tx`(select json_agg(json_build_object('id', id, 'batchId', batch_id, 'batchRole', batch_role))
    from became where batch_role = ${BatchRole.WHOLE})`;
}

/** The notifications whose entries changed, of the ids asked for: without a join, as for the entries. */
function among(tx: Tx, ids: readonly string[]): Fragment {
  const { first, last } = idRange(ids);
  return tx`and n.id = any(array(select notification_id from changed)) and n.id between ${first}::uuid and ${last}::uuid`;
}

/** The next entries, newest first, that match a piece of `where`: expired ones too, because they are counted. */
export function findPlaces(
  tx: Tx,
  { tenantId, userId }: Owner,
  conditions: Fragment,
  beforeSeq: number | undefined,
  limit: number,
): Promise<Place[]> {
  return tx<Place[]>`
    select i.notification_id as "notificationId", i.seq::float8 as seq, i.arrived_at as "arrivedAt" from inbox i
    where i.tenant_id = ${tenantId} and i.user_id = ${userId}
      ${beforeSeq === undefined ? tx`` : tx`and i.seq < ${beforeSeq}`} ${conditions}
    order by i.seq desc limit ${limit}`;
}

/**
 * Moves the mark of what was seen up to a sequence, or to the newest entry when that is undefined or beyond. Never back.
 * `moved` says whether it did.
 */
export async function moveSeen(
  tx: Tx,
  { tenantId, userId }: Owner,
  through: bigint | undefined,
): Promise<{ moved: boolean; head: Head | undefined }> {
  const wanted = through === undefined ? tx`h.seq` : tx`least(h.seq, ${through.toString()}::bigint)`;
  const [updated, [head]] = await Promise.all([
    tx`
      update inbox_heads h set seen_seq = ${wanted}
      where h.tenant_id = ${tenantId} and h.user_id = ${userId} and h.seen_seq < ${wanted}`.execute(),
    tx<Head[]>`
      select ${headColumns(tx)} from inbox_heads h where h.tenant_id = ${tenantId} and h.user_id = ${userId}`,
  ]);
  return { moved: updated.count > 0, head };
}
