import { instants } from "#src/store/arrays.ts";
import type { Store, Tx } from "#src/store/store.ts";
import { unpruned } from "#src/store/unpruned.ts";
import { counted } from "./changes.ts";
import type { Head } from "./entry.ts";
import { headColumns } from "./queries.ts";

/** A snoozed entry that came back: its new place, and the inbox after the whole release. */
export type Returned = { tenantId: string; userId: string; notificationId: string; seq: number; head: Head };

/** An entry by its full key. */
type Key = { tenantId: string; userId: string; seq: number; arrivedAt: Date };

/**
 * Brings back up to `limit` entries whose snooze has ended, of all tenants, longest overdue first. Each is a new arrival:
 * next sequence, now, unread. Two releasers share the work: each takes notifications that the other has not locked, so an
 * entry comes back once. As many as `limit` means that there may be more at once; fewer, that the rest is in the hands of
 * somebody else or was brought back by its user meanwhile, and can wait for the next time.
 *
 * Expired entries do not come back; expireEntries removes them.
 */
export function releaseSnoozed(deps: { store: Store }, now: Date, limit: number): Promise<Returned[]> {
  return deps.store.system(async (tx) => {
    const due = await tx<Key[]>`
      select ${keyColumns(tx)}
      from inbox i join notifications n on n.tenant_id = i.tenant_id and n.id = ${unpruned(tx, tx`i.notification_id`)}
      where i.snoozed_until <= ${now} and (i.expires_at is null or i.expires_at > ${now})
      order by i.snoozed_until limit ${limit} for update of n skip locked`;
    if (due.length === 0) return [];
    const [, rows] = await Promise.all([
      lockHeads(tx, due),
      tx<(Omit<Returned, "head"> & Head & { place: number })[]>`
        with due as materialized (
          select i.*, row_number() over (partition by i.tenant_id, i.user_id order by i.snoozed_until, i.seq) as place
          from ${present(tx, due)} where i.snoozed_until <= ${now}
        ), gone as (
          delete /* locked before */ from inbox i using due d
          where i.tenant_id = d.tenant_id and i.user_id = d.user_id and i.seq = d.seq and i.arrived_at = d.arrived_at
        ), h as (
          update inbox_heads h
          set seq = h.seq + d.entries, snoozed = h.snoozed - d.entries, unread = h.unread + d.entries,
            total = h.total + d.entries
          from (select tenant_id, user_id, count(*) as entries from due group by tenant_id, user_id) d
          where h.tenant_id = d.tenant_id and h.user_id = d.user_id
          returning h.*, h.seq - d.entries as base
        ), back as (
          insert into inbox
            (tenant_id, user_id, seq, arrived_at, notification_id, type, category, priority, tags, expires_at, updated_at)
          select d.tenant_id, d.user_id, h.base + d.place, ${now}, d.notification_id, d.type, d.category, d.priority,
            d.tags, d.expires_at, d.updated_at
          from due d join h on h.tenant_id = d.tenant_id and h.user_id = d.user_id
          returning tenant_id, user_id, seq, notification_id
        ), moved as (
          update notifications n set inbox_seq = b.seq from back b
          where n.tenant_id = b.tenant_id and n.id = b.notification_id
        )
        select b.tenant_id as "tenantId", b.user_id as "userId", b.notification_id as "notificationId",
          b.seq::float8 as place, ${headColumns(tx)}
        from back b join h on h.tenant_id = b.tenant_id and h.user_id = b.user_id
        order by b.tenant_id, b.user_id, b.seq`,
    ]);
    return rows.map(({ tenantId, userId, notificationId, place: seq, ...head }) => ({
      tenantId,
      userId,
      notificationId,
      seq,
      head,
    }));
  });
}

/** How many expired entries were removed, and the inboxes as they stand after it. */
export type Swept = { removed: number; inboxes: { tenantId: string; userId: string; head: Head }[] };

/**
 * Removes up to `limit` expired entries, of all tenants, oldest first, and takes them out of their heads' counts. Until
 * then lists and replays leave them out, but they are counted. Needs a transaction of the system. Sweepers share the work
 * as releasers do.
 */
export async function expireEntries(tx: Tx, now: Date, limit: number): Promise<Swept> {
  const expired = await tx<Key[]>`
    select ${keyColumns(tx)}
    from inbox i join notifications n on n.tenant_id = i.tenant_id and n.id = ${unpruned(tx, tx`i.notification_id`)}
    where i.expires_at <= ${now}
    order by i.expires_at limit ${limit} for update of n skip locked`;
  if (expired.length === 0) return { removed: 0, inboxes: [] };
  const [, rows] = await Promise.all([
    lockHeads(tx, expired),
    tx<(Head & { tenantId: string; userId: string; removed: number })[]>`
      with gone as (
        delete /* locked before */ from inbox i using ${keys(tx, expired)}
        where i.tenant_id = k.tenant_id and i.user_id = k.user_id and i.seq = k.seq and i.arrived_at = k.arrived_at
          and i.expires_at <= ${now}
        returning i.tenant_id, i.user_id, i.notification_id, ${counted(tx, tx`i`)}
      ), h as (
        update inbox_heads h
        set unread = h.unread - d.unread, total = h.total - d.total, archived = h.archived - d.archived,
          snoozed = h.snoozed - d.snoozed
        from (
          select tenant_id, user_id, count(*) as entries, sum(unread) as unread, sum(total) as total,
            sum(archived) as archived, sum(snoozed) as snoozed
          from gone group by tenant_id, user_id
        ) d
        where h.tenant_id = d.tenant_id and h.user_id = d.user_id
        returning h.*, d.entries
      ), forgotten as (
        update notifications n set inbox_seq = null from gone g
        where n.tenant_id = g.tenant_id and n.id = g.notification_id
      )
      select h.tenant_id as "tenantId", h.user_id as "userId", h.entries::int as removed, ${headColumns(tx)} from h`,
  ]);
  return {
    removed: rows.reduce((sum, row) => sum + row.removed, 0),
    inboxes: rows.map(({ tenantId, userId, removed: _, ...head }) => ({ tenantId, userId, head })),
  };
}

/** The heads of these entries, in the order in which everybody locks heads. */
function lockHeads(tx: Tx, places: readonly Key[]) {
  // Put on the way at once: the caller sends the next statement without waiting.
  return tx`
    select count(*) from (
      select from inbox_heads h
      where (h.tenant_id, h.user_id) in (select k.tenant_id, k.user_id from ${keys(tx, places)})
      order by h.tenant_id, h.user_id for update
    ) locked`.execute();
}

function keyColumns(tx: Tx) {
  return tx`i.tenant_id as "tenantId", i.user_id as "userId", i.seq::float8 as seq, i.arrived_at as "arrivedAt"`;
}

function keys(tx: Tx, places: readonly Key[]) {
  return tx`unnest(
    ${places.map((place) => place.tenantId)}::uuid[], ${places.map((place) => place.userId)}::text[],
    ${places.map((place) => place.seq)}::bigint[], ${instants(places.map((place) => place.arrivedAt))}::timestamptz[]
  ) as k (tenant_id, user_id, seq, arrived_at)`;
}

/** The entries as they are now, as `i`; one that has moved is not among them. */
function present(tx: Tx, places: readonly Key[]) {
  return tx`${keys(tx, places)} join inbox i
    on i.tenant_id = k.tenant_id and i.user_id = k.user_id and i.seq = k.seq and i.arrived_at = k.arrived_at`;
}
