import type { Tx } from "#src/store/store.ts";
import type { Head, InboxEntryRow } from "./entry.ts";
import { alive, entriesByIds, headColumns, located, type Owner } from "./queries.ts";

/** An entry that has changed, and its inbox after it. */
export type ShownAnew = { row: InboxEntryRow; head: Head };

/** As long as an entry stays with its group: those of one come within a day, and are looked for two days around. */
const IN_GROUP_MS = 24 * 3_600_000;

/**
 * Shows what the sender has changed of a notification, which the transaction has locked, in the entry that the user has of
 * it. The entry takes the next sequence, at the top, so that streams and whoever resumes are told in order and without a
 * gap; whether it is read, archived or snoozed stays, and so do the counts. Undefined where there is no entry any more.
 */
export async function showAnew(
  tx: Tx,
  owner: Owner,
  { id, deliveredAt }: { id: string; deliveredAt: Date | null },
  now: Date,
): Promise<ShownAnew | undefined> {
  const { tenantId, userId } = owner;
  const inGroup = deliveredAt !== null && now.getTime() - deliveredAt.getTime() <= IN_GROUP_MS;
  const [, [moved]] = await Promise.all([
    tx`select from inbox_heads where tenant_id = ${tenantId} and user_id = ${userId} for update`.execute(),
    tx<(Head & { place: number; arrivedAt: Date })[]>`
      with old as materialized (
        ${located(tx, owner, [id])} ${alive(tx, now)}
      ), gone as (
        delete /* locked before */ from inbox i
        where i.tenant_id = ${tenantId} and i.user_id = ${userId} and i.seq = any(array(select seq from old))
          and i.arrived_at >= (select min(arrived_at) from old) and i.arrived_at <= (select max(arrived_at) from old)
      ), h as (
        update inbox_heads h set seq = h.seq + 1,
          seen_seq = case when h.seen_seq >= h.seq or o.seq = h.seen_seq + 1 then h.seen_seq + 1 else h.seen_seq end
        from old o where h.tenant_id = ${tenantId} and h.user_id = ${userId} returning h.*
      ), back as (
        insert into inbox (tenant_id, user_id, seq, arrived_at, notification_id, type, category, priority, tags,
          read_at, archived_at, snoozed_until, expires_at, group_seq, updated_at)
        select o.tenant_id, o.user_id, h.seq, greatest(o.arrived_at, ${now}), o.notification_id, o.type, o.category,
          o.priority, n.tags, o.read_at, o.archived_at, o.snoozed_until, n.expires_at,
          ${inGroup ? tx`o.group_seq` : tx`null::bigint`}, ${now}
        from old o cross join h join notifications n on n.tenant_id = ${tenantId} and n.id = ${id}
        returning seq, arrived_at
      ), pointed as (
        update /* locked before */ notifications n set inbox_seq = b.seq from back b
        where n.tenant_id = ${tenantId} and n.id = ${id}
      )
      select b.seq::float8 as place, b.arrived_at as "arrivedAt", ${headColumns(tx)} from back b cross join h`.execute(),
  ]);
  if (moved === undefined) return undefined;
  const { place: seq, arrivedAt, ...head } = moved;
  const [row] = await entriesByIds(tx, tenantId, [{ userId, seq, arrivedAt }]);
  return row && { row, head };
}
