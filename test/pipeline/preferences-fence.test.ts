import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { Store } from "#src/store/store.ts";
import { platformOfFile } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

const services = await testServices();
const sql = postgres(services.databaseUrl, { max: 1, onnotice: () => undefined });
afterAll(() => sql.end());

/** Where the next decision stops, and what lets it go on. */
type Stop = { at: "before" | "uncommitted"; reached: () => void; goOn: Promise<void> };
let stop: Stop | undefined;

/** Stops in the transaction that stores decisions: before its statements, or between them and the commit. */
function stopping(store: Store): Store {
  return {
    ...store,
    async tenant(tenantId, work) {
      if (stop === undefined || !String(work).includes("commitDecisions")) return store.tenant(tenantId, work);
      const { at, reached, goOn } = stop;
      stop = undefined;
      if (at === "before") {
        reached();
        await goOn;
      }
      return store.tenant(tenantId, async (tx) => {
        const result = await work(tx, () => undefined);
        if (at === "uncommitted") {
          reached();
          await goOn;
        }
        return result;
      });
    },
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  };
}

const worker = await platformOfFile({ services, roles: ["worker"], between: { store: stopping } });
const node = await platformOfFile({ services, tenant: worker.tenant, roles: ["api", "stream", "scheduler"] });

const ALWAYS_QUIET = { enabled: true, startTime: "00:00", endTime: "00:00" };
/** What stays held stays so for a day: this is only for the ticks of the scheduler. */
const SOON_MS = 8000;

/** Sends to a user while the decision stops there; answers the notification, once it has stopped. */
async function sendAndStop(userId: string, at: Stop["at"], type = "general", topic?: string) {
  const { promise: goOn, resolve: release } = Promise.withResolvers<void>();
  const { promise: reached, resolve } = Promise.withResolvers<void>();
  stop = { at, reached: resolve, goOn };
  const to = topic === undefined ? { userIds: [userId] } : { topics: [topic] };
  const { fanoutId } = await node.key.send.send({ to, type, content: { title: "Hi" } });
  await reached;
  const { notifications } = await node.key.send.listNotifications({ filter: { userId, fanoutId }, pageSize: 1 });
  return { id: notifications[0]?.id ?? "", release };
}

const statusOf = async (id: string) => (await node.key.send.getNotification({ id })).notification;
const becomes = (id: string, status: Status) =>
  until(
    () => statusOf(id),
    (found) => found?.status === status,
    SOON_MS,
  );

test("a hold by rules that were changed before it could be stored is decided again", async () => {
  const user = await node.clientsFor("ann");
  await user.preferences.updatePreferences({ preferences: { quietHours: ALWAYS_QUIET } });
  const { id, release } = await sendAndStop("ann", "before");
  const changed = await user.preferences.updatePreferences({ preferences: { quietHours: { enabled: false } } });
  expect(changed.reconciled).toMatchObject({ released: 0, unchanged: 0 });
  release();
  await becomes(id, Status.DELIVERED);
});

test("a delivery by rules that were changed before it could be stored does not happen", async () => {
  const user = await node.clientsFor("bob");
  const { id, release } = await sendAndStop("bob", "before");
  await user.preferences.updatePreferences({ preferences: { types: { general: { enabled: false } } } });
  release();
  expect((await becomes(id, Status.SUPPRESSED))?.reason).toBe(Reason.TYPE_DISABLED);
});

test("a change waits for a hold that is being stored, and releases it", async () => {
  const user = await node.clientsFor("cid");
  await user.preferences.updatePreferences({ preferences: { quietHours: ALWAYS_QUIET } });
  const { id, release } = await sendAndStop("cid", "uncommitted");
  const change = user.preferences.updatePreferences({ preferences: { quietHours: { enabled: false } } });
  let over = false;
  change.finally(() => {
    over = true;
  });
  await until(
    async () => over || (await sql`select from pg_locks where locktype = 'advisory' and not granted`).length > 0,
    (waitsOrOver) => waitsOrOver,
  );
  release();
  expect((await change).reconciled).toMatchObject({ released: 1 });
  await becomes(id, Status.DELIVERED);
});

test("what was decided by former subscriptions is not stored, nor missed while it is being stored", async () => {
  const user = await node.clientsFor("fay");
  const { preferences } = user;
  const category = { target: { case: "category", value: "general" } } as const;
  const { subscription } = await preferences.createSubscription({ subscription: { ...category, filter: "true" } });
  const subscriptionId = subscription?.id ?? "";

  const delivery = await sendAndStop("fay", "before");
  await preferences.updateSubscription({ subscriptionId, filter: "false" });
  delivery.release();
  expect((await becomes(delivery.id, Status.SUPPRESSED))?.reason).toBe(Reason.FILTERED);

  const suppression = await sendAndStop("fay", "before");
  await preferences.deleteSubscription({ subscriptionId });
  suppression.release();
  await becomes(suppression.id, Status.DELIVERED);

  await preferences.updatePreferences({ preferences: { quietHours: ALWAYS_QUIET } });
  const hold = await sendAndStop("fay", "before");
  const { reconciled } = await preferences.createSubscription({ subscription: { ...category, filter: "false" } });
  expect(reconciled).toMatchObject({ suppressed: 0, unchanged: 0 });
  hold.release();
  expect((await becomes(hold.id, Status.SUPPRESSED))?.reason).toBe(Reason.FILTERED);
});

test("what was decided by a subscription to a topic that was taken away is not stored", async () => {
  const { topics } = node.key;
  const user = await node.clientsFor("kim");
  for (const [key, takeAway] of [
    ["left", () => topics.removeMembers({ key: "left", userIds: ["kim"] })],
    ["deleted", () => topics.deleteTopic({ key: "deleted" })],
  ] as const) {
    await topics.upsertTopic({ topic: { key, openToUsers: true } });
    const target = { case: "topic", value: key } as const;
    await user.preferences.createSubscription({ subscription: { target, filter: "false" } });
    const { id, release } = await sendAndStop("kim", "before", "general", key);
    await takeAway();
    release();
    await becomes(id, Status.DELIVERED);
  }
});

test("a change of subscriptions and the end of all wait for a hold that is being stored, and end it", async () => {
  const user = await node.clientsFor("gil");
  const { preferences } = user;
  await preferences.updatePreferences({ preferences: { quietHours: ALWAYS_QUIET } });
  const waitsOrEnds = async <T>(change: Promise<T>, release: () => void) => {
    let over = false;
    change.finally(() => {
      over = true;
    });
    await until(
      async () => over || (await sql`select from pg_locks where not granted`).length > 0,
      (waitsOrOver) => waitsOrOver,
    );
    release();
    return change;
  };
  const first = await sendAndStop("gil", "uncommitted");
  const subscription = { target: { case: "category", value: "general" }, filter: "false" } as const;
  const { reconciled } = await waitsOrEnds(preferences.createSubscription({ subscription }), first.release);
  expect(reconciled).toMatchObject({ suppressed: 1 });
  expect(await statusOf(first.id)).toMatchObject({ status: Status.SUPPRESSED, reason: Reason.FILTERED });

  await preferences.deleteSubscription({ subscriptionId: (await listed()) ?? "" });
  const second = await sendAndStop("gil", "uncommitted");
  expect(await waitsOrEnds(preferences.unsubscribeAll({}), second.release)).toMatchObject({ notifications: 1n });
  expect(await statusOf(second.id)).toMatchObject({ status: Status.SUPPRESSED, reason: Reason.UNSUBSCRIBED });

  async function listed() {
    return (await preferences.listSubscriptions({})).subscriptions[0]?.id;
  }
});

test("a hold by the tenant's former defaults is not stored, and one that is being stored is found", async () => {
  const update = (quietHours: object) =>
    node.key.preferences.updateDefaultPreferences({ preferences: { quietHours }, reason: "a test" });
  await update(ALWAYS_QUIET);
  const before = await sendAndStop("dora", "before");
  await update({ enabled: false });
  // What waits has been looked at; this one does not wait yet.
  await until(
    () => sql`select from rule_changes`,
    (left) => left.length === 0,
  );
  before.release();
  await becomes(before.id, Status.DELIVERED);

  await update({ enabled: true });
  const during = await sendAndStop("dora", "uncommitted");
  await update({ enabled: false });
  await until(
    () => sql`select from pg_locks where locktype = 'advisory' and not granted`,
    (waiting) => waiting.length > 0,
    SOON_MS,
  );
  during.release();
  await becomes(during.id, Status.DELIVERED);
});

test("a hold by the zone that a profile named before is not stored", async () => {
  const { users, preferences } = node.key;
  await users.upsertUser({ user: { id: "eve", timeZone: "UTC" } });
  const now = new Date();
  const clock = (hours: number) => new Date(now.getTime() + hours * 3_600_000).toISOString().slice(11, 16);
  // Quiet in UTC for another hour; far from it in Tokyo.
  const quietHours = { enabled: true, startTime: clock(-1), endTime: clock(1) };
  await preferences.updatePreferences({ userId: "eve", preferences: { quietHours }, reason: "a test" });
  const { id, release } = await sendAndStop("eve", "before");
  await users.updateUser({ user: { id: "eve", timeZone: "Asia/Tokyo" }, updateMask: { paths: ["time_zone"] } });
  release();
  await becomes(id, Status.DELIVERED);
});

test("what joins a batch by rules that were changed joins none, and one that is joining is found by the change", async () => {
  await node.key.types.createType({ type: { key: "heap", batching: { batchable: true, maxSize: 2 } } });
  const user = await node.clientsFor("hal");
  const before = await sendAndStop("hal", "before", "heap");
  await user.preferences.updatePreferences({ preferences: { batching: { enabled: false } } });
  before.release();
  await becomes(before.id, Status.DELIVERED);
  expect((await node.key.batches.listBatches({ userId: "hal" })).batches).toEqual([]);

  await user.preferences.updatePreferences({ preferences: { batching: { enabled: true } } });
  const during = await sendAndStop("hal", "uncommitted", "heap");
  const change = user.preferences.updatePreferences({ preferences: { batching: { enabled: false } } });
  await until(
    () => sql`select from pg_locks where locktype = 'advisory' and not granted`,
    (waiting) => waiting.length > 0,
    SOON_MS,
  );
  during.release();
  expect((await change).reconciled).toMatchObject({ released: 1 });
  await becomes(during.id, Status.DELIVERED);
});

test("a delivery by the zone that a profile named before is not stored", async () => {
  const { users, preferences } = node.key;
  await users.upsertUser({ user: { id: "ivy", timeZone: "UTC" } });
  const now = new Date();
  const clock = (hours: number) => new Date(now.getTime() + hours * 3_600_000).toISOString().slice(11, 16);
  // Quiet in Tokyo for another hour; far from it in UTC.
  const quietHours = { enabled: true, startTime: clock(8), endTime: clock(10) };
  await preferences.updatePreferences({ userId: "ivy", preferences: { quietHours }, reason: "a test" });
  const { id, release } = await sendAndStop("ivy", "before");
  await users.updateUser({ user: { id: "ivy", timeZone: "Asia/Tokyo" }, updateMask: { paths: ["time_zone"] } });
  release();
  await becomes(id, Status.HELD);
});
