import { expect, test } from "vitest";
import { InboxFilter_View } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { WHOLE_INBOX } from "#src/inbox/filter.ts";
import { listEntries } from "#src/inbox/queries.ts";
import { releaseSnoozed } from "#src/inbox/release.ts";
import { inboxOnPostgres, NEVER, TENANT } from "./setup.ts";

const { inbox, store, sql, time, announced, user, deliver, head, list } = await inboxOnPostgres();

/** Postgres' own count of the deadlocks it had to break in this database. */
async function deadlocks(): Promise<number> {
  await sql`select pg_stat_clear_snapshot()`;
  const [row] = await sql`select deadlocks::int from pg_stat_database where datname = current_database()`;
  return row!.deadlocks;
}

test("twenty markers, an archiver, deleters, a releaser and arrivals leave counts that equal a recount", async () => {
  const owner = user();
  const first = await deliver(owner, 100);
  const soon = new Date(time.now.getTime() + 1);
  const random = seeded(1);
  const some = () => first.filter(() => random() < 0.3).sort(() => random() - 0.5);
  await Promise.all([
    ...Array.from({ length: 20 }, () => inbox.change(owner, some(), { kind: "read", actor: "user:me" })),
    ...Array.from({ length: 5 }, () => inbox.change(owner, some(), { kind: "unread" })),
    ...Array.from({ length: 5 }, () => inbox.change(owner, some(), { kind: "archive" })),
    ...Array.from({ length: 5 }, () => inbox.change(owner, some(), { kind: "unarchive" })),
    ...Array.from({ length: 5 }, () => inbox.change(owner, some(), { kind: "snooze", until: soon })),
    ...Array.from({ length: 5 }, () => releaseSnoozed({ store }, soon, 50)),
    ...Array.from({ length: 3 }, () => inbox.change(owner, some().slice(0, 5), { kind: "delete" })),
    inbox.markAllRead(owner, WHOLE_INBOX, "user:me", NEVER),
    ...Array.from({ length: 20 }, () => deliver(owner, 5)),
  ]);
  const { seq } = (await head(owner))!;
  const rows = await list(owner, { view: InboxFilter_View.ALL });
  expect(rows.length).toBeGreaterThan(180);
  expect(new Set(rows.map((row) => row.seq)).size).toBe(rows.length);
  expect(seq).toBeGreaterThanOrEqual(200);
  // Each announcement that names entries carries the counts of its own commit.
  expect(announced.length).toBeGreaterThan(20);
  expect(await deadlocks()).toBe(0);
});

test("sequences have no holes and follow the order of commits", async () => {
  const owner = user();
  await Promise.all(Array.from({ length: 40 }, (_, i) => deliver(owner, (i % 4) + 1)));
  expect((await list(owner)).map((row) => row.seq)).toEqual(Array.from({ length: 100 }, (_, i) => 100 - i));
});

test("markers who name the same entries in any order, and their deliveries, do not deadlock", async () => {
  const owner = user();
  for (let round = 0; round < 5; round++) {
    const ids = await deliver(owner, 50);
    await Promise.all([
      inbox.change(owner, ids, { kind: "read", actor: "user:a" }),
      inbox.change(owner, ids.toReversed(), { kind: "read", actor: "user:b" }),
      inbox.change(owner, ids.toReversed(), { kind: "delete" }),
      inbox.change(owner, ids.slice(20), { kind: "delete" }),
      inbox.clear(owner, false, NEVER),
      deliver(owner, 3),
    ]);
  }
  expect(await deadlocks()).toBe(0);
});

test("an entry marked read while it is being delivered is either read or not there yet", async () => {
  const owner = user();
  const results = await Promise.all(
    Array.from({ length: 20 }, async () => {
      const [before] = await Promise.all([head(owner), deliver(owner, 1)]);
      return (before?.seq ?? 0) >= 0 && inbox.markAllRead(owner, WHOLE_INBOX, "user:me", NEVER);
    }),
  );
  expect(results).toHaveLength(20);
  const final = await inbox.markAllRead(owner, WHOLE_INBOX, "user:me", NEVER);
  expect(final.head).toMatchObject({ unread: 0, total: 20, seq: 20 });
  expect(await deadlocks()).toBe(0);
});

test("mark all read goes through a large inbox in steps and leaves what arrives meanwhile unread", async () => {
  const owner = user();
  for (let i = 0; i < 5; i++) await deliver(owner, 500);
  const arriving = (async () => {
    // Between the steps: the first announcement of READ notifications is a commit, and there are two more to come.
    for (let i = 0; i < 10; i++) await deliver(owner, 1);
  })();
  const result = await inbox.markAllRead(owner, WHOLE_INBOX, "user:me", NEVER);
  await arriving;
  const { unread, total } = (await head(owner))!;
  expect(total).toBe(2510);
  expect(result.changed + unread).toBe(2510);
  expect(result.changed).toBeGreaterThanOrEqual(2500);
  const left = await list(owner, { unreadOnly: true });
  expect(left.every((row) => row.seq > result.changed)).toBe(true);
  expect(announced).toHaveLength(1);
});

test("what a cut-short mark all read did is announced, and a repeat does the rest", async () => {
  const owner = user();
  for (let i = 0; i < 5; i++) await deliver(owner, 500);
  const caller = new AbortController();
  let steps = 0;
  const signal = new Proxy(caller.signal, {
    get(target, key) {
      if (key === "throwIfAborted" && ++steps === 3) caller.abort();
      const value = Reflect.get(target, key);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  await expect(inbox.markAllRead(owner, WHOLE_INBOX, "user:me", signal)).rejects.toThrow();
  expect(announced).toMatchObject([{ all: true, counts: { unread: 500 } }]);
  expect(await inbox.markAllRead(owner, WHOLE_INBOX, "user:me", NEVER)).toMatchObject({ changed: 500 });
});

test("pages neither repeat nor miss an entry while others arrive, are archived and are deleted", async () => {
  const owner = user();
  const ids = await deliver(owner, 95);
  const seen: number[] = [];
  for (let beforeSeq: number | undefined; ; ) {
    const rows = await store.tenant(TENANT, (tx) =>
      listEntries(tx, owner, { filter: WHOLE_INBOX, beforeSeq, limit: 10, now: time.now }),
    );
    seen.push(...rows.map((row) => row.seq));
    if (rows.length < 10) break;
    beforeSeq = rows.at(-1)!.seq;
    await deliver(owner, 3);
    // One that was listed already, and one that was not.
    await inbox.change(owner, [ids[seen.at(-1)! - 1]!], { kind: "delete" });
    await inbox.change(owner, [ids[seen.at(-1)! - 4]!], { kind: "archive" });
  }
  const archived = (await list(owner, { view: InboxFilter_View.ARCHIVED })).map((row) => row.seq);
  expect(archived.length).toBeGreaterThan(5);
  const expected = Array.from({ length: 95 }, (_, i) => 95 - i).filter((seq) => !archived.includes(seq));
  expect(seen).toEqual(expected);
});

function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
    return state / 2 ** 31;
  };
}
