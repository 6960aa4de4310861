import { expect, test } from "vitest";
import { InboxFilter_View } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { InboxChanged_Change } from "#gen/posthorn/v1/stream_service_pb.ts";
import { WHOLE_INBOX } from "#src/inbox/filter.ts";
import { inboxOnPostgres, NEVER, OTHER_TENANT } from "./setup.ts";

const { inbox, sql, time, announced, read, user, deliver, head, list } = await inboxOnPostgres();

const counts = async (owner: { tenantId: string; userId: string }) => {
  const { unread, total, archived, snoozed } = (await head(owner)) ?? { unread: 0, total: 0, archived: 0, snoozed: 0 };
  return { unread, total, archived, snoozed };
};
const tomorrow = () => new Date(time.now.getTime() + 86_400_000);

test("reading an entry counts it out, makes its notification READ and says so once", async () => {
  const owner = user();
  const [first, second] = await deliver(owner, 2);
  const result = await inbox.change(owner, [first!, first!.toUpperCase()], { kind: "read", actor: "user:me" });

  expect(result).toMatchObject({ changed: 1, head: { unread: 1, total: 2, seq: 2 } });
  expect(announced).toMatchObject([
    { ...owner, change: InboxChanged_Change.READ, notificationIds: [first], counts: { unread: 1, total: 2 } },
  ]);
  expect(read).toEqual([{ ...owner, ids: [first] }]);
  const statuses = await sql`select id, status from notifications where id in ${sql([first!, second!])} order by id`;
  expect(statuses.map((row) => row.status)).toEqual([8, 7]);
  const history =
    await sql`select actor, channel, reason from timeline where notification_id = ${first!} and status = 8`;
  expect([...history]).toEqual([{ actor: "user:me", channel: 1, reason: 0 }]);
});

test("unread again leaves the notification READ, and reading it once more is no second READ", async () => {
  const owner = user();
  const ids = await deliver(owner, 1);
  await inbox.change(owner, ids, { kind: "read", actor: "user:me" });
  expect(await inbox.change(owner, ids, { kind: "unread" })).toMatchObject({ changed: 1, head: { unread: 1 } });
  expect(await inbox.change(owner, ids, { kind: "read", actor: "user:me" })).toMatchObject({ changed: 1 });
  expect(read).toHaveLength(1);
  const history = await sql`select 1 from timeline where notification_id = ${ids[0]!} and status = 8`;
  expect(history).toHaveLength(1);
});

test.each([
  [{ kind: "read", actor: "user:me" }],
  [{ kind: "archive" }],
  [{ kind: "snooze", until: new Date(Date.now() + 3_600_000) }],
  [{ kind: "delete" }],
] as const)("%o twice changes and announces nothing the second time", async (change) => {
  const owner = user();
  const ids = await deliver(owner, 3);
  const first = await inbox.change(owner, ids, change);
  const second = await inbox.change(owner, ids, change);
  expect(first.changed).toBe(3);
  expect(second).toEqual({ changed: 0, head: first.head });
  expect(announced).toHaveLength(1);
});

test("an entry is in one place: archiving ends a snooze, and snoozing takes it from the archive", async () => {
  const owner = user();
  const ids = await deliver(owner, 1);
  await inbox.change(owner, ids, { kind: "snooze", until: tomorrow() });
  expect(await counts(owner)).toEqual({ unread: 0, total: 0, archived: 0, snoozed: 1 });
  await inbox.change(owner, ids, { kind: "archive" });
  expect(await counts(owner)).toEqual({ unread: 0, total: 0, archived: 1, snoozed: 0 });
  expect(await inbox.change(owner, ids, { kind: "unsnooze" })).toMatchObject({ changed: 0 });
  await inbox.change(owner, ids, { kind: "snooze", until: tomorrow() });
  expect(await counts(owner)).toEqual({ unread: 0, total: 0, archived: 0, snoozed: 1 });
  await inbox.change(owner, ids, { kind: "unsnooze" });
  expect(await counts(owner)).toEqual({ unread: 1, total: 1, archived: 0, snoozed: 0 });
  expect((await list(owner)).map((row) => row.seq)).toEqual([1]);
});

test("what was read in the archive does not come back unread", async () => {
  const owner = user();
  const ids = await deliver(owner, 2);
  await inbox.change(owner, ids, { kind: "archive" });
  await inbox.change(owner, [ids[0]!], { kind: "read", actor: "user:me" });
  await inbox.change(owner, ids, { kind: "unarchive" });
  expect(await counts(owner)).toEqual({ unread: 1, total: 2, archived: 0, snoozed: 0 });
});

test("a deleted entry is gone, its notification stays, and its sequence is not given again", async () => {
  const owner = user();
  const ids = await deliver(owner, 2);
  await inbox.change(owner, [ids[1]!], { kind: "delete" });
  const [kept] = await sql`select status, inbox_seq from notifications where id = ${ids[1]!}`;
  expect(kept).toEqual({ status: 7, inbox_seq: null });
  await deliver(owner, 1);
  expect((await list(owner)).map((row) => row.seq)).toEqual([3, 1]);
});

test("ids of other users, of other tenants and of nobody are passed over", async () => {
  const [mine, theirs, elsewhere] = [user(), user(), user(OTHER_TENANT)];
  const own = await deliver(mine, 1);
  const foreign = [...(await deliver(theirs, 1)), ...(await deliver({ ...elsewhere, userId: mine.userId }, 1))];
  for (const change of [
    { kind: "read", actor: "user:me" },
    { kind: "archive" },
    { kind: "snooze", until: tomorrow() },
    { kind: "delete" },
  ] as const) {
    const asked = [...foreign, "01890000-0000-7000-8000-0000000000ff", ...own];
    expect(await inbox.change(mine, asked, change)).toMatchObject({ changed: 1 });
  }
  for (const owner of [theirs, { ...elsewhere, userId: mine.userId }]) {
    expect(await counts(owner)).toEqual({ unread: 1, total: 1, archived: 0, snoozed: 0 });
  }
});

test("a user to whom nothing has arrived has nothing to change", async () => {
  const owner = user();
  const ids = await deliver(user(), 1);
  expect(await inbox.change(owner, ids, { kind: "archive" })).toEqual({ changed: 0, head: undefined });
  expect(await inbox.markSeen(owner, undefined)).toBeUndefined();
  expect(await inbox.markAllRead(owner, WHOLE_INBOX, "user:me", NEVER)).toEqual({ changed: 0, head: undefined });
  expect(announced).toEqual([]);
});

test("what was seen moves forward, never back, and never past the newest entry", async () => {
  const owner = user();
  await deliver(owner, 5);
  expect(await inbox.markSeen(owner, 3n)).toMatchObject({ seenSeq: 3 });
  expect(await inbox.markSeen(owner, 2n)).toMatchObject({ seenSeq: 3 });
  expect((await list(owner)).map((row) => row.seen)).toEqual([false, false, true, true, true]);
  expect(await inbox.markSeen(owner, 2n ** 63n - 1n)).toMatchObject({ seenSeq: 5 });
  await deliver(owner, 1);
  expect(await inbox.markSeen(owner, undefined)).toMatchObject({ seenSeq: 6 });
  expect(announced.map((event) => event.throughSequence)).toEqual([3n, 5n, 6n]);
});

test("mark all read keeps to its filter and leaves the archive and the snoozed alone", async () => {
  const owner = user();
  const ids = await deliver(owner, [{ type: "a" }, { type: "b" }, { type: "a" }, { type: "a" }]);
  await inbox.change(owner, [ids[2]!], { kind: "archive" });
  await inbox.change(owner, [ids[3]!], { kind: "snooze", until: tomorrow() });
  const result = await inbox.markAllRead(owner, { ...WHOLE_INBOX, types: ["a"] }, "user:me", NEVER);
  expect(result).toMatchObject({ changed: 1, head: { unread: 1 } });
  const unread = await list(owner, { view: InboxFilter_View.ALL, unreadOnly: true });
  expect(unread.map((row) => row.seq)).toEqual([4, 3, 2]);
  expect(announced.at(-1)).toMatchObject({ change: InboxChanged_Change.READ, all: true, counts: { unread: 1 } });
});

test("clear takes the archive, or everything", async () => {
  const owner = user();
  const ids = await deliver(owner, 4);
  await inbox.change(owner, ids.slice(0, 2), { kind: "archive" });
  await inbox.change(owner, [ids[3]!], { kind: "snooze", until: tomorrow() });
  expect(await inbox.clear(owner, true, NEVER)).toMatchObject({ changed: 2, head: { total: 1, archived: 0 } });
  expect(await inbox.clear(owner, false, NEVER)).toMatchObject({ changed: 2, head: { total: 0, snoozed: 0, seq: 4 } });
  expect(await list(owner, { view: InboxFilter_View.ALL })).toEqual([]);
});
