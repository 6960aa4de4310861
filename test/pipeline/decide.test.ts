import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import postgres from "postgres";
import { afterAll, describe, expect, test } from "vitest";
import { Dimension } from "#gen/posthorn/v1/analytics_service_pb.ts";
import { Channel, Priority, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { NotificationFilterSchema, SendResponse } from "#gen/posthorn/v1/send_service_pb.ts";
import { platformOfFile } from "../support/platform.ts";
import { wrongInAppCounters, wrongInboxes } from "../support/recount.ts";
import { refusalOf } from "../support/refusal.ts";
import { testServices } from "../support/services.ts";
import { openReader } from "../support/stream-reader.ts";
import { until } from "../support/until.ts";

const services = await testServices();
const a = await platformOfFile({ services });
const b = await platformOfFile({ services, tenant: a.tenant });
const onB = b.clients(a.tenant.apiKey);
const sql = postgres(services.databaseUrl, { max: 2, onnotice: () => undefined });
afterAll(() => sql.end());

let users = 0;
const someone = () => `user-${++users}`;
const hi = { title: "Hi" };
const later = (ms: number) => timestampFromDate(new Date(Date.now() + ms));
const scheduled = (ms = 3_600_000) => ({ schedule: { case: "scheduleTime" as const, value: later(ms) } });
const idOf = (response: SendResponse) => response.results[0]?.notificationId ?? "";
const get = async (id: string) => {
  const { notification, timeline } = await a.key.send.getNotification({ id });
  if (notification === undefined) throw new Error("no notification");
  return { ...notification, timeline };
};
/** Spreads what races: all at once would be decided in one chunk. */
const moment = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const isTerminal = (status: Status) => status >= Status.DELIVERED;
const settled = (id: string) =>
  until(
    () => get(id),
    ({ status }) => isTerminal(status),
  );
const allSettled = (tenantId = a.tenant.tenantId) =>
  until(
    async () =>
      (
        await sql<
          [{ n: number }]
        >`select count(*)::int as n from notifications where tenant_id = ${tenantId} and status = 1`
      )[0].n,
    (n) => n === 0,
  );

describe("an inbox", () => {
  test("has sequences without holes, whoever delivers into it at the same time", async () => {
    const userIds = Array.from({ length: 25 }, someone);
    await Promise.all(
      Array.from({ length: 60 }, (_, n) => {
        const clients = n % 2 === 0 ? a.key : onB;
        const priority = [Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.CRITICAL][n % 4] as Priority;
        return n % 3 === 0
          ? clients.send.send({ to: { userIds }, content: hi, priority })
          : clients.send.sendBatch({
              items: userIds.map((userId) => ({ to: { userIds: [userId] }, content: hi, priority })),
            });
      }),
    );
    await allSettled();
    expect(await wrongInboxes(sql)).toEqual([]);
    const heads = await sql`select user_id, seq::int, unread from inbox_heads where user_id = any(${userIds})`;
    expect(heads).toHaveLength(25);
    for (const head of heads) expect(head).toMatchObject({ seq: 60, unread: 60 });
  });
});

describe("a cancel and a delivery", () => {
  test("at the same time: one of them happens, and everybody says so", async () => {
    const userId = someone();
    const outcomes = await Promise.all(
      Array.from({ length: 120 }, async (_, n) => {
        await moment(n * 3);
        const id = idOf(await a.key.send.send({ to: { userIds: [userId] }, content: hi }));
        await moment(n % 16);
        if (n > 110) await settled(id);
        const cancelled = await onB.send.cancelNotification({ id }).then(
          ({ notification }) => notification?.status === Status.CANCELLED,
          () => false,
        );
        return { id, cancelled };
      }),
    );
    await allSettled();
    const delivered = await sql`select notification_id as id from inbox where user_id = ${userId}`;
    const inInbox = new Set(delivered.map(({ id }) => id));
    for (const { id, cancelled } of outcomes) {
      const { status, timeline } = await get(id);
      expect([status, inInbox.has(id)]).toEqual(cancelled ? [Status.CANCELLED, false] : [Status.DELIVERED, true]);
      expect(timeline.filter((entry) => isTerminal(entry.status))).toHaveLength(1);
    }
    // Else the race was none.
    const wins = outcomes.filter(({ cancelled }) => cancelled).length;
    expect(wins).toBeGreaterThan(0);
    expect(wins).toBeLessThan(120);
    expect(await wrongInboxes(sql)).toEqual([]);
  });

  test("a cancel is told to the user's streams that asked for statuses", async () => {
    const userId = someone();
    await using reader = openReader(await a.clientsFor(userId), { includeStatus: true });
    await reader.next("caughtUp");
    const ids = [1, 2, 3].map(() =>
      a.key.send.send({ to: { userIds: [userId] }, content: hi, ...scheduled() }).then(idOf),
    );
    const [one = "", two = "", three = ""] = await Promise.all(ids);
    await onB.send.cancelNotification({ id: one });
    expect(await reader.next("status")).toMatchObject({
      notificationId: one,
      status: Status.CANCELLED,
      reason: Reason.CANCELLED,
    });
    await a.key.send.cancelNotifications({ ids: [two] });
    expect(await reader.next("status")).toMatchObject({ notificationId: two, status: Status.CANCELLED });
    await a.key.send.cancelNotifications({ filter: { userId } });
    expect(await reader.next("status")).toMatchObject({ notificationId: three, status: Status.CANCELLED });
  });
});

describe("an update", () => {
  const update = (id: string, change: object) => a.key.send.updateNotification({ id, ...change });
  const waiting = async () =>
    idOf(await a.key.send.send({ to: { userIds: [someone()] }, content: hi, tags: ["a"], ...scheduled() }));

  test("that succeeded is what arrives, on the stream and in the inbox", async () => {
    const userId = someone();
    await using reader = openReader(await a.clientsFor(userId));
    await reader.next("caughtUp");
    const outcomes = await Promise.all(
      Array.from({ length: 80 }, async (_, n) => {
        await moment(n * 3);
        const id = idOf(await a.key.send.send({ to: { userIds: [userId] }, content: { title: "old" } }));
        await moment(n % 16);
        if (n > 75) await settled(id);
        const updated = await onB.send.updateNotification({ id, content: { title: "new" } }).then(
          () => true,
          () => false,
        );
        return [id, updated] as const;
      }),
    );
    for (const [id, updated] of outcomes) {
      await until(
        async () => reader.all("notification"),
        (all) => all.some(({ entry }) => entry?.notificationId === id),
      );
      const [arrived] = reader.all("notification").filter(({ entry }) => entry?.notificationId === id);
      expect([updated, arrived?.entry?.content?.title]).toEqual([updated, updated ? "new" : "old"]);
      expect((await get(id)).content?.title).toBe(updated ? "new" : "old");
    }
    expect(new Set(outcomes.map(([, updated]) => updated)).size).toBe(2);
  });

  test("changes what its mask names and nothing else", async () => {
    const id = await waiting();
    const expireTime = later(7_200_000);
    await update(id, { content: { title: "New" }, tags: ["x", "y"], updateMask: { paths: ["tags"] } });
    expect(await get(id)).toMatchObject({ tags: ["x", "y"], content: { title: "Hi" } });
    await update(id, { expireTime, tags: [] });
    expect(await get(id)).toMatchObject({ tags: ["x", "y"], expireTime, content: { title: "Hi" } });
    await update(id, { updateMask: { paths: ["tags", "expire_time"] } });
    const cleared = await get(id);
    expect([cleared.tags, cleared.expireTime]).toEqual([[], undefined]);
  });

  test("puts it off, brings it forward, and delivers at once when the time is taken away", async () => {
    const id = await waiting();
    const scheduleTime = later(7_000_000);
    const { notification } = await update(id, { scheduleTime });
    expect(notification).toMatchObject({ status: Status.SCHEDULED, scheduleTime, holdTime: scheduleTime });
    await update(id, { updateMask: { paths: ["schedule_time"] } });
    expect((await settled(id)).status).toBe(Status.DELIVERED);
    const past = await waiting();
    await update(past, { scheduleTime: later(-1000) });
    expect((await settled(past)).status).toBe(Status.DELIVERED);
  });

  test("is refused where a Send would be", async () => {
    const id = await waiting();
    const refused = async (change: object) => {
      const { code, reason, fields } = await refusalOf(update(id, change));
      return [code, reason, fields];
    };
    expect(await refused({ scheduleTime: { seconds: 2n ** 40n } })).toEqual([3, "INVALID_REQUEST", ["schedule_time"]]);
    expect(await refused({ scheduleTime: later(401 * 86_400_000) })).toEqual([3, "INVALID_REQUEST", ["schedule_time"]]);
    expect(await refused({ expireTime: later(500 * 86_400_000) })).toEqual([3, "INVALID_REQUEST", ["expire_time"]]);
    expect(await refused({ expireTime: later(1000) })).toEqual([3, "INVALID_REQUEST", ["expire_time"]]);
    expect(await refused({ content: { title: "Hi", data: { n: Number.NaN } } })).toEqual([
      3,
      "INVALID_REQUEST",
      ["content.data"],
    ]);
    expect(await refused({ updateMask: { paths: ["user_id"] } })).toEqual([3, "INVALID_FIELD_MASK", expect.anything()]);
    expect(await refused({ updateMask: { paths: ["id"] } })).toEqual([3, "INVALID_FIELD_MASK", ["update_mask"]]);
    expect((await refused({}))[0]).toBe(3);
  });

  test("of what has ended is refused, saying how it stands", async () => {
    const id = idOf(
      await a.key.send.send({ to: { userIds: [someone()] }, content: hi, waitForDecision: { seconds: 5n } }),
    );
    const refusal = await refusalOf(update(id, { content: { title: "New" } }));
    expect(refusal).toMatchObject({ code: 9, reason: "NOTIFICATION_NOT_OPEN", metadata: { status: "DELIVERED" } });
    expect(await refusalOf(a.key.send.cancelNotification({ id }))).toMatchObject({
      code: 9,
      reason: "NOTIFICATION_NOT_OPEN",
    });
  });

  test("of a notification of another tenant finds nothing", async () => {
    const other = a.clients((await a.newTenant()).apiKey);
    const id = await waiting();
    expect(await refusalOf(other.send.updateNotification({ id, content: hi }))).toMatchObject({
      code: 5,
      metadata: { resource: "notification" },
    });
    expect((await refusalOf(other.send.cancelNotification({ id }))).code).toBe(5);
    expect((await refusalOf(other.send.getNotification({ id }))).code).toBe(5);
    expect((await other.send.cancelNotifications({ ids: [id] })).cancelled).toBe(0);
    expect((await get(id)).status).toBe(Status.SCHEDULED);
  });
});

describe("a list", () => {
  test("has every notification once, newest first, also while others are sent", async () => {
    const userId = someone();
    const send = () => a.key.send.send({ to: { userIds: [userId] }, content: hi });
    const before = await Promise.all(Array.from({ length: 45 }, send));
    const seen: string[] = [];
    let pageToken = "";
    do {
      const page = await onB.send.listNotifications({ filter: { userId }, pageSize: 10, pageToken });
      seen.push(...page.notifications.map(({ id }) => id));
      await Promise.all(Array.from({ length: 5 }, send));
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    expect(seen).toEqual(seen.toSorted().toReversed());
    expect(new Set(seen)).toEqual(new Set(before.map(idOf)));
  });

  test("is narrowed by every filter, and by all of them together", async () => {
    const tenant = await a.newTenant();
    const { send, types } = a.clients(tenant.apiKey);
    await types.createType({
      type: { key: "order", category: "shop", defaultPriority: Priority.NORMAL, defaultChannels: [Channel.IN_APP] },
    });
    const from = later(0);
    const one = idOf(await send.send({ to: { userIds: ["u1"] }, content: hi, tags: ["red"] }));
    const two = idOf(await send.send({ to: { userIds: ["u1"] }, type: "order", content: hi, tags: ["red", "blue"] }));
    await moment(3);
    const middle = later(0);
    const three = idOf(await send.send({ to: { userIds: ["u2"] }, type: "order", content: hi, ...scheduled() }));
    await allSettled(tenant.tenantId);
    const list = async (filter: MessageInitShape<typeof NotificationFilterSchema>) =>
      (await send.listNotifications({ filter })).notifications.map(({ id }) => id).toReversed();
    expect(await list({})).toEqual([one, two, three]);
    expect(await list({ userId: "u1" })).toEqual([one, two]);
    expect(await list({ types: ["order"] })).toEqual([two, three]);
    expect(await list({ types: ["order", "general"] })).toEqual([one, two, three]);
    expect(await list({ statuses: [Status.DELIVERED] })).toEqual([one, two]);
    expect(await list({ statuses: [Status.SCHEDULED] })).toEqual([three]);
    expect(await list({ statuses: [Status.SCHEDULED, Status.DELIVERED] })).toEqual([one, two, three]);
    expect(await list({ statuses: [Status.FAILED] })).toEqual([]);
    expect(await list({ tag: "red" })).toEqual([one, two]);
    expect(await list({ tag: "blue" })).toEqual([two]);
    expect(await list({ startTime: middle })).toEqual([three]);
    expect(await list({ startTime: from, endTime: middle })).toEqual([one, two]);
    expect(await list({ startTime: { seconds: -62_135_596_800n } })).toEqual([one, two, three]);
    expect(await list({ endTime: { seconds: -1n } })).toEqual([]);
    expect(await list({ startTime: { seconds: 253_402_300_799n } })).toEqual([]);
    expect(await list({ userId: "u1", types: ["order"], statuses: [Status.DELIVERED], tag: "red" })).toEqual([two]);
    expect((await refusalOf(send.listNotifications({ filter: { endTime: { seconds: 2n ** 50n } } }))).code).toBe(3);
  });

  test("refuses a page token with other filters", async () => {
    const userId = someone();
    await a.key.send.sendBatch({ items: [1, 2, 3].map(() => ({ to: { userIds: [userId] }, content: hi })) });
    const { nextPageToken: pageToken } = await a.key.send.listNotifications({ filter: { userId }, pageSize: 2 });
    const refusal = await refusalOf(
      a.key.send.listNotifications({ filter: { userId, tag: "x" }, pageSize: 2, pageToken }),
    );
    expect(refusal).toMatchObject({ code: 3, reason: "INVALID_PAGE_TOKEN" });
  });
});

test("many are cancelled by a filter, and what is delivered is left alone", async () => {
  const tenant = await a.newTenant();
  const { send } = a.clients(tenant.apiKey);
  const userIds = Array.from({ length: 700 }, (_, n) => `u${n}`);
  await send.send({ to: { userIds }, content: hi, tags: ["old"] });
  await send.send({ to: { userIds }, content: hi, tags: ["sale"], ...scheduled() });
  await send.send({ to: { userIds }, content: hi, tags: ["sale"], ...scheduled() });
  await send.send({ to: { userIds: ["u0"] }, content: hi, tags: ["other"], ...scheduled() });
  await allSettled(tenant.tenantId);
  expect((await refusalOf(send.cancelNotifications({ filter: {} }))).fields).toEqual(["filter"]);
  expect(await send.cancelNotifications({ filter: { tag: "sale" } })).toMatchObject({ cancelled: 1400, more: false });
  expect(await send.cancelNotifications({ filter: { tag: "sale" } })).toMatchObject({ cancelled: 0, more: false });
  expect((await send.cancelNotifications({ filter: { tag: "old" } })).cancelled).toBe(0);
  const open = await send.listNotifications({ filter: { statuses: [Status.SCHEDULED] } });
  expect(open.notifications.map(({ tags }) => tags)).toEqual([["other"]]);
  const [again] = open.notifications;
  expect((await send.cancelNotifications({ ids: [again?.id ?? "", again?.id ?? ""] })).cancelled).toBe(1);
  expect((await send.cancelNotification({ id: again?.id ?? "" })).notification?.status).toBe(Status.CANCELLED);
  expect((await historyOf(send, again?.id ?? "")).map(({ status, actor }) => [status, actor.split(":")[0]])).toEqual([
    [Status.ACCEPTED, "posthorn"],
    [Status.SCHEDULED, "posthorn"],
    [Status.CANCELLED, "key"],
  ]);
});

async function historyOf(send: typeof a.key.send, id: string) {
  return (await send.getNotification({ id })).timeline;
}

test("a notification tells its latency, its attempts and its history", async () => {
  const sent = await a.key.send.send({
    to: { userIds: [someone()] },
    content: hi,
    senderId: "boss",
    dedupKey: "d",
    collapseKey: "c",
    waitForDecision: { seconds: 5n },
  });
  const found = await get(idOf(sent));
  expect(found).toMatchObject({
    type: "general",
    status: Status.DELIVERED,
    channels: [Channel.IN_APP],
    attempts: 1,
    senderId: "boss",
    dedupKey: "d",
    collapseKey: "c",
    verdicts: [{ channel: Channel.IN_APP, kind: 1 }],
  });
  const [createdAt, deliveredAt] = [found.createTime, found.deliverTime].map(
    (time) => time && timestampDate(time).getTime(),
  );
  expect(Number(found.latency?.seconds) * 1000 + (found.latency?.nanos ?? 0) / 1e6).toBe(
    (deliveredAt ?? 0) - (createdAt ?? 0),
  );
  expect(found.timeline.map(({ status, channel }) => [status, channel])).toEqual([
    [Status.ACCEPTED, Channel.UNSPECIFIED],
    [Status.DELIVERED, Channel.IN_APP],
  ]);
});

test("counters equal a recount of the notifications and their timelines, after all of the above", async () => {
  await allSettled();
  expect(await wrongInAppCounters(sql)).toEqual([]);
  const { counters } = await a.key.analytics.queryCounters({
    startTime: later(-7_200_000),
    groupBy: [Dimension.TYPE, Dimension.STATUS],
  });
  const counted = Object.fromEntries(counters.map(({ type, status, count }) => [`${type} ${status}`, Number(count)]));
  // Releases write ACCEPTED into the timeline again; accepted is counted once.
  const recount = await sql`
    select type || ' 1' as key, count(*)::int as n from notifications where tenant_id = ${a.tenant.tenantId} group by type
    union all
    select n.type || ' ' || t.status, count(*)::int from timeline t
    join notifications n on n.tenant_id = t.tenant_id and n.id = t.notification_id
    where t.tenant_id = ${a.tenant.tenantId} and t.status <> 1 group by n.type, t.status`;
  expect(counted).toEqual(Object.fromEntries(recount.map(({ key, n }) => [key, n])));
  expect(Object.keys(counted).length).toBeGreaterThan(3);
});

test("an emergency contact gets through to a user who is not to be disturbed; others wait, and are let in with them", async () => {
  const userId = someone();
  const user = await a.clientsFor(userId);
  const always = { startTime: "00:00", endTime: "00:00", allowEmergencyContacts: true };
  const periods = Array.from({ length: 7 }, (_, dayOfWeek) => ({ ...always, dayOfWeek, id: `day-${dayOfWeek}` }));
  const set = { doNotDisturb: { enabled: true, periods }, emergencyContacts: { enabled: true, userIds: ["mum"] } };
  await user.preferences.updatePreferences({ preferences: set });
  const send = async (senderId: string) => {
    const request = { to: { userIds: [userId] }, content: hi, senderId, waitForDecision: { seconds: 10n } };
    return (await onB.send.send(request)).results[0];
  };
  expect(await send("mum")).toMatchObject({ status: Status.DELIVERED });
  const boss = await send("boss");
  expect(boss).toMatchObject({ status: Status.HELD, verdicts: [{ reason: Reason.DO_NOT_DISTURB }] });
  const userIds = ["mum", "boss"];
  const { reconciled } = await user.preferences.updatePreferences({ preferences: { emergencyContacts: { userIds } } });
  expect(reconciled).toMatchObject({ released: 1 });
  expect(await settled(boss?.notificationId ?? "")).toMatchObject({ status: Status.DELIVERED });

  const twice = { doNotDisturb: { periods: periods.slice(0, 2).map((period) => ({ ...period, id: "same" })) } };
  const refused = await refusalOf(user.preferences.updatePreferences({ preferences: twice }));
  expect(refused).toMatchObject({ reason: "INVALID_REQUEST", fields: ["preferences.do_not_disturb"] });
  const tooMany = { emergencyContacts: { userIds: Array.from({ length: 21 }, (_, n) => `u${n}`) } };
  expect((await refusalOf(user.preferences.updatePreferences({ preferences: tooMany }))).fields).toEqual([
    "preferences.emergency_contacts.user_ids",
  ]);
});
