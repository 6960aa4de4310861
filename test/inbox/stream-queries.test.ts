import { expect, test } from "vitest";
import { toCounts, toEntry } from "#src/inbox/entry.ts";
import { entriesByIds, readHeads, replay } from "#src/inbox/queries.ts";
import { releaseSnoozed } from "#src/inbox/release.ts";
import { inboxOnPostgres, OTHER_TENANT, TENANT } from "./setup.ts";

const { store, inbox, time, user, deliver } = await inboxOnPostgres();

const replayed = (...missed: { userId: string; afterSeq: number; most: number }[]) =>
  store.tenant(TENANT, (tx) => replay(tx, TENANT, missed, time.now));
const after = (userId: string, afterSeq: number, most = 100) => replayed({ userId, afterSeq, most });

test("a replay gives what came after a sequence, oldest first, but what was deleted, has expired or moved", async () => {
  const owner = user();
  const hour = new Date(time.now.getTime() + 3_600_000);
  const ids = await deliver(owner, [{}, {}, { title: "third" }, {}, { expiresAt: hour }, {}]);
  await inbox.change(owner, [ids[3]!], { kind: "delete" });
  await inbox.change(owner, [ids[1]!], { kind: "snooze", until: hour });
  await inbox.change(owner, [ids[5]!], { kind: "archive" });
  time.now = hour;
  await releaseSnoozed({ store }, time.now, 10);

  const rows = await after(owner.userId, 1);
  expect(rows.map((row) => row.seq)).toEqual([3, 6, 7]);
  expect(toEntry(rows[0]!)).toMatchObject({ sequence: 3n, content: { title: "third" } });
  expect(toEntry(rows[1]!).archiveTime).toBeDefined();
  expect((await after(owner.userId, 1, 2)).map((row) => row.seq)).toEqual([3, 6]);
  expect(await after(owner.userId, 7)).toEqual([]);
});

test("replays of many users are each after a sequence of their own, and no longer than they were asked for", async () => {
  const [one, two, none] = [user(), user(), user()];
  await deliver(one, 4);
  await deliver(two, 4);
  const rows = await replayed(
    { userId: one.userId, afterSeq: 1, most: 2 },
    { userId: none.userId, afterSeq: 0, most: 5 },
    { userId: two.userId, afterSeq: 3, most: 5 },
  );
  const places = Map.groupBy(rows, (row) => row.userId);
  expect(places.get(one.userId)?.map((row) => row.seq)).toEqual([2, 3]);
  expect(places.get(two.userId)?.map((row) => row.seq)).toEqual([4]);
  expect(places.size).toBe(2);
});

test("heads come for those users of the tenant who have an inbox", async () => {
  const [one, two, none, elsewhere] = [user(), user(), user(), user(OTHER_TENANT)];
  await deliver(one, 2);
  await deliver(two, 3);
  await deliver(elsewhere, 1);
  await inbox.markSeen(two, 1n);
  const asked = [one, two, none, elsewhere].map((owner) => owner.userId);
  const heads = await store.tenant(TENANT, (tx) => readHeads(tx, TENANT, asked));
  expect([...heads.keys()].sort()).toEqual([one.userId, two.userId].sort());
  expect(heads.get(two.userId)).toEqual({
    epoch: 7,
    seq: 3,
    trimmedSeq: 0,
    seenSeq: 1,
    unread: 3,
    total: 3,
    archived: 0,
    snoozed: 0,
  });
  expect(toCounts(heads.get(two.userId))).toMatchObject({ unread: 3, unseen: 2, total: 3 });
});

test("entries of many users come by their places, with or without the time of arrival", async () => {
  const owners = [user(), user()];
  for (const owner of owners) await deliver(owner, [{ title: owner.userId }, {}]);
  const places = [
    { userId: owners[0]!.userId, seq: 1 },
    { userId: owners[1]!.userId, seq: 1, arrivedAt: time.now },
    { userId: owners[1]!.userId, seq: 9 },
    { userId: "nobody", seq: 1 },
  ];
  const rows = await store.tenant(TENANT, (tx) => entriesByIds(tx, TENANT, places));
  const titles = rows.map((row) => [row.userId, toEntry(row).content?.title]).sort();
  expect(titles).toEqual(owners.map((owner) => [owner.userId, owner.userId]).sort());
  expect(await store.tenant(TENANT, (tx) => entriesByIds(tx, TENANT, []))).toEqual([]);
  expect(await store.tenant(OTHER_TENANT, (tx) => entriesByIds(tx, TENANT, places))).toEqual([]);
});
