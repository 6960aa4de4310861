import { connect } from "nats";
import postgres from "postgres";
import { afterAll, describe, expect, test } from "vitest";
import { Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { Fanout_State } from "#gen/posthorn/v1/send_service_pb.ts";
import { encodeWork, ingestShard, ingestStream, LANES, shardOf } from "#src/pipeline/flow.ts";
import { platformOfFile, startTestPlatform, type TestTenant } from "../support/platform.ts";
import { wrongInboxes } from "../support/recount.ts";
import { testServices } from "../support/services.ts";
import { openReader } from "../support/stream-reader.ts";
import { until } from "../support/until.ts";

const services = await testServices();
/** Accepts, and decides nothing. Workers come and go with the tests. */
const api = await platformOfFile({ services, roles: ["api", "stream"] });
const sql = postgres(services.databaseUrl, { max: 2, onnotice: () => undefined });
afterAll(() => sql.end());

const RECONCILE = { POSTHORN_RECONCILE_AFTER_MS: "1000", POSTHORN_RECONCILE_INTERVAL_MS: "100" };
const worker = (env: Record<string, string> = {}) =>
  startTestPlatform({ services, tenant: api.tenant, roles: ["worker", "scheduler"], env: { ...RECONCILE, ...env } });
const hi = { title: "Hi" };
const inThreeDays = new Date(Date.now() + 86_400_000 * 3).toISOString().slice(0, 10);

async function withMembers(key: string, userIds: readonly string[], tenant: TestTenant = api.tenant) {
  const { topics } = api.clients(tenant.apiKey);
  await topics.upsertTopic({ topic: { key } });
  for (let from = 0; from < userIds.length; from += 1000)
    await topics.addMembers({ key, userIds: userIds.slice(from, from + 1000) });
}

const members = (prefix: string, count: number) => Array.from({ length: count }, (_, n) => `${prefix}-${n}`);
const fanoutOf = async (id: string) => {
  const { fanout } = await api.key.send.getFanout({ id });
  return {
    state: fanout?.state,
    created: Number(fanout?.created),
    deduplicated: Number(fanout?.deduplicated),
    ended: fanout?.endTime,
  };
};
const completed = (id: string) =>
  until(
    () => fanoutOf(id),
    ({ state }) => state === Fanout_State.COMPLETED,
  );
const recipients = async (fanoutId: string) =>
  (await sql`select user_id from notifications where fanout_id = ${fanoutId} order by id`).map(
    ({ user_id }) => user_id,
  );
const undecided = async () =>
  (await sql<[{ n: number }]>`select count(*)::int as n from notifications where status = 1`)[0].n;
const allDecided = () => until(undecided, (n) => n === 0);

test("a topic of 5,000 is worked through in pages, by another worker after the first one went", async () => {
  const userIds = members("crowd", 5000);
  await withMembers("crowd", userIds);
  const { fanoutId, results } = await api.key.send.send({ to: { topics: ["crowd"] }, content: hi, tags: ["a"] });
  expect(results).toEqual([]);
  expect(await fanoutOf(fanoutId)).toMatchObject({ state: Fanout_State.RUNNING, created: 0, ended: undefined });
  const first = await worker();
  const { created } = await until(
    () => fanoutOf(fanoutId),
    (state) => state.created > 0,
  );
  await first[Symbol.asyncDispose]();
  expect(created % 1000).toBe(0);
  const before = await fanoutOf(fanoutId);
  expect(before.created).toBeLessThan(5000);
  await using second = await worker();
  expect(await completed(fanoutId)).toMatchObject({ created: 5000, deduplicated: 0 });
  expect((await recipients(fanoutId)).toSorted()).toEqual(userIds.toSorted());
  await allDecided();
  expect(await wrongInboxes(sql)).toEqual([]);
  const { entries } = await api.key.inbox.listEntries({ userId: "crowd-17" });
  expect(entries).toMatchObject([{ content: hi, tags: ["a", "topic:crowd"] }]);
  const listed = await api.key.send.listNotifications({ filter: { fanoutId, userId: "crowd-17" } });
  expect(listed.notifications).toMatchObject([{ fanoutId, content: hi, status: Status.DELIVERED }]);
  expect(second.platform).toBeDefined();
});

test("who is reached in several ways receives once, and who is named is no part of the fan-out", async () => {
  const tenant = await api.newTenant();
  const { send, users } = api.clients(tenant.apiKey);
  await withMembers("one", ["x1", "x2", "both", "named"], tenant);
  await withMembers("two", ["y1", "both", "lead"], tenant);
  for (const id of ["lead", "both", "idle"])
    await users.upsertUser({ user: { id, roles: id === "idle" ? [] : ["boss"] } });
  await using _ = await worker();
  const { fanoutId, results } = await send.send({
    to: { userIds: ["named"], topics: ["one", "two"], roles: ["boss"] },
    content: hi,
  });
  expect(results.map(({ userId }) => userId)).toEqual(["named"]);
  const done = (id: string) =>
    until(
      async () => (await send.getFanout({ id })).fanout?.state,
      (state) => state === Fanout_State.COMPLETED,
    );
  await done(fanoutId);
  expect(await recipients(fanoutId)).toEqual(["both", "lead", "x1", "x2", "y1"]);
  const everyone = await send.send({ to: { everyone: true, topics: ["one"] }, content: hi });
  await done(everyone.fanoutId);
  expect(await recipients(everyone.fanoutId)).toEqual(["both", "idle", "lead", "named", "x1", "x2"]);
});

test("dedup keys, collapse keys and schedules hold for the members of a fan-out", async () => {
  await withMembers("keys", ["k1", "k2", "k3"]);
  await using _ = await worker();
  const { results } = await api.key.send.send({ to: { userIds: ["k2"] }, content: hi, dedupKey: "d" });
  const deduped = await api.key.send.send({ to: { topics: ["keys"] }, content: hi, dedupKey: "d" });
  expect(await completed(deduped.fanoutId)).toMatchObject({ created: 2, deduplicated: 1 });
  expect(await recipients(deduped.fanoutId)).toEqual(["k1", "k3"]);
  expect(results).toHaveLength(1);
  const schedule = {
    case: "localScheduleTime" as const,
    value: `${inThreeDays}T09:00`,
  };
  const first = await api.key.send.send({ to: { topics: ["keys"] }, content: hi, collapseKey: "c", schedule });
  await completed(first.fanoutId);
  const second = await api.key.send.send({ to: { topics: ["keys"] }, content: hi, collapseKey: "c", schedule });
  await completed(second.fanoutId);
  const statuses = async (id: string) =>
    (await sql`select distinct status from notifications where fanout_id = ${id}`).map(({ status }) => status);
  expect([await statuses(first.fanoutId), await statuses(second.fanoutId)]).toEqual([
    [Status.CANCELLED],
    [Status.SCHEDULED],
  ]);
  const { cancelled } = await api.key.send.cancelNotifications({ filter: { fanoutId: second.fanoutId } });
  expect(cancelled).toBe(3);
});

test("a repeat with the same idempotency key is no second fan-out", async () => {
  await withMembers("again", ["a1", "a2"]);
  await using _ = await worker();
  const request = { to: { topics: ["again"] }, content: hi, idempotencyKey: "again" };
  const answers = await Promise.all(Array.from({ length: 10 }, () => api.key.send.send(request)));
  const [id = ""] = new Set(answers.map(({ fanoutId }) => fanoutId));
  expect(new Set(answers.map(({ fanoutId }) => fanoutId)).size).toBe(1);
  expect(await completed(id)).toMatchObject({ created: 2 });
});

describe("a cancelled fan-out", () => {
  test("creates nothing more", async () => {
    await withMembers("stop", members("stop", 3000));
    const { fanoutId } = await api.key.send.send({ to: { topics: ["stop"] }, content: hi });
    await using _ = await worker();
    await until(
      () => fanoutOf(fanoutId),
      ({ created }) => created > 0,
    );
    const { fanout } = await api.key.send.cancelFanout({ id: fanoutId });
    if (fanout?.state === Fanout_State.CANCELLED) expect(Number(fanout.created)).toBeLessThan(3000);
    // Whatever was queued for it has come and gone when a fan-out sent after it is done.
    const after = await api.key.send.send({ to: { topics: ["stop"] }, content: hi });
    await completed(after.fanoutId);
    expect(Number(fanout?.created)).toBe((await recipients(fanoutId)).length);
    expect((await api.key.send.cancelFanout({ id: fanoutId })).fanout).toEqual(fanout);
  });
  test("that had not begun creates nothing at all", async () => {
    const { fanoutId } = await api.key.send.send({ to: { topics: ["stop"] }, content: hi });
    const { fanout } = await api.key.send.cancelFanout({ id: fanoutId });
    expect(fanout).toMatchObject({ state: Fanout_State.CANCELLED, created: 0n });
    await using _ = await worker();
    const after = await api.key.send.send({ to: { topics: ["stop"] }, content: hi });
    await completed(after.fanoutId);
    expect(await recipients(fanoutId)).toEqual([]);
  });
});

test("pages with nothing to create, their members' time being over, do not hold up those behind them", async () => {
  await withMembers("past", members("past", 2500));
  const { fanoutId } = await api.key.send.send({
    to: { topics: ["past"] },
    content: hi,
    schedule: { case: "localScheduleTime", value: `${inThreeDays}T08:00` },
  });
  // As of a schedule that was made after that.
  await sql`update fanouts set skip_before = ${`${inThreeDays}T12:00Z`} where id = ${fanoutId}`;
  await using _ = await worker({ POSTHORN_RECONCILE_AFTER_MS: "60000" });
  expect(await completed(fanoutId)).toMatchObject({ created: 0 });
});

test("a fan-out whose message was lost goes on", async () => {
  await withMembers("lost", ["l1", "l2"]);
  const { fanoutId } = await api.key.send.send({ to: { topics: ["lost"] }, content: hi, priority: Priority.HIGH });
  const nats = await connect({ servers: services.natsUrl });
  const manager = await nats.jetstreamManager();
  const waiting = async () => (await manager.streams.info(ingestStream(services.namespace, "high"))).state.messages;
  await until(waiting, (count) => count === 1);
  for (const { name } of LANES) await manager.streams.purge(ingestStream(services.namespace, name));
  await nats.close();
  await using _ = await worker();
  expect(await completed(fanoutId)).toMatchObject({ created: 2 });
});

test("a fan-out to thousands does not hold up what others send on the same lane", async () => {
  await withMembers("flood", members("flood", 12_000));
  const other = api.clients((await api.newTenant()).apiKey);
  const { fanoutId } = await api.key.send.send({ to: { topics: ["flood"] }, content: hi });
  await using _ = await worker({ POSTHORN_ROUTE_CONCURRENCY_PER_LANE: "1" });
  await until(
    () => fanoutOf(fanoutId),
    ({ created }) => created > 0,
  );
  const { results } = await other.send.send({
    to: { userIds: ["bob"] },
    content: hi,
    waitForDecision: { seconds: 10n },
  });
  expect(results[0]?.status).toBe(Status.DELIVERED);
  expect((await fanoutOf(fanoutId)).state).toBe(Fanout_State.RUNNING);
  await api.key.send.cancelFanout({ id: fanoutId });
});

test("fan-outs by local time need no more connections than they have", async () => {
  const keys = ["zone1", "zone2", "zone3"];
  for (const key of keys) await withMembers(key, members(key, 1500));
  await using _ = await worker({ POSTHORN_DATABASE_HOT_POOL_SIZE: "1" });
  const schedule = { case: "localScheduleTime" as const, value: `${inThreeDays}T09:00` };
  const sent = await Promise.all(
    keys.map((key) => api.key.send.send({ to: { topics: [key] }, content: hi, schedule })),
  );
  for (const { fanoutId } of sent) expect(await completed(fanoutId)).toMatchObject({ created: 1500 });
});

test("two workers on the same page store it once", async () => {
  await withMembers("twice", members("twice", 2500));
  const { fanoutId } = await api.key.send.send({ to: { topics: ["twice"] }, content: hi, priority: Priority.LOW });
  const nats = await connect({ servers: services.natsUrl });
  const work = encodeWork({ tenantId: api.tenant.tenantId, fanoutId });
  for (let n = 0; n < 6; n++)
    await nats.jetstream().publish(ingestShard(services.namespace, "low", shardOf(api.tenant.tenantId)), work);
  await nats.close();
  await using one = await worker({ POSTHORN_ROUTE_CONCURRENCY_PER_LANE: "4" });
  await using two = await worker({ POSTHORN_ROUTE_CONCURRENCY_PER_LANE: "4" });
  expect(await completed(fanoutId)).toMatchObject({ created: 2500 });
  expect((await recipients(fanoutId)).toSorted()).toEqual(members("twice", 2500).toSorted());
  expect([one.platform, two.platform]).not.toContain(undefined);
});

test("members see it live, each their own", async () => {
  await withMembers("live", ["m1", "m2"]);
  await using _ = await worker();
  await using one = openReader(await api.clientsFor("m1"), { filter: { topics: ["live"] } });
  await using two = openReader(await api.clientsFor("m2"));
  await Promise.all([one.next("caughtUp"), two.next("caughtUp")]);
  const alone = { to: { userIds: ["m1"] }, content: { title: "Not by topic" } };
  await api.key.send.send({ ...alone, waitForDecision: { seconds: 5n } });
  await api.key.send.send({ to: { topics: ["live"] }, content: hi });
  const [first, second] = await Promise.all([one.next("notification"), two.next("notification")]);
  expect([first.entry?.content?.title, first.entry?.sequence]).toEqual(["Hi", 2n]);
  expect([second.entry?.content?.title, second.entry?.sequence]).toEqual(["Hi", 1n]);
  expect(first.entry?.notificationId).not.toBe(second.entry?.notificationId);
});
