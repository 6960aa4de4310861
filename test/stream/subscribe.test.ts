import { timestampDate } from "@bufbuild/protobuf/wkt";
import postgres from "postgres";
import { afterAll, describe, expect, test } from "vitest";
import { Scope } from "#gen/posthorn/v1/admin_service_pb.ts";
import { Channel, Priority, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import {
  AckRequest_Kind,
  InboxChanged_Change,
  Reconnect_Cause,
  Reset_Cause,
} from "#gen/posthorn/v1/stream_service_pb.ts";
import { newIds } from "#src/ids.ts";
import { openStore } from "#src/store/store.ts";
import { encodeCursor } from "#src/stream/cursor.ts";
import { arrive } from "../support/arrive.ts";
import { OPERATOR_KEY, platformOfFile, startTestPlatform } from "../support/platform.ts";
import { refusalOf, toRefusal } from "../support/refusal.ts";
import { testServices } from "../support/services.ts";
import { openReader, type Reader } from "../support/stream-reader.ts";
import { until } from "../support/until.ts";

const services = await testServices();
const env = { POSTHORN_STREAM_HEARTBEAT_MS: "400", POSTHORN_STREAM_MAX_PER_USER: "3" };
const a = await platformOfFile({ services, env });
const b = await platformOfFile({ services, env, tenant: a.tenant });
const { tenantId } = a.tenant;
const sql = postgres(services.databaseUrl, { max: 2, onnotice: () => undefined });
const store = openStore({
  url: services.databaseUrl,
  hotPoolSize: 2,
  poolSize: 1,
  statementTimeoutMs: 10_000,
  lockTimeoutMs: 5000,
  prepare: true,
});
afterAll(() => Promise.all([sql.end(), store[Symbol.asyncDispose]()]));

let users = 0;
const someone = () => `user-${++users}`;
const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, n) => from + n);
const send = (userId: string, count = 1, more: object = {}) =>
  a.key.send.sendBatch({
    items: range(1, count).map((n) => ({ to: { userIds: [userId] }, content: { title: `${n}` }, ...more })),
  });
const seqOf = async (userId: string) =>
  (
    await sql<{ seq: number }[]>`select seq::int from inbox_heads where tenant_id = ${tenantId} and user_id = ${userId}`
  )[0]?.seq ?? 0;
const delivered = (userId: string, count: number) =>
  until(
    () => seqOf(userId),
    (seq) => seq === count,
  );
/** Puts entries into an inbox whose news reach nobody. */
const arriveUnheard = (userId: string, count: number) => {
  const now = new Date();
  return arrive(
    { store, newId: newIds(() => now), now },
    tenantId,
    range(1, count).map(() => ({ userId })),
  );
};
const seen = (reader: Reader, sequence: number) =>
  reader.next("notification", ({ entry }) => Number(entry?.sequence) === sequence);
const kinds = (reader: Reader) => reader.events.map((event) => event.case);

describe("a stream begins", () => {
  test("with hello, and from now on without a cursor", async () => {
    const userId = someone();
    await send(userId, 3);
    await delivered(userId, 3);
    await using reader = openReader(await a.clientsFor(userId), { deviceId: "phone" });
    const hello = await reader.next("hello");
    expect(hello).toMatchObject({ deviceId: "phone", headSequence: 3n });
    expect(hello.heartbeatInterval).toMatchObject({ nanos: 400_000_000 });
    const caughtUp = await reader.next("caughtUp");
    expect(caughtUp.counts).toMatchObject({ unread: 3, total: 3 });
    await send(userId);
    await seen(reader, 4);
    expect(reader.sequences()).toEqual([4]);
  });

  test("with what was missed since its cursor, marked as such, and goes on live on any server", async () => {
    const userId = someone();
    const first = openReader(await a.clientsFor(userId));
    await first.next("caughtUp");
    await send(userId, 2);
    await seen(first, 2);
    await first.close();
    await send(userId, 250);
    await delivered(userId, 252);
    await using again = openReader(b.clients(a.tenant.apiKey), { userId, cursor: first.cursor() });
    await again.next("caughtUp");
    expect(again.all("notification").every(({ replayed, counts }) => replayed && counts === undefined)).toBe(true);
    expect(kinds(again)[0]).toBe("hello");
    await send(userId);
    const live = await seen(again, 253);
    expect(live).toMatchObject({ replayed: false, counts: { total: 253 } });
    expect(again.sequences()).toEqual(range(3, 253));
  });

  test("each with its own, when many come back at once and one user with two devices", async () => {
    const owners = range(1, 20).map((n) => ({ userId: someone(), total: n === 1 ? 700 : 3 * n, seq: n }));
    for (const { userId, total } of owners) await arriveUnheard(userId, total);
    const epochs = await sql<{ userId: string; epoch: number }[]>`
      select user_id as "userId", epoch from inbox_heads where tenant_id = ${tenantId}`;
    const streams = [...owners, { ...owners[0]!, seq: 350 }].map((owner) => {
      const epoch = epochs.find(({ userId }) => userId === owner.userId)?.epoch ?? 0;
      const cursor = encodeCursor({ epoch, seq: owner.seq });
      return { ...owner, reader: openReader(a.clients(a.tenant.apiKey), { userId: owner.userId, cursor }) };
    });
    for (const { reader, seq, total } of streams) {
      await reader.next("caughtUp");
      expect(reader.sequences()).toEqual(range(seq + 1, total));
      await reader.close();
    }
  });

  test("with the first entry ever, when it comes while the stream opens", async () => {
    const userId = someone();
    const clients = await a.clientsFor(userId);
    const readers = range(1, 3).map(() => openReader(clients));
    await Promise.all([send(userId, 5), ...readers.map((reader) => reader.next("caughtUp"))]);
    await delivered(userId, 5);
    await send(userId);
    for (const reader of readers) {
      await seen(reader, 6);
      const sequences = reader.sequences();
      expect(sequences).toEqual(range(sequences[0] ?? 0, 6));
      await reader.close();
    }
  });
});

test("clients that are cut again and again while much is sent miss nothing and get nothing twice", async () => {
  const userId = someone();
  const got: number[] = [];
  let cursor = "";
  const { token } = await a.key.admin.createUserToken({ userId });
  await using opening = openReader(a.clients(token));
  cursor = (await opening.next("caughtUp")).cursor;
  const sending = (async () => {
    for (let n = 0; n < 30; n++)
      await (n % 2 === 0 ? a : b).clients(a.tenant.apiKey).send.sendBatch({
        items: range(1, 20).map(() => ({ to: { userIds: [userId] }, content: { title: "Hi" } })),
      });
  })();
  for (let round = 0; got.length < 600; round++) {
    const connection = (round % 2 === 0 ? a : b).connection(token);
    const reader = openReader(connection, { cursor });
    const enough = 1 + (round % 7) * 9;
    await until(
      async () => reader.all("notification").length,
      (count) => count >= Math.min(enough, 600 - got.length),
    );
    connection.cut();
    await reader.ended;
    got.push(...reader.sequences());
    cursor = reader.cursor();
  }
  await sending;
  expect(got).toEqual(range(1, 600));
});

test("a burst many times larger than a stream's queue reaches a client that reads, on one stream", async () => {
  const userId = someone();
  await using reader = openReader(await a.clientsFor(userId));
  await reader.next("caughtUp");
  await send(userId, 2000);
  await seen(reader, 2000);
  expect(reader.sequences()).toEqual(range(1, 2000));
});

test("a client that does not read is closed, and resumes where it was", async () => {
  const userId = someone();
  const closings = async () =>
    Number((await (await fetch(`${a.platform.httpUrl}/metrics`)).text()).match(/slow_consumers\S* (\d+)/)?.[1] ?? 0);
  const closed = await closings();
  const release = Promise.withResolvers<void>();
  let reads = true;
  const slow = openReader(await a.clientsFor(userId), {}, () => (reads ? Promise.resolve() : release.promise));
  await slow.next("caughtUp");
  reads = false;
  await send(userId, 400, { content: { title: "Hi", body: "x".repeat(8000) } });
  await delivered(userId, 400);
  await until(closings, (count) => count > closed);
  release.resolve();
  expect(toRefusal((await slow.ended) as never)).toMatchObject({ code: 8, reason: "OVERLOADED" });
  const before = slow.sequences();
  expect(before).toEqual(range(1, before.length));
  expect(before.length).toBeLessThan(400);
  await using again = openReader(await a.clientsFor(userId), { cursor: slow.cursor() });
  await again.next("caughtUp");
  expect([...before, ...again.sequences()]).toEqual(range(1, 400));
});

describe("what was not heard", () => {
  test("is found by a heartbeat", async () => {
    const userId = someone();
    await using reader = openReader(await a.clientsFor(userId));
    await reader.next("caughtUp");
    await arriveUnheard(userId, 2);
    await seen(reader, 2);
    expect(reader.sequences()).toEqual([1, 2]);
  });
  test("is found by the next arrival, at once", async () => {
    const userId = someone();
    await using reader = openReader(await a.clientsFor(userId));
    await reader.next("caughtUp");
    await send(userId);
    await seen(reader, 1);
    await arriveUnheard(userId, 3);
    await send(userId);
    await seen(reader, 5);
    expect(reader.sequences()).toEqual(range(1, 5));
  });
  test("a heartbeat comes when nothing happens, with cursor and counts", async () => {
    const userId = someone();
    await send(userId);
    await delivered(userId, 1);
    await using reader = openReader(await a.clientsFor(userId));
    const { cursor } = await reader.next("caughtUp");
    expect(await reader.next("heartbeat")).toMatchObject({ cursor, headSequence: 1n, counts: { unread: 1 } });
  });
});

describe("a cursor that cannot go on", () => {
  const begun = async (count: number) => {
    const userId = someone();
    await arriveUnheard(userId, count);
    return { userId, clients: await a.clientsFor(userId) };
  };
  test.each([
    ["of an inbox that was erased", { epoch: 8, seq: 1 }, 3, Reset_Cause.NEW_EPOCH],
    ["ahead of the inbox", { epoch: 7, seq: 4 }, 3, Reset_Cause.NEW_EPOCH],
    ["too far behind", { epoch: 7, seq: 1 }, 1002, Reset_Cause.TOO_FAR_BEHIND],
  ])("%s is told so, and the stream goes on from the head", async (_, cursor, count, cause) => {
    const { userId, clients } = await begun(count);
    await using reader = openReader(clients, { cursor: encodeCursor(cursor) });
    const reset = await reader.next("reset");
    expect(reset).toMatchObject({ cause, counts: { total: count } });
    expect((await reader.next("caughtUp")).cursor).toBe(reset.cursor);
    await send(userId);
    await seen(reader, count + 1);
    expect(reader.sequences()).toEqual([count + 1]);
  });
  test("of trimmed history is told so", async () => {
    const { userId, clients } = await begun(5);
    await sql`update inbox_heads set trimmed_seq = 3 where user_id = ${userId}`;
    await using reader = openReader(clients, { cursor: encodeCursor({ epoch: 7, seq: 2 }) });
    expect((await reader.next("reset")).cause).toBe(Reset_Cause.TRIMMED);
    await using fine = openReader(clients, { cursor: encodeCursor({ epoch: 7, seq: 3 }) });
    await fine.next("caughtUp");
    expect(fine.sequences()).toEqual([4, 5]);
  });
  test("of an inbox erased under an open stream is told so", async () => {
    const { userId } = await begun(3);
    await a.key.users.upsertUser({ user: { id: userId } });
    // Not the user's own token, which ends with the user.
    await using reader = openReader(a.key, { userId, cursor: encodeCursor({ epoch: 7, seq: 0 }) });
    await reader.next("caughtUp");
    await a.key.users.deleteUser({ id: userId });
    await send(userId);
    expect((await reader.next("reset")).cause).toBe(Reset_Cause.NEW_EPOCH);
    await send(userId);
    await seen(reader, 2);
  });
  test("and is none of ours is refused", async () => {
    await using reader = openReader(await a.clientsFor(someone()), { cursor: "nonsense" });
    expect(toRefusal((await reader.ended) as never)).toMatchObject({ code: 3, fields: ["cursor"] });
  });
});

describe("filters", () => {
  test("let through what matches, with a cursor that passes over the rest", async () => {
    const userId = someone();
    await a.key.types.createType({
      type: { key: "order", category: "shop", defaultPriority: Priority.NORMAL, defaultChannels: [Channel.IN_APP] },
    });
    await using byType = openReader(await a.clientsFor(userId), { filter: { types: ["order"] } });
    await using urgent = openReader(await a.clientsFor(userId), { filter: { minimumPriority: Priority.HIGH } });
    await Promise.all([byType.next("caughtUp"), urgent.next("caughtUp")]);
    await send(userId, 2);
    await delivered(userId, 2);
    await send(userId, 1, { type: "order" });
    await delivered(userId, 3);
    await send(userId, 1, { priority: Priority.HIGH });
    await Promise.all([seen(byType, 3), seen(urgent, 4)]);
    await byType.next("heartbeat", ({ headSequence }) => headSequence === 4n);
    expect([byType.sequences(), urgent.sequences()]).toEqual([[3], [4]]);
    await Promise.all([byType.close(), urgent.close()]);
    await using again = openReader(await b.clientsFor(userId), { cursor: byType.cursor() });
    await again.next("caughtUp");
    expect(again.sequences()).toEqual([]);
    await using replayed = openReader(await a.clientsFor(userId), {
      cursor: encodeCursor({ epoch: 0, seq: 0 }),
      filter: { types: ["order"] },
    });
    await replayed.next("caughtUp");
    expect(replayed.sequences()).toEqual([3]);
  });
});

describe("several devices", () => {
  test("get the same, and hear what is done on another", async () => {
    const userId = someone();
    const clients = await a.clientsFor(userId);
    await using phone = openReader(clients, { deviceId: "phone", includeStatus: true });
    await using desk = openReader(b.clients((await b.key.admin.createUserToken({ userId })).token), {
      deviceId: "desk",
    });
    await Promise.all([phone.next("caughtUp"), desk.next("caughtUp")]);
    await send(userId, 2);
    const [one] = await Promise.all([seen(phone, 1), seen(desk, 2)]);
    await clients.inbox.markRead({ notificationIds: [one.entry?.notificationId ?? ""] });
    expect(await desk.next("inbox")).toMatchObject({ change: InboxChanged_Change.READ });
    await phone.next("status", ({ status }) => status === Status.READ);
    expect(desk.all("status")).toEqual([]);
    await clients.preferences.updatePreferences({
      preferences: { language: "de" },
      updateMask: { paths: ["language"] },
    });
    expect((await desk.next("preferences")).changedFields).toEqual(["language"]);
    await phone.next("preferences");
  });
  test("are as many as allowed, and room returns", async () => {
    const userId = someone();
    const clients = await a.clientsFor(userId);
    const readers = range(1, 3).map(() => openReader(clients));
    await Promise.all(readers.map((reader) => reader.next("caughtUp")));
    const tooMany = openReader(clients);
    expect(toRefusal((await tooMany.ended) as never)).toMatchObject({ code: 8, reason: "TOO_MANY_STREAMS" });
    await readers[0]?.close();
    await until(
      async () => {
        const next = openReader(clients);
        const opened = await Promise.race([next.next("hello").then(() => true), next.ended.then(() => false)]).catch(
          () => false,
        );
        if (!opened) return false;
        await next.close();
        return true;
      },
      (opened) => opened,
    );
    for (const reader of readers) await reader.close();
  });
});

describe("nobody else", () => {
  test("gets a user's events: not the same id in another tenant, nor another user", async () => {
    const userId = someone();
    const other = await a.newTenant();
    await using mine = openReader(await a.clientsFor(userId));
    await using theirs = openReader(await a.clientsFor(userId, other), { includeStatus: true });
    await using neighbour = openReader(await a.clientsFor(`${userId}.x`), { includeStatus: true });
    await Promise.all([mine, theirs, neighbour].map((reader) => reader.next("caughtUp")));
    await send(userId);
    await seen(mine, 1);
    await Promise.all([theirs.next("heartbeat"), neighbour.next("heartbeat")]);
    for (const reader of [theirs, neighbour])
      expect(new Set(kinds(reader))).toEqual(new Set(["hello", "caughtUp", "heartbeat"]));
  });
  test("may open it", async () => {
    await using reader = openReader(await a.clientsFor(someone()), { userId: someone() });
    expect(toRefusal((await reader.ended) as never)).toMatchObject({ code: 5 });
  });
  test.each(["a.b.*", ">", "*", "$SYS.>", "x:y/z%00"])("is reached by the id %s", async (userId) => {
    await using wild = openReader(a.clients(a.tenant.apiKey), { userId });
    await using plain = openReader(a.clients(a.tenant.apiKey), { userId: someone() });
    await Promise.all([wild.next("caughtUp"), plain.next("caughtUp")]);
    await send(userId);
    await seen(wild, 1);
    await plain.next("heartbeat");
    expect(plain.sequences()).toEqual([]);
  });
});

describe("statuses", () => {
  test("come to streams that asked: what was suppressed, and why", async () => {
    const userId = someone();
    const clients = await a.clientsFor(userId);
    await clients.preferences.updatePreferences({
      preferences: { enabled: false },
      updateMask: { paths: ["enabled"] },
    });
    await using reader = openReader(clients, { includeStatus: true });
    await reader.next("caughtUp");
    await send(userId);
    expect(await reader.next("status")).toMatchObject({ status: Status.SUPPRESSED, reason: Reason.USER_OPTED_OUT });
    expect(reader.sequences()).toEqual([]);
  });
});

describe("announcements", () => {
  const announce = (audience: object, title: string) =>
    a.key.stream.broadcast({ audience, content: { title } } as Parameters<typeof a.key.stream.broadcast>[0]);
  test("reach a user, a topic's members, a tenant, everybody; on every server, and nobody else", async () => {
    const [alice, bob] = [someone(), someone()];
    await a.key.topics.upsertTopic({ topic: { key: "news" } });
    await a.key.topics.addMembers({ key: "news", userIds: [bob] });
    const stranger = await a.newTenant();
    const onB = (token: string) => b.clients(token);
    await using one = openReader(await a.clientsFor(alice));
    await using two = openReader(onB((await a.key.admin.createUserToken({ userId: bob })).token));
    await using three = openReader(await a.clientsFor(alice, stranger));
    await Promise.all([one, two, three].map((reader) => reader.next("caughtUp")));
    await announce({ case: "userId", value: alice }, "to alice");
    await announce({ case: "topic", value: "news" }, "to news");
    await announce({ case: "tenant", value: true }, "to the tenant");
    const operator = a.clients(OPERATOR_KEY);
    await operator.stream.broadcast({ audience: { case: "allTenants", value: true }, content: { title: "to all" } });
    const titles = (reader: Reader) => reader.all("announcement").map(({ content }) => content?.title);
    await Promise.all(
      [one, two, three].map((reader) => reader.next("announcement", ({ content }) => content?.title === "to all")),
    );
    expect(titles(one)).toEqual(["to alice", "to the tenant", "to all"]);
    expect(titles(two)).toEqual(["to news", "to the tenant", "to all"]);
    expect(titles(three)).toEqual(["to all"]);
    expect(two.all("announcement")[0]).toMatchObject({ topic: "news", priority: Priority.NORMAL });
    expect((await refusalOf(announce({ case: "topic", value: "no-such" }, "x"))).code).toBe(5);
    expect((await refusalOf(announce({ case: "allTenants", value: true }, "x"))).code).toBe(7);
  });
  test("follow memberships as they change", async () => {
    const userId = someone();
    await a.key.topics.upsertTopic({ topic: { key: "club" } });
    await using reader = openReader(await b.clientsFor(userId));
    await reader.next("caughtUp");
    const heard = (title: string) => reader.all("announcement").some(({ content }) => content?.title === title);
    await a.key.topics.addMembers({ key: "club", userIds: [userId] });
    await until(
      async () => {
        await announce({ case: "topic", value: "club" }, "joined");
        return heard("joined");
      },
      (is) => is,
    );
    await a.key.topics.removeMembers({ key: "club", userIds: [userId] });
    let n = 0;
    // Until one does not come: the same user hears what follows it.
    await until(
      async () => {
        const title = `left ${++n}`;
        await announce({ case: "topic", value: "club" }, title);
        await announce({ case: "userId", value: userId }, `after ${n}`);
        await reader.next("announcement", ({ content }) => content?.title === `after ${n}`);
        return heard(title);
      },
      (is) => !is,
    );
  });
  test("are filtered", async () => {
    const userId = someone();
    await using reader = openReader(await a.clientsFor(userId), { filter: { categories: ["outage"] } });
    await reader.next("caughtUp");
    const to = { case: "userId" as const, value: userId };
    await a.key.stream.broadcast({ audience: to, content: { title: "no" }, category: "news" });
    await a.key.stream.broadcast({ audience: to, content: { title: "yes" }, category: "outage" });
    await reader.next("announcement");
    expect(reader.all("announcement").map(({ content }) => content?.title)).toEqual(["yes"]);
  });
});

describe("presence and acks", () => {
  const presenceOf = async (userId: string) => (await b.key.stream.getPresence({ userIds: [userId] })).presences[0];
  test("a user is online while a stream is open on any server, and remembered after", async () => {
    const userId = someone();
    expect(await presenceOf(userId)).toMatchObject({ userId, online: false, devices: [] });
    const reader = openReader(await a.clientsFor(userId), { deviceId: "phone" });
    await reader.next("caughtUp");
    await until(
      () => presenceOf(userId),
      (presence) => presence?.online === true,
    );
    await reader.close();
    const after = await until(
      () => presenceOf(userId),
      (presence) => presence?.online === false,
    );
    expect(after?.devices).toMatchObject([{ deviceId: "phone", online: false }]);
    expect(after?.lastSeenTime && Date.now() - timestampDate(after.lastSeenTime).getTime()).toBeLessThan(5000);
  });
  test("who was on a server that stops is offline at once", async () => {
    await using node = await startTestPlatform({ services, tenant: a.tenant, roles: ["api", "stream"], env });
    const userId = someone();
    const reader = openReader(await node.clientsFor(userId), { deviceId: "phone" });
    await reader.next("caughtUp");
    expect(await presenceOf(userId)).toMatchObject({ online: true });
    await node[Symbol.asyncDispose]();
    expect(await presenceOf(userId)).toMatchObject({ online: false });
  });
  test("streams without a device's name are remembered as one", async () => {
    const userId = someone();
    for (let n = 0; n < 3; n++) {
      const reader = openReader(await a.clientsFor(userId), {});
      await reader.next("caughtUp");
      await until(
        () => presenceOf(userId),
        (presence) => presence?.online === true,
      );
      await reader.close();
      await until(
        () => presenceOf(userId),
        (presence) => presence?.online === false,
      );
    }
    expect((await presenceOf(userId))?.devices).toMatchObject([{ deviceId: "auto", online: false }]);
  });
  test("received is remembered for each device and never goes back, seen resets the badge", async () => {
    const userId = someone();
    const clients = await a.clientsFor(userId);
    await send(userId, 5);
    await delivered(userId, 5);
    const ack = (throughSequence: number, kind: AckRequest_Kind = AckRequest_Kind.RECEIVED) =>
      clients.stream.ack({ deviceId: "phone", throughSequence: BigInt(throughSequence), kind });
    expect((await ack(3)).counts).toMatchObject({ unseen: 5 });
    await Promise.all([...range(1, 5), ...range(1, 4)].map((n) => ack(n)));
    expect((await presenceOf(userId))?.devices).toMatchObject([{ deviceId: "phone", receivedSequence: 5n }]);
    expect((await ack(4, AckRequest_Kind.SEEN)).counts).toMatchObject({ unseen: 1, unread: 5 });
    expect((await ack(2, AckRequest_Kind.SEEN)).counts).toMatchObject({ unseen: 1 });
    expect(await refusalOf(ack(6))).toMatchObject({ code: 3, fields: ["through_sequence"] });
  });
});

describe("a stream ends", () => {
  const own = (settings: Record<string, string>) =>
    startTestPlatform({ services, tenant: a.tenant, roles: ["api", "stream"], env: { ...env, ...settings } });
  test("at its greatest age, with advice and a cursor to go on with", async () => {
    await using node = await own({ POSTHORN_STREAM_MAX_AGE_MS: "1000" });
    const userId = someone();
    await using reader = openReader(await node.clientsFor(userId));
    const hello = await reader.next("hello");
    expect(
      timestampDate(hello.closeTime as never).getTime() - timestampDate(hello.serverTime as never).getTime(),
    ).toBeLessThanOrEqual(1000);
    const { cursor } = await reader.next("caughtUp");
    expect(await reader.next("reconnect")).toMatchObject({ cause: Reconnect_Cause.MAX_AGE, cursor });
    expect(await reader.ended).toBeUndefined();
  });
  test("when the server drains: each is sent elsewhere, and no new one is taken", async () => {
    const node = await own({ POSTHORN_STREAM_DRAIN_MS: "300" });
    const readers = await Promise.all(range(1, 5).map(async () => openReader(await node.clientsFor(someone()))));
    await Promise.all(readers.map((reader) => reader.next("caughtUp")));
    const late = await node.clientsFor(someone());
    const drained = node.platform.drain();
    for (const reader of readers) {
      const { cause, after } = await reader.next("reconnect");
      expect(cause).toBe(Reconnect_Cause.DRAIN);
      expect(after?.seconds).toBe(0n);
      expect(await reader.ended).toBeUndefined();
    }
    expect(toRefusal((await openReader(late).ended) as never).code).toBe(14);
    await drained;
    await node[Symbol.asyncDispose]();
  });
  test("with its token, after a warning", async () => {
    let passed = 0;
    await using node = await startTestPlatform({
      services,
      tenant: a.tenant,
      roles: ["api", "stream"],
      env: { ...env, POSTHORN_AUTH_CLOCK_SKEW_SECONDS: "0" },
      clock: () => new Date(Date.now() + passed),
    });
    const userId = someone();
    const { token, expireTime } = await node.key.admin.createUserToken({ userId, ttl: { seconds: 60n } });
    await using reader = openReader(node.clients(token));
    expect((await reader.next("tokenExpiring")).expireTime).toEqual(expireTime);
    expect(kinds(reader)[0]).toBe("hello");
    passed = 61_000;
    expect(toRefusal((await reader.ended) as never)).toMatchObject({ code: 16, reason: "CREDENTIAL_EXPIRED" });
  });
  test("at once when its key is revoked", async () => {
    const { apiKey, secret } = await a.key.admin.createApiKey({ displayName: "short-lived", scopes: [Scope.STREAM] });
    await using reader = openReader(b.clients(secret), { userId: someone() });
    await reader.next("caughtUp");
    await a.key.admin.revokeApiKey({ id: apiKey?.id ?? "" });
    expect(toRefusal((await reader.ended) as never)).toMatchObject({ code: 16, reason: "CREDENTIAL_INVALID" });
  });
});
