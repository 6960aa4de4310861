import type { MessageInitShape } from "@bufbuild/protobuf";
import { create, toBinary, toJson } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import {
  InboxCountsSchema,
  type InboxEntry,
  InboxFilter_View,
  type InboxFilterSchema,
  InboxService,
  type ListEntriesRequestSchema,
} from "#gen/posthorn/v1/inbox_service_pb.ts";
import { ContentSchema, Priority } from "#gen/posthorn/v1/notification_pb.ts";
import type { Owner } from "#src/inbox/queries.ts";
import { inboxService } from "#src/services/inbox-service.ts";
import { pageTokens } from "#src/store/page-token.ts";
import { fakeCall, userOf } from "../support/call.ts";
import { invoke } from "../support/invoke.ts";
import { inboxOnPostgres, OTHER_TENANT, TENANT } from "./setup.ts";

const { store, sql, inbox, time, clock, newId, user, deliver } = await inboxOnPostgres();
const service = inboxService({
  inbox,
  store,
  clock,
  pageTokens: pageTokens(new Uint8Array(32)),
  looked: () => undefined,
});
const { method } = InboxService;

const key = fakeCall({ tenantId: TENANT });
const as = ({ tenantId, userId }: Owner) => fakeCall({ tenantId, principal: userOf(tenantId, userId) });
const sequences = (entries: InboxEntry[]) => entries.map((entry) => Number(entry.sequence));
const inHours = (hours: number) => new Date(time.now.getTime() + hours * 3_600_000);

async function everyPage(owner: Owner, request: MessageInitShape<typeof ListEntriesRequestSchema>) {
  const pages: number[][] = [];
  for (let pageToken = ""; ; ) {
    const page = await invoke(service, method.listEntries, { ...request, pageToken }, as(owner));
    pages.push(sequences(page.entries));
    pageToken = page.nextPageToken;
    if (pageToken === "") return pages;
  }
}

test("an entry tells all that the sender gave, whether it holds the content or its fan-out does", async () => {
  const owner = user();
  const fanoutId = newId();
  const shared = create(ContentSchema, { title: "To all", body: "Hello" });
  await sql`
    insert into fanouts (tenant_id, id, state, priority, request, content, actor, cursor, created_at)
    values (${TENANT}, ${fanoutId}, 1, 2, '', ${toBinary(ContentSchema, shared)}, 'operator', '{}', now())`;
  const [own, fanned] = await deliver(owner, [
    { type: "order", category: "shop", title: "Shipped", tags: ["a", "b"], expiresAt: inHours(1) },
    { fanoutId },
  ]);
  const { entries, counts } = await invoke(service, method.listEntries, {}, as(owner));
  expect(entries).toMatchObject([
    { notificationId: fanned, sequence: 2n, content: { title: "To all", body: "Hello" }, seen: false },
    {
      notificationId: own,
      sequence: 1n,
      type: "order",
      category: "shop",
      priority: Priority.NORMAL,
      content: { title: "Shipped" },
      tags: ["a", "b"],
      senderId: "sender-1",
    },
  ]);
  const { readTime, archiveTime, snoozeTime } = entries[1]!;
  expect([readTime, archiveTime, snoozeTime]).toEqual([undefined, undefined, undefined]);
  expect(timestampDate(entries[1]!.arriveTime!)).toEqual(time.now);
  expect(timestampDate(entries[1]!.expireTime!)).toEqual(inHours(1));
  expect(toJson(InboxCountsSchema, counts!)).toEqual({ unread: 2, unseen: 2, total: 2 });
  expect(await invoke(service, method.getEntry, { notificationId: own! }, as(owner))).toMatchObject({
    entry: entries[1]!,
  });
});

test("pages follow each other without gap or repeat, and the last one has no token", async () => {
  const owner = user();
  await deliver(owner, 50);
  const down = (from: number, to: number) => Array.from({ length: from - to + 1 }, (_, i) => from - i);
  expect(await everyPage(owner, {})).toEqual([down(50, 31), down(30, 11), down(10, 1)]);
  expect(await everyPage(owner, { pageSize: 25 })).toEqual([down(50, 26), down(25, 1)]);
  expect(await everyPage(user(), {})).toEqual([[]]);
});

test("a page token of other filters, another user or another make is refused", async () => {
  const [owner, other] = [user(), user()];
  await deliver(owner, 3);
  const { nextPageToken: pageToken } = await invoke(service, method.listEntries, { pageSize: 1 }, as(owner));
  const refused = { reason: ErrorReason.INVALID_PAGE_TOKEN };
  const list = (request: MessageInitShape<typeof ListEntriesRequestSchema>, of = owner) =>
    invoke(service, method.listEntries, request, as(of));
  await expect(list({ pageToken, filter: { unreadOnly: true } })).rejects.toMatchObject(refused);
  await expect(list({ pageToken }, other)).rejects.toMatchObject(refused);
  await expect(list({ pageToken }, { ...owner, tenantId: OTHER_TENANT })).rejects.toMatchObject(refused);
  await expect(list({ pageToken: pageToken.slice(4) })).rejects.toMatchObject(refused);
  await expect(list({ pageToken, pageSize: 2 })).resolves.toMatchObject({
    entries: [{ sequence: 2n }, { sequence: 1n }],
  });
});

describe("filters", async () => {
  const owner = user();
  const start = time.now;
  const at = (hour: number) => timestampFromDate(new Date(start.getTime() + hour * 3_600_000));
  const ids: string[] = [];
  for (let i = 0; i < 24; i++) {
    time.now = new Date(start.getTime() + i * 3_600_000);
    const tags = i % 4 === 0 ? ["vip", "x"] : i % 4 === 1 ? ["other"] : undefined;
    const type = `t${i % 3}`;
    const [id] = await deliver(owner, [{ type, category: `c${i % 2}`, ...(tags === undefined ? {} : { tags }) }]);
    ids.push(id!);
  }
  await inbox.change(owner, ids.slice(0, 12), { kind: "read", actor: "user:me" });
  await inbox.change(owner, ids.slice(10, 14), { kind: "archive" });
  await inbox.change(owner, ids.slice(20, 22), { kind: "snooze", until: inHours(100) });

  const active = (i: number) => !(i >= 10 && i < 14) && !(i >= 20 && i < 22);
  const cases: [MessageInitShape<typeof InboxFilterSchema>, (i: number) => boolean][] = [
    [{}, active],
    [{ view: InboxFilter_View.ALL }, () => true],
    [{ view: InboxFilter_View.ARCHIVED }, (i) => i >= 10 && i < 14],
    [{ view: InboxFilter_View.SNOOZED }, (i) => i >= 20 && i < 22],
    [{ view: InboxFilter_View.ARCHIVED, unreadOnly: true }, (i) => i === 12 || i === 13],
    [{ unreadOnly: true }, (i) => active(i) && i >= 12],
    [{ types: ["t1"] }, (i) => active(i) && i % 3 === 1],
    [{ types: ["t1", "t2", "none"] }, (i) => active(i) && i % 3 !== 0],
    [{ categories: ["c1"] }, (i) => active(i) && i % 2 === 1],
    [{ tag: "vip" }, (i) => active(i) && i % 4 === 0],
    [{ tag: "vip'" }, () => false],
    [{ startTime: at(5) }, (i) => active(i) && i >= 5],
    [{ endTime: at(5) }, (i) => active(i) && i < 5],
    [
      { unreadOnly: true, types: ["t0"], categories: ["c0"], tag: "vip", startTime: at(12), endTime: at(24) },
      (i) => active(i) && i >= 12 && i % 12 === 0,
    ],
    [{ startTime: at(5), endTime: at(5) }, () => false],
  ];
  test.each(cases)("%o", async (filter, expected) => {
    const all = Array.from({ length: 24 }, (_, i) => 23 - i);
    const wanted = all.filter(expected).map((i) => i + 1);
    expect((await everyPage(owner, { pageSize: 3, filter })).flat()).toEqual(wanted);
    expect((await everyPage(owner, { pageSize: 100, filter })).flat()).toEqual(wanted);
  });

  test.each([253_402_300_800n, -62_135_596_801n, 2n ** 63n - 1n])("a time at %d is refused", async (seconds) => {
    const listing = invoke(service, method.listEntries, { filter: { startTime: { seconds } } }, as(owner));
    await expect(listing).rejects.toMatchObject({ reason: ErrorReason.INVALID_REQUEST });
  });
});

test("an entry that is another's, expired, deleted or unknown is not found", async () => {
  const [owner, other, elsewhere] = [user(), user(), user(OTHER_TENANT)];
  const [expiring, deleted] = await deliver(owner, [{ expiresAt: inHours(1) }, {}]);
  const [theirs] = await deliver(other, 1);
  const [foreign] = await deliver({ ...elsewhere, userId: owner.userId }, 1);
  await inbox.change(owner, [deleted!], { kind: "delete" });
  const get = (notificationId: string) => invoke(service, method.getEntry, { notificationId }, as(owner));
  await expect(get(expiring!)).resolves.toMatchObject({ entry: { sequence: 1n } });
  time.now = inHours(1);
  for (const id of [expiring!, deleted!, theirs!, foreign!, newId()]) {
    await expect(get(id)).rejects.toMatchObject({ reason: ErrorReason.NOT_FOUND });
  }
});

test("every change answers how many entries changed and the counts after it", async () => {
  const owner = user();
  const notificationIds = await deliver(owner, 3);
  const one = { notificationIds: notificationIds.slice(0, 1) };
  const snoozeTime = timestampFromDate(inHours(1));
  const me = as(owner);
  const read = await invoke(service, method.markRead, one, me);
  expect(read).toMatchObject({ changed: 1, counts: { unread: 2, unseen: 3, total: 3 } });
  expect(await invoke(service, method.getCounts, {}, me)).toMatchObject({ counts: read.counts! });
  expect(await invoke(service, method.markUnread, one, me)).toMatchObject({ changed: 1, counts: { unread: 3 } });
  expect(await invoke(service, method.archive, one, me)).toMatchObject({
    changed: 1,
    counts: { total: 2, archived: 1 },
  });
  expect(await invoke(service, method.unarchive, one, me)).toMatchObject({ changed: 1, counts: { archived: 0 } });
  const snoozed = await invoke(service, method.snooze, { ...one, snoozeTime }, me);
  expect(snoozed).toMatchObject({ changed: 1, counts: { total: 2, unread: 2, snoozed: 1 } });
  const view = InboxFilter_View.SNOOZED;
  const { entries } = await invoke(service, method.listEntries, { filter: { view } }, me);
  expect(entries).toMatchObject([{ notificationId: one.notificationIds[0], snoozeTime }]);
  expect(await invoke(service, method.unsnooze, one, me)).toMatchObject({
    changed: 1,
    counts: { total: 3, snoozed: 0 },
  });
  expect(await invoke(service, method.markSeen, { throughSequence: 2n }, me)).toMatchObject({ counts: { unseen: 1 } });
  expect(await invoke(service, method.markSeen, {}, me)).toMatchObject({ counts: { unseen: 0 } });
  expect(await invoke(service, method.markAllRead, {}, me)).toMatchObject({ changed: 3, counts: { unread: 0 } });
  expect(await invoke(service, method.deleteEntries, one, me)).toMatchObject({ changed: 1, counts: { total: 2 } });
  expect(await invoke(service, method.clear, {}, me)).toMatchObject({ changed: 2, counts: { total: 0 } });
  expect(await invoke(service, method.clear, { archivedOnly: true }, me)).toMatchObject({ changed: 0 });
});

test("a key acts on the user it names, and the history tells who did", async () => {
  const owner = user();
  const notificationIds = await deliver(owner, 1);
  const { userId } = owner;
  await invoke(service, method.markRead, { userId, notificationIds }, key);
  const actors = await sql`select actor from timeline where notification_id = ${notificationIds[0]!} and status = 8`;
  expect([...actors]).toEqual([{ actor: key.actor }]);
  expect(await invoke(service, method.getCounts, { userId }, key)).toMatchObject({ counts: { unread: 0, total: 1 } });
});
