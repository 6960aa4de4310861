import { fromBinary } from "@bufbuild/protobuf";
import type { Sql } from "postgres";
import { ContentSchema, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { BatchRole } from "#src/batches/role.ts";
import { wrongInAppCounters, wrongInboxes } from "../../support/recount.ts";
import { brokenAftermath, repeated } from "./aftermath.ts";
import type { Site } from "./lab.ts";
import type { Readers } from "./readers.ts";
import type { Account } from "./sender.ts";

const OPEN: readonly number[] = [Status.ACCEPTED, Status.SCHEDULED, Status.HELD, Status.BATCHED, Status.PROCESSING];

/**
 * Everything that is not as promised, in words; empty when all is well:
 *
 * - what was acknowledged is there, once, and has come to exactly one terminal state;
 * - no key was stored twice for a user, whoever asked how often;
 * - inboxes are numbered without gaps, hold nothing twice, and their heads say what a recount says;
 * - each stream gave all entries of its user, once, in order;
 * - counters equal a recount;
 * - what comes after decisions is as promised too (aftermath.ts).
 */
export async function brokenPromises(
  sql: Sql,
  { tenantId, channels }: Pick<Site, "tenantId" | "channels">,
  account: Account,
  readers: Readers | undefined,
): Promise<string[]> {
  const broken = [...account.broken, ...(readers?.broken ?? [])];
  const rows = await sql<
    { id: string; userId: string; key: string; status: number; dedupKey: string | null; isWhole: boolean }[]
  >`
    select id, user_id as "userId", tags[1] as key, status, dedup_key as "dedupKey",
      batch_role is not distinct from ${BatchRole.WHOLE} as "isWhole"
    from notifications where tenant_id = ${tenantId}`;
  const stored = new Map(rows.map((row) => [row.id, row]));
  for (const [id, { key, userId }] of account.acknowledged) {
    const row = stored.get(id);
    if (row === undefined) broken.push(`${key} to ${userId} was acknowledged and is not there`);
    else if (row.key !== key || row.userId !== userId) broken.push(`${id} is ${row.key} to ${row.userId}, not ${key}`);
  }
  for (const id of account.named) if (!stored.has(id)) broken.push(`${id} stands for a duplicate and is not there`);
  for (const row of rows)
    if (OPEN.includes(row.status)) broken.push(`${row.key} to ${row.userId} is still in status ${row.status}`);
  // The notification of a batch has the tags of its members.
  const sent = rows.filter(({ isWhole }) => !isWhole).map((row) => `${row.key} to ${row.userId}`);
  broken.push(...repeated(sent).map((which) => `${which} is there twice`));
  const dedups = rows.filter((row) => row.dedupKey !== null).map((row) => `${row.dedupKey} to ${row.userId}`);
  broken.push(...repeated(dedups).map((which) => `${which} was not deduplicated`));

  broken.push(...(await wrongFanouts(sql, tenantId, account)));

  // Each channel that delivers says so: the first of them is the end, and nothing else may be one then.
  const ends = await sql<{ id: string; ends: number }[]>`
    select n.id, count(distinct case when t.channel > 1 then 'outside' else t.tableoid::text || t.ctid::text end)::int as ends
    from notifications n
    left join timeline t on t.tenant_id = n.tenant_id and t.notification_id = n.id and t.status in (7, 9, 10, 11, 12)
      and not (t.channel > 1 and n.inbox_seq is not null)
    where n.tenant_id = ${tenantId} and not n.status = any(${OPEN as number[]}) group by n.id
    having count(distinct case when t.channel > 1 then 'outside' else t.tableoid::text || t.ctid::text end) <> 1`;
  for (const { id, ends: count } of ends) broken.push(`${stored.get(id)?.key} has ended ${count} times`);

  broken.push(...(await wrongInboxes(sql)).map((row) => `inbox: ${JSON.stringify(row)}`));
  broken.push(...(await wrongInAppCounters(sql)).map((row) => `counter: ${JSON.stringify(row)}`));
  broken.push(...(await wrongTotals(sql, tenantId)).map((row) => `counter: ${JSON.stringify(row)}`));
  broken.push(...(await wrongSequences(sql, tenantId, readers)));
  broken.push(...(await brokenAftermath(sql, tenantId, account, channels)));
  return broken;
}

/** Fan-outs that are not done, or have not made one notification for each member. */
async function wrongFanouts(sql: Sql, tenantId: string, account: Account): Promise<string[]> {
  const fanouts = await sql<{ id: string; state: number; created: number; rows: number; members: number }[]>`
    select f.id, f.state, f.created::int, count(n.id)::int as rows,
      (select count(*)::int from topic_members m where m.tenant_id = f.tenant_id) as members
    from fanouts f left join notifications n on n.tenant_id = f.tenant_id and n.fanout_id = f.id
    where f.tenant_id = ${tenantId} group by f.tenant_id, f.id, f.state, f.created`;
  const ids = new Set(fanouts.map(({ id }) => id));
  return [
    ...[...account.fanouts].flatMap(([key, id]) => (ids.has(id) ? [] : [`${key}'s fan-out is not there`])),
    ...fanouts
      .filter(({ state, created, rows, members }) => state !== 2 || created !== rows || rows !== members)
      .map((fanout) => `fan-out: ${JSON.stringify(fanout)}`),
  ];
}

/** Inboxes with gaps (nobody deletes in these tests), and streams that did not give what the inbox holds. */
async function wrongSequences(sql: Sql, tenantId: string, readers: Readers | undefined): Promise<string[]> {
  const entries = await sql<{ userId: string; seq: number; id: string; content: Uint8Array }[]>`
    select i.user_id as "userId", i.seq::int, n.id, coalesce(n.content, f.content) as content
    from inbox i join notifications n on n.tenant_id = i.tenant_id and n.id = i.notification_id
    left join fanouts f on f.tenant_id = n.tenant_id and f.id = n.fanout_id
    where i.tenant_id = ${tenantId} order by i.user_id, i.seq`;
  const inboxes = Map.groupBy(entries, (entry) => entry.userId);
  const broken: string[] = [];
  for (const [userId, inbox] of inboxes) {
    const gap = inbox.findIndex(({ seq }, index) => seq !== index + 1);
    if (gap !== -1) broken.push(`${userId}'s inbox has ${inbox[gap]?.seq} in place ${gap + 1}`);
    if (new Set(inbox.map(({ id }) => id)).size !== inbox.length)
      broken.push(`${userId}'s inbox holds something twice`);
  }
  for (const [userId, seen] of readers?.seen ?? []) {
    const inbox = inboxes.get(userId) ?? [];
    if (seen.length !== inbox.length) broken.push(`${userId}'s stream gave ${seen.length} of ${inbox.length} entries`);
    const other = seen.find(({ seq, id }) => inbox[seq - 1]?.id !== id);
    if (other !== undefined) broken.push(`${userId}'s stream gave ${other.id} as ${other.seq}, the inbox does not`);
    const stale = seen.find(({ seq, title }) => inbox[seq - 1] && titleOf(inbox[seq - 1]?.content) !== title);
    if (stale) broken.push(`${userId}'s stream gave «${stale.title}» as ${stale.seq}, the inbox shows another title`);
  }
  return broken;
}

function titleOf(content: Uint8Array | undefined): string {
  return fromBinary(ContentSchema, content ?? new Uint8Array()).title;
}

/** Statuses counted otherwise than notifications came to them. */
async function wrongTotals(sql: Sql, tenantId: string): Promise<unknown[]> {
  const rows = await sql`
    select status, counted, recounted from (
      select status, sum(count)::int as counted from counters where tenant_id = ${tenantId} group by status
    ) c full join (
      select 1 as status, count(*)::int as recounted from notifications where tenant_id = ${tenantId}
      union all
      select status, count(*)::int from timeline
      where tenant_id = ${tenantId} and status > 1 group by status
    ) t using (status)
    where counted is distinct from recounted`;
  return [...rows];
}
