import type { Tx } from "#src/store/store.ts";
import type { InboxEntryRow } from "./entry.ts";
import { alive, entries, type Fragment, matching, type Owner, type Page } from "./queries.ts";

/** An entry that stands for the entries of its group that match, itself among them. */
export type GroupRow = {
  key: string | null;
  size: number;
  unread: number;
  senders: string[];
  senderCount: number;
  firstSeq: number;
};

export type GroupedEntryRow = InboxEntryRow & { group: GroupRow | null };

/**
 * A page of an inbox with one entry for each group: the newest that matches. Which one that is follows from the entries as
 * they are, so nothing has to be kept when they are read, archived, deleted or expire. Reads the groups on the page
 * through their index; they have at most 50 entries, which came within a day.
 */
export async function listGrouped(tx: Tx, owner: Owner, page: Page): Promise<GroupedEntryRow[]> {
  const { tenantId, userId } = owner;
  const { filter, beforeSeq, limit, now } = page;
  const rows = await entries(
    tx,
    tenantId,
    tx`
      select i.* from inbox i
      where i.tenant_id = ${tenantId} and i.user_id = ${userId}
        ${beforeSeq === undefined ? tx`` : tx`and i.seq < ${beforeSeq}`} ${matching(tx, filter)} ${alive(tx, now)}
        and (i.group_seq is null or not exists (select from inbox j where ${beside(tx, owner, page)} and j.seq > i.seq))
      order by i.seq desc limit ${limit}`,
    tx`order by i.seq desc`,
  );
  if (rows.length === 0) return [];
  const times = rows.map(({ arrivedAt }) => arrivedAt.getTime());
  const groups = await tx<(GroupRow & { seq: number })[]>`
    select i.seq::float8 as seq, g.* from inbox i
    cross join lateral (
      select (array_agg(n.group_key order by j.seq desc))[1] as key, count(*)::int as size,
        count(*) filter (where j.read_at is null)::int as unread, i.group_seq::float8 as "firstSeq",
        count(distinct n.sender_id)::int as "senderCount",
        array_agg(n.sender_id order by j.seq desc) filter (where n.sender_id is not null) as senders
      from inbox j left join notifications n on n.tenant_id = ${tenantId} and n.id = j.notification_id
      where ${beside(tx, owner, page)}
    ) g
    where i.tenant_id = ${tenantId} and i.user_id = ${userId} and i.seq = any(${rows.map(({ seq }) => seq)}::bigint[])
      and i.arrived_at between ${new Date(Math.min(...times))} and ${new Date(Math.max(...times))}
      and i.group_seq is not null`;
  const bySeq = new Map(groups.map(({ seq, ...group }) => [seq, group]));
  return rows.map((row) => {
    const group = bySeq.get(row.seq);
    if (group === undefined) return { ...row, group: null };
    return { ...row, group: { ...group, senders: [...new Set(group.senders ?? [])].slice(0, LAST_SENDERS) } };
  });
}

const LAST_SENDERS = 3;

/** The entries `j` of the group of `i` that match; the times spare looking into other months. */
function beside(tx: Tx, { tenantId, userId }: Owner, { filter, now }: Page): Fragment {
  const j = tx`j`;
  return tx`j.tenant_id = ${tenantId} and j.user_id = ${userId} and j.group_seq = i.group_seq
    and j.arrived_at between i.arrived_at - interval '2 days' and i.arrived_at + interval '2 days'
    ${matching(tx, filter, j)} ${alive(tx, now, j)}`;
}
