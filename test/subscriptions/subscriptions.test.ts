import type { JsonObject } from "@bufbuild/protobuf";
import postgres from "postgres";
import { afterAll, describe, expect, test } from "vitest";
import { Priority, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { PreferenceLevel } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { type Clients, platformOfFile } from "../support/platform.ts";
import { refusalOf } from "../support/refusal.ts";
import { testServices } from "../support/services.ts";
import { openReader } from "../support/stream-reader.ts";
import { until } from "../support/until.ts";
import { wrongSuppressions } from "../support/waiting.ts";

const services = await testServices();
const a = await platformOfFile({ services });
const b = await platformOfFile({ services, tenant: a.tenant });
const onB = b.clients(a.tenant.apiKey);
const sql = postgres(services.databaseUrl, { max: 1, onnotice: () => undefined });
afterAll(() => sql.end());

let users = 0;
async function someone() {
  const userId = `user-${++users}`;
  return { userId, own: await a.clientsFor(userId) };
}
await a.key.types.createType({ type: { key: "job", displayName: "Job", category: "jobs" } });
await a.key.types.createType({ type: { key: "advice", displayName: "Advice", category: "jobs" } });
await a.key.types.createType({ type: { key: "rare", displayName: "Rare", category: "other", optIn: true } });

const type = (value: string) => ({ case: "type", value }) as const;
const topic = (value: string) => ({ case: "topic", value }) as const;
const category = (value: string) => ({ case: "category", value }) as const;
const subscribe = async (
  own: Clients,
  target: ReturnType<typeof type | typeof topic | typeof category>,
  filter = "",
) => {
  const { subscription } = await own.preferences.createSubscription({ subscription: { target, filter } });
  if (subscription === undefined) throw new Error("no subscription");
  return subscription;
};
const inAnHour = () =>
  ({ case: "scheduleTime", value: { seconds: BigInt(Math.floor(Date.now() / 1000) + 3600) } }) as const;
type Sent = { type?: string; data?: JsonObject; priority?: Priority };
async function send(to: string, { data, ...more }: Sent, through: Clients = a.key) {
  const { results } = await through.send.send({
    to: { userIds: [to] },
    type: "job",
    content: { title: "Hi", ...(data === undefined ? {} : { data }) },
    waitForDecision: { seconds: 10n },
    ...more,
  });
  const [result] = results;
  return result?.status === Status.DELIVERED ? "delivered" : result?.verdicts[0]?.reason;
}

describe("what a user is subscribed to", () => {
  test("is created, got, listed in pages, changed and deleted", async () => {
    const { own } = await someone();
    const made = [];
    for (const filter of ["priority > 1", "priority > 2", "priority > 3"])
      made.push(await subscribe(own, type("job"), filter));
    const first = await own.preferences.listSubscriptions({ pageSize: 2 });
    expect(first.subscriptions).toEqual(made.slice(0, 2));
    const second = await own.preferences.listSubscriptions({ pageSize: 2, pageToken: first.nextPageToken });
    expect(second).toMatchObject({ subscriptions: [made[2]], nextPageToken: "" });
    const { id: subscriptionId, createTime } = made[1]!;
    const { subscription } = await own.preferences.updateSubscription({ subscriptionId, filter: "true" });
    expect(subscription).toMatchObject({ id: subscriptionId, target: type("job"), filter: "true", createTime });
    expect(await own.preferences.getSubscription({ subscriptionId })).toMatchObject({ subscription });
    await own.preferences.deleteSubscription({ subscriptionId });
    await own.preferences.deleteSubscription({ subscriptionId });
    expect(await refusalOf(own.preferences.getSubscription({ subscriptionId }))).toMatchObject({ reason: "NOT_FOUND" });
    expect((await own.preferences.listSubscriptions({})).subscriptions).toEqual([made[0], made[2]]);
  });

  test("is there once, however often it is asked for, and however many ask at once", async () => {
    const { userId, own } = await someone();
    const all = await Promise.all(
      Array.from({ length: 12 }, (_, n) => {
        const subscription = { target: category("jobs"), filter: "true" };
        const by = n % 2 === 0 ? a.key : onB;
        return by.preferences.createSubscription({ userId, subscription, reason: "race" });
      }),
    );
    expect(new Set(all.map(({ subscription }) => subscription?.id)).size).toBe(1);
    expect((await own.preferences.listSubscriptions({})).subscriptions).toHaveLength(1);
  });

  test("is bounded, by target and in all, when many are made at once too", async () => {
    const { userId } = await someone();
    const create = (target: ReturnType<typeof category>, filter: string, through: Clients) =>
      through.preferences.createSubscription({ userId, subscription: { target, filter }, reason: "many" }).then(
        () => 1,
        () => 0,
      );
    const sum = async (made: Promise<number>[]) => (await Promise.all(made)).reduce((total, each) => total + each, 0);
    const ofOne = Array.from({ length: 16 }, (_, n) =>
      create(category("jobs"), `priority > ${n}`, n % 2 ? a.key : onB),
    );
    expect(await sum(ofOne)).toBe(10);
    const others = Array.from({ length: 60 }, (_, n) => create(category(`c${n}`), "", n % 2 ? a.key : onB));
    expect(await sum(others)).toBe(40);
    const [row] = await sql`select count(*)::int as n from subscriptions where user_id = ${userId}`;
    expect(row).toEqual({ n: 50 });
  });

  test("names what there is, with a filter that can be understood", async () => {
    const { own } = await someone();
    const create = (target: Parameters<typeof subscribe>[1], filter = "") => refusalOf(subscribe(own, target, filter));
    expect(await create(type("nothing"))).toMatchObject({ reason: "NOT_FOUND", metadata: { resource: "type" } });
    expect(await create(topic("nothing"))).toMatchObject({ reason: "NOT_FOUND", metadata: { resource: "topic" } });
    expect(await create(type("job"), "data.a.matches('x')")).toMatchObject({
      reason: "INVALID_REQUEST",
      fields: ["subscription.filter"],
      message: 'subscription.filter: at character 7: "matches" is not offered',
    });
    const { id: subscriptionId } = await subscribe(own, type("job"));
    expect(await refusalOf(own.preferences.updateSubscription({ subscriptionId, filter: "1 +" }))).toMatchObject({
      fields: ["filter"],
    });
  });

  test("is the user's: others see and change nothing, and keys say why", async () => {
    const [ann, bob] = [await someone(), await someone()];
    const { id: subscriptionId } = await subscribe(ann.own, type("job"), "true");
    for (const refused of [
      () => bob.own.preferences.getSubscription({ subscriptionId }),
      () => bob.own.preferences.updateSubscription({ subscriptionId, filter: "false" }),
      () => bob.own.preferences.getSubscription({ userId: ann.userId, subscriptionId }),
      () => bob.own.preferences.listSubscriptions({ userId: ann.userId }),
      () => bob.own.preferences.unsubscribeAll({ userId: ann.userId }),
    ])
      expect(await refusalOf(refused())).toMatchObject({ reason: "NOT_FOUND" });
    await bob.own.preferences.deleteSubscription({ subscriptionId });
    const change = { userId: ann.userId, subscriptionId, filter: "priority > 2" };
    expect(await refusalOf(a.key.preferences.updateSubscription(change))).toMatchObject({ reason: "INVALID_REQUEST" });
    await a.key.preferences.updateSubscription({ ...change, reason: "asked by phone" });
    await a.key.preferences.listSubscriptions({ userId: ann.userId });
    const audit = await sql`select action, reason, actor like 'key:%' as by_key from audit_entries
      where target = ${`user:${ann.userId}`} and action like 'subscription.%' order by id`;
    expect(audit).toEqual([
      { action: "subscription.create", reason: "", by_key: false },
      { action: "subscription.update", reason: "asked by phone", by_key: true },
      { action: "subscription.read", reason: "", by_key: true },
    ]);
    expect((await ann.own.preferences.listSubscriptions({})).subscriptions).toMatchObject([{ filter: "priority > 2" }]);
  });
});

describe("a filter", () => {
  test("decides by the data, on every node, as soon as it is set and only as long as it is", async () => {
    const { userId, own } = await someone();
    const rich = { data: { salary: 90_000 } };
    const poor = { data: { salary: 20_000 } };
    expect(await send(userId, poor)).toBe("delivered");
    const { id: subscriptionId } = await subscribe(own, type("job"), "data.salary > 50000");
    for (const through of [a.key, onB]) {
      await until(
        () => send(userId, poor, through),
        (became) => became === Reason.FILTERED,
        5000,
      );
      expect(await send(userId, rich, through)).toBe("delivered");
      expect(await send(userId, { ...poor, type: "advice" }, through)).toBe("delivered");
    }
    await own.preferences.updateSubscription({ subscriptionId, filter: "data.salary < 50000" });
    for (const through of [a.key, onB])
      await until(
        () => Promise.all([send(userId, rich, through), send(userId, poor, through)]),
        ([r, p]) => r === Reason.FILTERED && p === "delivered",
        5000,
      );
    await own.preferences.deleteSubscription({ subscriptionId });
    for (const through of [a.key, onB])
      await until(
        () => send(userId, rich, through),
        (became) => became === "delivered",
        5000,
      );
  });

  test("that fails does not match, and the verdict says so", async () => {
    const { userId, own } = await someone();
    await subscribe(own, category("jobs"), "data.salary > 50000");
    const verdictOf = async (data: JsonObject) => {
      const content = { title: "Hi", data };
      const { results } = await a.key.send.send({ to: { userIds: [userId] }, type: "job", content });
      const { notification } = await until(
        () => a.key.send.getNotification({ id: results[0]?.notificationId ?? "" }),
        ({ notification }) => notification?.status === Status.SUPPRESSED,
      );
      return notification?.verdicts[0];
    };
    await until(
      () => send(userId, {}),
      (became) => became === Reason.FILTERED,
      5000,
    );
    expect(await verdictOf({})).toMatchObject({ reason: Reason.FILTERED, filterFailed: true });
    expect(await verdictOf({ salary: 1 })).toMatchObject({ reason: Reason.FILTERED, filterFailed: false });
  });

  test("only narrows: what is off stays off, whatever is subscribed to", async () => {
    const { userId, own } = await someone();
    await own.preferences.updatePreferences({ preferences: { categories: { jobs: { enabled: false } } } });
    await subscribe(own, type("job"), "true");
    await subscribe(own, type("advice"));
    expect(await send(userId, {})).toBe(Reason.CATEGORY_DISABLED);
    expect(await send(userId, { type: "advice", priority: Priority.CRITICAL })).toBe(Reason.CATEGORY_DISABLED);
  });

  test("of an opt-in type is the wish to have it, until the user says no", async () => {
    const { userId, own } = await someone();
    const rare = { type: "rare" };
    expect(await send(userId, rare)).toBe(Reason.TYPE_DISABLED);
    await subscribe(own, type("rare"), "priority > 2");
    await until(
      () => send(userId, rare),
      (became) => became === Reason.FILTERED,
      5000,
    );
    expect(await send(userId, { ...rare, priority: Priority.HIGH })).toBe("delivered");
    const effective = () => own.preferences.getEffectivePreferences({ type: "rare" });
    expect(await effective()).toMatchObject({
      preferences: { enabled: true },
      origins: { enabled: PreferenceLevel.TYPE },
    });
    await own.preferences.updatePreferences({ preferences: { types: { rare: { enabled: false } } } });
    await until(
      () => send(userId, { ...rare, priority: Priority.HIGH }),
      (became) => became === Reason.TYPE_DISABLED,
      5000,
    );
    expect(await effective()).toMatchObject({ preferences: { enabled: false } });
  });

  test("is asked about what waits in the transaction that changes it, which says what became of it", async () => {
    const { userId, own } = await someone();
    const clock = (hours: number) => new Date(Date.now() + hours * 3_600_000).toISOString().slice(11, 16);
    const quietHours = { enabled: true, startTime: clock(-2), endTime: clock(2) };
    await own.preferences.updatePreferences({ preferences: { quietHours } });
    const waiting = async (n: number, later = false) => {
      const schedule = later ? inAnHour() : undefined;
      const content = { title: "Hi", data: { n } };
      const { results } = await a.key.send.send({
        to: { userIds: [userId] },
        type: "job",
        content,
        ...(schedule && { schedule }),
      });
      return results[0]?.notificationId ?? "";
    };
    const ids = [await waiting(1), await waiting(2), await waiting(1, true), await waiting(2, true)];
    const found = async () => {
      const all = await Promise.all(ids.map((id) => a.key.send.getNotification({ id })));
      return all.map(({ notification }) => notification);
    };
    await until(found, (all) => all.slice(0, 2).every((each) => each?.status === Status.HELD));
    const reader = openReader(own, {});
    await reader.next("hello");
    const subscription = { target: type("job"), filter: "data.n == 1" };
    const first = await own.preferences.createSubscription({ subscription });
    expect(first.reconciled).toMatchObject({ suppressed: 2, unchanged: 2, more: false });
    expect((await found()).map((each) => [each?.status, each?.reason])).toEqual([
      [Status.HELD, Reason.QUIET_HOURS],
      [Status.SUPPRESSED, Reason.FILTERED],
      [Status.SCHEDULED, Reason.UNSPECIFIED],
      [Status.SUPPRESSED, Reason.FILTERED],
    ]);
    const { reconciled } = await reader.next("preferences", ({ changedFields }) =>
      changedFields.includes("subscriptions"),
    );
    expect(reconciled).toEqual(first.reconciled);
    await reader.close();
    expect((await own.preferences.createSubscription({ subscription })).reconciled).toBeUndefined();
    const subscriptionId = first.subscription?.id ?? "";
    const second = await own.preferences.updateSubscription({ subscriptionId, filter: "data.missing == 1" });
    expect(second.reconciled).toMatchObject({ suppressed: 2, unchanged: 0 });
    expect((await found())[0]?.verdicts[0]).toMatchObject({ reason: Reason.FILTERED, filterFailed: true });
    const third = await own.preferences.deleteSubscription({ subscriptionId });
    expect(third.reconciled).toMatchObject({ suppressed: 0, unchanged: 0 });
    expect((await own.preferences.deleteSubscription({ subscriptionId })).reconciled).toBeUndefined();
  });

  test("is asked about what waits of an opt-in type, which ends with the last wish to have it", async () => {
    const { userId, own } = await someone();
    const { id: subscriptionId } = await subscribe(own, type("rare"), "data.n == 1");
    const content = { title: "Hi", data: { n: 1 } };
    const to = { userIds: [userId] };
    const { results } = await a.key.send.send({ to, type: "rare", content, schedule: inAnHour() });
    const kept = await own.preferences.updatePreferences({ preferences: { minimumPriority: Priority.NORMAL } });
    expect(kept.reconciled).toMatchObject({ suppressed: 0, unchanged: 1 });
    const { reconciled } = await own.preferences.deleteSubscription({ subscriptionId });
    expect(reconciled).toMatchObject({ suppressed: 1 });
    const { notification } = await a.key.send.getNotification({ id: results[0]?.notificationId ?? "" });
    expect(notification).toMatchObject({ status: Status.SUPPRESSED, reason: Reason.TYPE_DISABLED });
  });
});

describe("a topic", () => {
  const members = async (key: string) => (await a.key.topics.listMembers({ key })).userIds;

  test("is joined by a subscription where it is open, and left with the last one", async () => {
    await a.key.topics.upsertTopic({ topic: { key: "open", openToUsers: true } });
    await a.key.topics.upsertTopic({ topic: { key: "closed" } });
    const { userId, own } = await someone();
    expect(await refusalOf(subscribe(own, topic("closed")))).toMatchObject({ reason: "NOT_FOUND" });
    const [all, some] = [await subscribe(own, topic("open")), await subscribe(own, topic("open"), "priority > 2")];
    expect(await members("open")).toEqual([userId]);
    await own.preferences.deleteSubscription({ subscriptionId: all.id });
    expect(await members("open")).toEqual([userId]);
    await own.preferences.deleteSubscription({ subscriptionId: some.id });
    expect(await members("open")).toEqual([]);
    expect((await a.key.topics.getTopic({ key: "open" })).topic).toMatchObject({ memberCount: 0n, openToUsers: true });
    await a.key.topics.addMembers({ key: "closed", userIds: [userId] });
    await subscribe(own, topic("closed"), "true");
    await a.key.topics.removeMembers({ key: "closed", userIds: [userId] });
    expect((await own.preferences.listSubscriptions({})).subscriptions).toEqual([]);
  });

  test("filters what is sent to it, and not what is sent to the user", async () => {
    await a.key.topics.upsertTopic({ topic: { key: "go", openToUsers: true } });
    const { userId, own } = await someone();
    await subscribe(own, topic("go"), "data.level > 2");
    const toTopic = async (level: number) => {
      const content = { title: "Hi", data: { level } };
      const { fanoutId } = await a.key.send.send({ to: { topics: ["go"] }, type: "job", content });
      const { notifications } = await until(
        () => a.key.send.listNotifications({ filter: { fanoutId, userId } }),
        (answer) => (answer.notifications[0]?.status ?? Status.ACCEPTED) !== Status.ACCEPTED,
      );
      return notifications[0]?.reason;
    };
    await until(
      () => toTopic(1),
      (reason) => reason === Reason.FILTERED,
      10_000,
    );
    expect(await toTopic(3)).toBe(Reason.UNSPECIFIED);
    expect(await send(userId, { data: { level: 1 } })).toBe("delivered");
  });

  test("filters what waits of what was sent to it", async () => {
    await a.key.topics.upsertTopic({ topic: { key: "later", openToUsers: true } });
    const { userId, own } = await someone();
    await a.key.topics.addMembers({ key: "later", userIds: [userId] });
    const waiting = async (level: number) => {
      const content = { title: "Hi", data: { level } };
      const { fanoutId } = await a.key.send.send({ to: { topics: ["later"] }, content, schedule: inAnHour() });
      await until(
        () => a.key.send.listNotifications({ filter: { fanoutId, userId } }),
        ({ notifications }) => notifications.length === 1,
      );
    };
    await waiting(1);
    await waiting(3);
    const subscription = { target: topic("later"), filter: "data.level > 2" };
    const { reconciled } = await own.preferences.createSubscription({ subscription });
    expect(reconciled).toMatchObject({ suppressed: 1, unchanged: 1 });
  });

  test("that is taken away takes its subscriptions along, while users subscribe and unsubscribe", async () => {
    await a.key.topics.upsertTopic({ topic: { key: "busy", openToUsers: true } });
    const all = await Promise.all(Array.from({ length: 6 }, someone));
    await Promise.all([
      ...all.map(async ({ own }) => {
        for (let round = 0; round < 6; round++) {
          const made = await subscribe(own, topic("busy"), "true").catch(() => undefined);
          if (round % 2 === 1 && made !== undefined)
            await own.preferences.deleteSubscription({ subscriptionId: made.id });
        }
      }),
      (async () => {
        for (let round = 0; round < 10; round++)
          await onB.topics.removeMembers({ key: "busy", userIds: all.map(({ userId }) => userId) });
      })(),
    ]);
    const strays = await sql`
      select s.user_id from subscriptions s where s.key = 'busy' and not exists (
        select from topic_members m where m.tenant_id = s.tenant_id and m.topic = s.key and m.user_id = s.user_id)`;
    expect(strays).toEqual([]);
    await a.key.topics.deleteTopic({ key: "busy" });
    expect(await sql`select from subscriptions where key = 'busy'`).toHaveLength(0);
  });
});

test("unsubscribing from everything ends what waits, leaves topics, and holds for what comes", async () => {
  const { userId, own } = await someone();
  await a.key.topics.upsertTopic({ topic: { key: "all", openToUsers: true } });
  const reader = openReader(own, {});
  await reader.next("hello");
  await subscribe(own, type("job"), "true");
  await subscribe(own, topic("all"));
  const content = { title: "Later" };
  const { results } = await a.key.send.send({ to: { userIds: [userId] }, content, schedule: inAnHour() });
  expect(await own.preferences.unsubscribeAll({})).toMatchObject({ subscriptions: 2, topics: 1, notifications: 1n });
  const { notification } = await a.key.send.getNotification({ id: results[0]?.notificationId ?? "" });
  expect(notification).toMatchObject({ status: Status.SUPPRESSED, reason: Reason.UNSUBSCRIBED });
  await until(
    () => send(userId, { priority: Priority.CRITICAL }),
    (became) => became === Reason.USER_OPTED_OUT,
    5000,
  );
  await reader.next("preferences", ({ changedFields }) => changedFields.join() === "enabled,subscriptions");
  await reader.close();
  expect(await own.preferences.unsubscribeAll({})).toMatchObject({ subscriptions: 0, topics: 0, notifications: 0n });
  expect((await a.key.topics.listMembers({ key: "all" })).userIds).toEqual([]);
  expect(await wrongSuppressions(sql, a.tenant.tenantId)).toEqual([]);
});
