import type { PendingQuery, Row } from "postgres";
import { InboxFilter_View } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { summaryOf } from "#src/batches/queries.ts";
import { instants } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import type { Head, InboxEntryRow } from "./entry.ts";
import type { EntryFilter } from "./filter.ts";

/** A piece of a statement. */
export type Fragment = PendingQuery<Row[]>;

/** Whose inbox. */
export type Owner = { tenantId: string; userId: string };

/** Which entries of an inbox, and how many. */
export type Page = { filter: EntryFilter; beforeSeq: number | undefined; limit: number; now: Date };

/**
 * A page of an inbox, newest first: entries below `beforeSeq` that match and have not expired. Reads the page's entries
 * by the key, not the inbox; each filter is a statement of its own, so that the planner sees which index fits.
 */
export function listEntries(tx: Tx, { tenantId, userId }: Owner, page: Page): Promise<InboxEntryRow[]> {
  const { filter, beforeSeq, limit, now } = page;
  return entries(
    tx,
    tenantId,
    tx`
      select i.* from inbox i
      where i.tenant_id = ${tenantId} and i.user_id = ${userId}
        ${beforeSeq === undefined ? tx`` : tx`and i.seq < ${beforeSeq}`} ${matching(tx, filter)} ${alive(tx, now)}
      order by i.seq desc limit ${limit}`,
    tx`order by i.seq desc`,
  );
}

/** The entries of these notifications that are in the user's inbox and have not expired. */
export function entriesByNotification(
  tx: Tx,
  { tenantId, userId }: Owner,
  notificationIds: readonly string[],
  now: Date,
): Promise<InboxEntryRow[]> {
  return entries(
    tx,
    tenantId,
    tx`${located(tx, { tenantId, userId }, notificationIds)} ${alive(tx, now)}`,
    tx`order by i.seq desc`,
  );
}

/**
 * What came to each of the users after a sequence, of each at most so many and oldest first, whatever became of it since,
 * but for what was deleted or has expired.
 */
export function replay(
  tx: Tx,
  tenantId: string,
  missed: readonly { userId: string; afterSeq: number; most: number }[],
  now: Date,
): Promise<InboxEntryRow[]> {
  return entries(
    tx,
    tenantId,
    tx`
      select i.* from unnest(
        ${missed.map(({ userId }) => userId)}::text[],
        ${missed.map(({ afterSeq }) => afterSeq)}::bigint[],
        ${missed.map(({ most }) => most)}::int[]
      ) as missed (user_id, after_seq, most)
      cross join lateral (
        select * from inbox i
        where i.tenant_id = ${tenantId} and i.user_id = missed.user_id and i.seq > missed.after_seq ${alive(tx, now)}
        order by i.seq limit missed.most
      ) i`,
    tx`order by i.user_id, i.seq`,
  );
}

/**
 * Entries of many users by their sequences, in no order; those that are gone are left out. `arrivedAt`, where known, is a
 * lower bound that spares looking into the months before it.
 */
export function entriesByIds(
  tx: Tx,
  tenantId: string,
  places: readonly { userId: string; seq: number; arrivedAt?: Date }[],
): Promise<InboxEntryRow[]> {
  return entries(
    tx,
    tenantId,
    tx`
      select i.* from unnest(
        ${places.map((place) => place.userId)}::text[],
        ${places.map((place) => place.seq)}::bigint[],
        ${instants(places.map((place) => place.arrivedAt ?? LONG_AGO))}::timestamptz[]
      ) as place (user_id, seq, since)
      cross join lateral (
        select * from inbox i
        where i.tenant_id = ${tenantId} and i.user_id = place.user_id and i.seq = place.seq
          and i.arrived_at >= place.since
        limit 1
      ) i`,
    tx``,
  );
}

const LONG_AGO = new Date(0);

/** The heads of those users to whom something has arrived. Costs the same whatever the size of their inboxes. */
export async function readHeads(tx: Tx, tenantId: string, userIds: readonly string[]): Promise<Map<string, Head>> {
  const rows = await tx<(Head & { userId: string })[]>`
    select h.user_id as "userId", ${headColumns(tx)} from inbox_heads h
    where h.tenant_id = ${tenantId} and h.user_id = any(${userIds as string[]}::text[])`;
  return new Map(rows.map(({ userId, ...head }) => [userId, head]));
}

/** The columns of a Head, of the row called `h`. */
export function headColumns(tx: Tx): Fragment {
  return tx`h.epoch, h.seq::float8 as seq, h.trimmed_seq::float8 as "trimmedSeq", h.seen_seq::float8 as "seenSeq",
    h.unread, h.total, h.archived, h.snoozed`;
}

/** Conditions on an inbox row. */
export function matching(tx: Tx, filter: EntryFilter, row: Fragment = tx`i`): Fragment {
  return tx`${inView(tx, filter.view, row)} ${filter.unreadOnly ? tx`and ${row}.read_at is null` : tx``}
    ${filter.types.length === 0 ? tx`` : tx`and ${row}.type = any(${filter.types as string[]}::text[])`}
    ${filter.categories.length === 0 ? tx`` : tx`and ${row}.category = any(${filter.categories as string[]}::text[])`}
    ${filter.tag === undefined ? tx`` : tx`and ${filter.tag} = any(${row}.tags)`}
    ${filter.from === undefined ? tx`` : tx`and ${row}.arrived_at >= ${filter.from}`}
    ${filter.before === undefined ? tx`` : tx`and ${row}.arrived_at < ${filter.before}`}
    ${filter.group === undefined ? tx`` : tx`and ${row}.group_seq = ${filter.group}`}`;
}

function inView(tx: Tx, view: InboxFilter_View, row: Fragment): Fragment {
  switch (view) {
    case InboxFilter_View.ARCHIVED:
      return tx`and ${row}.archived_at is not null`;
    case InboxFilter_View.SNOOZED:
      return tx`and ${row}.snoozed_until is not null`;
    case InboxFilter_View.ALL:
      return tx``;
    default:
      return tx`and ${row}.archived_at is null and ${row}.snoozed_until is null`;
  }
}

/**
 * The user's entries of these notifications, as `i`. An entry arrives when its notification is delivered or, after a
 * snooze, later, so the delivery spares looking into the months before it. Lateral, because the planner would otherwise
 * read a whole inbox that it takes for small.
 */
export function located(tx: Tx, { tenantId, userId }: Owner, notificationIds: readonly string[]): Fragment {
  return tx`
    select i.* from notifications n
    cross join lateral (
      select * from inbox i
      where i.tenant_id = ${tenantId} and i.user_id = ${userId} and i.seq = n.inbox_seq
        and i.arrived_at >= n.delivered_at
      limit 1
    ) i
    where n.tenant_id = ${tenantId} ${oneOf(tx, notificationIds)} and n.user_id = ${userId} and n.inbox_seq is not null`;
}

/** Conditions on the notification called `n`. */
export function oneOf(tx: Tx, notificationIds: readonly string[]): Fragment {
  const { ids, first, last } = idRange(notificationIds);
  return tx`and n.id = any(${ids}::uuid[]) and n.id between ${first}::uuid and ${last}::uuid`;
}

/** The ids with their bounds, by which the planner leaves out the months that hold none of them. */
export function idRange(notificationIds: readonly string[]) {
  const ids = notificationIds.map((id) => id.toLowerCase()).sort();
  return { ids, first: ids[0] ?? null, last: ids.at(-1) ?? null };
}

export function alive(tx: Tx, now: Date, row: Fragment = tx`i`): Fragment {
  return tx`and (${row}.expires_at is null or ${row}.expires_at > ${now})`;
}

/** Puts what is to be shown beside the chosen inbox rows, in the same round trip. */
export function entries(tx: Tx, tenantId: string, chosen: Fragment, order: Fragment): Promise<InboxEntryRow[]> {
  return tx<InboxEntryRow[]>`
    select i.user_id as "userId", i.notification_id as "notificationId", i.seq::float8 as seq, i.type, i.category,
      i.priority, i.tags, n.sender_id as "senderId", i.arrived_at as "arrivedAt", i.read_at as "readAt",
      i.archived_at as "archivedAt", i.snoozed_until as "snoozedUntil", i.expires_at as "expiresAt",
      i.updated_at as "updatedAt",
      i.seq <= h.seen_seq as seen, n.confirmation_required as "confirmationRequired", n.confirmed_at as "confirmedAt",
      coalesce(n.content, f.content) as content, ${summaryOf(tx, tenantId)} as batch
    from (${chosen}) i
    join inbox_heads h on h.tenant_id = ${tenantId} and h.user_id = i.user_id
    left join notifications n on n.tenant_id = ${tenantId} and n.id = i.notification_id
    left join fanouts f on f.tenant_id = ${tenantId} and f.id = n.fanout_id and n.content is null
    ${order}`;
}
