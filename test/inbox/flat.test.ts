import { expect, test } from "vitest";
import { changeEntries } from "#src/inbox/changes.ts";
import { WHOLE_INBOX } from "#src/inbox/filter.ts";
import { listGrouped } from "#src/inbox/grouped.ts";
import { entriesByNotification, listEntries, readHeads, replay } from "#src/inbox/queries.ts";
import type { Tx } from "#src/store/store.ts";
import { inboxOnPostgres, TENANT } from "./setup.ts";

const { store, sql, time, user, newId } = await inboxOnPostgres();

const SIZE = 20_000;
const large = user();
/** Ids of this month, told apart by their last digits. */
const idPrefix = newId().slice(0, 24);
const idOf = (n: number) => `${idPrefix}${n.toString(16).padStart(12, "0")}`;

// Many inboxes of ten entries make the planner take every inbox for small: the large one has to be fast all the same.
await seed(0, SIZE);
await seed(SIZE, 2 * SIZE, 10);
await sql`analyze notifications, inbox, inbox_heads`;

const page = { filter: WHOLE_INBOX, beforeSeq: undefined, limit: 21, now: time.now };
const missed = (userId: string, afterSeq: number, most: number) => ({ userId, afterSeq, most });
const smallOnes = [1, 2, 3].map((n) => missed(`small-${SIZE / 10 + n}`, 5, 5));
const rare = { notificationIds: [idOf(7), idOf(SIZE - 7)] };
const calls: [string, (tx: Tx) => Promise<unknown>][] = [
  ["the first page", (tx) => listEntries(tx, large, page)],
  ["a page far down", (tx) => listEntries(tx, large, { ...page, beforeSeq: 500 })],
  ["the unread of which there is one in a hundred", (tx) => listEntries(tx, large, unreadPage())],
  ["the first page of groups", (tx) => listGrouped(tx, large, page)],
  ["a page of groups far down", (tx) => listGrouped(tx, large, { ...page, beforeSeq: 500 })],
  ["the counts", (tx) => readHeads(tx, TENANT, [large.userId])],
  ["one entry", (tx) => entriesByNotification(tx, large, [idOf(7)], time.now)],
  ["a replay", (tx) => replay(tx, TENANT, [missed(large.userId, SIZE - 20, 20)], time.now)],
  ["a replay of some", (tx) => replay(tx, TENANT, [missed(large.userId, 100, 5), ...smallOnes], time.now)],
  ["archiving two", (tx) => changeEntries(tx, large, rare, { kind: "archive" }, time.now)],
  ["taking them back", (tx) => changeEntries(tx, large, rare, { kind: "unarchive" }, time.now)],
  ["marking them unread", (tx) => changeEntries(tx, large, rare, { kind: "unread" }, time.now)],
  ["reading them", (tx) => changeEntries(tx, large, rare, { kind: "read", actor: "a", counterSlot: 0 }, time.now)],
  ["deleting them", (tx) => changeEntries(tx, large, rare, { kind: "delete" }, time.now)],
];

test("every call on an inbox of 20,000 reads about as many rows as it gives", async () => {
  for (const [name, call] of calls) {
    const read = await store.tenant(TENANT, async (tx) => {
      const before = await rowsRead(tx);
      await call(tx);
      return (await rowsRead(tx)) - before;
    });
    // Up to 21 entries with their notifications and, for each, the head.
    expect.soft(read, name).toBeGreaterThan(0);
    expect.soft(read, name).toBeLessThan(80);
  }
});

/** Rows this connection fetched lately: the same on every machine, unlike times. */
async function rowsRead(tx: Tx): Promise<number> {
  const [row] = await tx<{ rows: number }[]>`
    select sum(seq_tup_read + idx_tup_fetch)::int as rows from pg_stat_xact_user_tables
    where relname like any('{inbox%,notifications%}')`;
  return row?.rows ?? 0;
}

function unreadPage() {
  return { ...page, filter: { ...WHOLE_INBOX, unreadOnly: true } };
}

/** Entries `from` to `to`, by default all of the large inbox. One in a hundred is unread. */
async function seed(from: number, to: number, perUser?: number): Promise<void> {
  const [owner, seq] =
    perUser === undefined
      ? [sql`${large.userId}`, sql`n`]
      : [sql`'small-' || (n - 1) / ${perUser}::int`, sql`(n - 1) % ${perUser}::int + 1`];
  await sql`
    with entry as (
      select ${TENANT}::uuid as tenant_id, (${idPrefix}::text || lpad(to_hex(n), 12, '0'))::uuid as id,
        ${owner} as user_id, ${seq} as seq, n % 100 = 0 as unread
      from generate_series(${from + 1}::int, ${to}::int) n
    ), notification as (
      insert into notifications (tenant_id, id, user_id, type, category, priority, status, channels, content, updated_at,
        delivered_at, inbox_seq)
      select tenant_id, id, user_id, 't', 'c', 2, case when unread then 7 else 8 end, 2, '', ${time.now}, ${time.now}, seq
      from entry
    ), history as (
      insert into timeline (tenant_id, notification_id, at, status, channel, reason)
      select tenant_id, id, ${time.now}, 8, 1, 0 from entry where not unread
    ), arrived as (
      insert into inbox (tenant_id, user_id, seq, arrived_at, notification_id, type, category, priority, read_at)
      select tenant_id, user_id, seq, ${time.now}, id, 't', 'c', 2, case when not unread then ${time.now}::timestamptz end
      from entry
    )
    insert into inbox_heads (tenant_id, user_id, epoch, seq, unread, total)
    select tenant_id, user_id, 1, count(*), count(*) filter (where unread), count(*) from entry group by 1, 2`;
  await sql`
    insert into counters (tenant_id, hour, type, channel, status, slot, count)
    select ${TENANT}, date_trunc('hour', ${time.now}::timestamptz, 'UTC'), 't', 1, 8, 99, ${((to - from) * 99) / 100}
    on conflict (tenant_id, hour, type, channel, status, slot) do update set count = counters.count + excluded.count`;
}
