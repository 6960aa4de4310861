import type { Sql } from "postgres";

/**
 * Inboxes whose head does not say what a recount of their entries says, or whose sequences repeat or pass the head; and
 * entries whose notification points elsewhere. Empty when all is well. Takes a connection that sees all tenants.
 */
export async function wrongInboxes(sql: Sql): Promise<unknown[]> {
  const heads = await sql`
    select * from (
      select tenant_id, user_id, h.unread, h.total, h.archived, h.snoozed, h.seq::int,
        count(i.seq) filter (where i.read_at is null and i.archived_at is null and i.snoozed_until is null)::int
          as unread_entries,
        count(i.seq) filter (where i.archived_at is null and i.snoozed_until is null)::int as total_entries,
        count(i.seq) filter (where i.archived_at is not null)::int as archived_entries,
        count(i.seq) filter (where i.snoozed_until is not null)::int as snoozed_entries,
        count(i.seq)::int as entries, count(distinct i.seq)::int as sequences, coalesce(max(i.seq), 0)::int as newest
      from inbox_heads h full join inbox i using (tenant_id, user_id)
      group by tenant_id, user_id, h.unread, h.total, h.archived, h.snoozed, h.seq
    ) counted
    where (unread, total, archived, snoozed) is distinct from
        (unread_entries, total_entries, archived_entries, snoozed_entries)
      or entries <> sequences or newest > seq`;
  const strays = await sql`
    select i.tenant_id, i.user_id, i.seq, i.notification_id, n.inbox_seq, n.status
    from inbox i full join (select * from notifications where inbox_seq is not null) n
      on n.tenant_id = i.tenant_id and n.id = i.notification_id
    where n.inbox_seq is distinct from i.seq or n.user_id is distinct from i.user_id or n.status not in (7, 8)`;
  return [...heads, ...strays];
}

/** In-app counters that differ from a recount of the timelines, and notifications whose status differs from theirs. */
export async function wrongInAppCounters(sql: Sql): Promise<unknown[]> {
  const counters = await sql`
    select * from (
      select tenant_id, hour, type, status, sum(count)::int as counted from counters
      where channel = 1 group by tenant_id, hour, type, status
    ) c full join (
      select t.tenant_id, date_trunc('hour', t.at, 'UTC') as hour, n.type, t.status, count(*)::int as recounted
      from timeline t join notifications n on n.tenant_id = t.tenant_id and n.id = t.notification_id
      where t.channel = 1 group by 1, 2, 3, 4
    ) t using (tenant_id, hour, type, status)
    where counted is distinct from recounted`;
  const statuses = await sql`
    select n.tenant_id, n.id, n.status, count(t.status)::int as reads
    from notifications n left join timeline t
      on t.tenant_id = n.tenant_id and t.notification_id = n.id and t.status = 8
    group by n.tenant_id, n.id, n.status
    having count(t.status) <> case when n.status = 8 then 1 else 0 end`;
  return [...counters, ...statuses];
}
