import { connect } from "nats";
import postgres from "postgres";
import { Registry } from "prom-client";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { type Broker, connectBroker } from "#src/broker/broker.ts";
import { floodShardBeside, ingestShard, ingestStream, LANES, shardOf } from "#src/pipeline/flow.ts";
import { openQueue } from "#src/pipeline/queue.ts";
import { reconcile } from "#src/pipeline/reconcile/reconcile.ts";
import { openStore, type Store } from "#src/store/store.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { createMetrics } from "#src/telemetry/metrics.ts";
import { platformOfFile, startTestPlatform } from "../support/platform.ts";
import { wrongInboxes } from "../support/recount.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

const services = await testServices();
const api = await platformOfFile({ services, roles: ["api"] });
const sql = postgres(services.databaseUrl, { max: 2, onnotice: () => undefined });
const nats = await connect({ servers: services.natsUrl });
const manager = await nats.jetstreamManager();
const log = createLogger({ serviceName: "test", logLevel: "silent", logFormat: "json" });
let store: Store;
let broker: Broker;
beforeAll(async () => {
  const pools = { hotPoolSize: 2, poolSize: 2, statementTimeoutMs: 10_000, lockTimeoutMs: 5000, prepare: true };
  store = openStore({ url: services.databaseUrl, ...pools });
  broker = await connectBroker({ url: services.natsUrl, namespace: services.namespace, replicas: 1 }, log);
});
afterAll(async () => {
  await Promise.all([store[Symbol.asyncDispose](), broker[Symbol.asyncDispose](), nats.close(), sql.end()]);
});

const PRIORITIES = [Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.CRITICAL] as const;
const hi = { title: "Hi" };
const MINUTE = 60_000;
const queued = async () => {
  const states = await Promise.all(
    LANES.map(({ name }) => manager.streams.info(ingestStream(services.namespace, name))),
  );
  return states.reduce((sum, { state }) => sum + state.messages, 0);
};
const purge = () => Promise.all(LANES.map(({ name }) => manager.streams.purge(ingestStream(services.namespace, name))));
const waiting = async () =>
  (await sql<[{ n: number }]>`select count(*)::int as n from notifications where status = 1`)[0].n;
/** One round of the reconciler, as if so much time had passed. */
const round = (laterMs: number, afterMs: number, as: Broker = broker) => {
  const queue = openQueue(broker, log, createMetrics(new Registry()), () => performance.now());
  const deps = { store, broker: as, queue, metrics: createMetrics(new Registry()) };
  return reconcile(deps, new Date(Date.now() + laterMs), afterMs);
};
const sendOnEveryLane = async (users: number) => {
  const userIds = Array.from({ length: users }, (_, n) => `user-${n}`);
  const messages = await queued();
  await Promise.all(PRIORITIES.map((priority) => api.key.send.send({ to: { userIds }, content: hi, priority })));
  const chunks = Math.ceil(users / 250) * PRIORITIES.length;
  await until(queued, (now) => now >= messages + chunks);
};

test("a backlog is not queued twice, however long it waits; what is lost is, once", async () => {
  await sendOnEveryLane(300);
  expect(await round(60 * MINUTE, MINUTE)).toBe(0);
  await purge();
  // Too young to be missed.
  expect(await round(0, MINUTE)).toBe(0);
  expect(await round(2 * MINUTE, MINUTE)).toBe(1200);
  const messages = await until(queued, (count) => count >= 4);
  expect(await round(60 * MINUTE, MINUTE)).toBe(0);
  expect(await queued()).toBe(messages);
});

test("what is on a lane tells nothing of what was lost before it", async () => {
  await purge();
  const [{ before }] = await sql<
    [{ before: number }]
  >`select count(*)::int as before from notifications where status = 1`;
  // As old as what a lane's younger messages say nothing about.
  await sql`update notifications set queued_at = null`;
  await api.key.send.send({ to: { userIds: ["late"] }, content: hi, priority: Priority.HIGH });
  await until(queued, (count) => count >= 1);
  // Within the margin of the clocks nothing is done; beyond it, all but the message that is there.
  expect(await round(MINUTE, 1000)).toBe((before * 3) / 4);
});

test("what was lost on the way is decided all the same, by a worker that finds nothing on its lanes", async () => {
  await purge();
  const lost = await waiting();
  expect(lost).toBeGreaterThan(1000);
  await sql`update notifications set queued_at = null`;
  await using _ = await startTestPlatform({
    services,
    tenant: api.tenant,
    roles: ["worker", "scheduler"],
    env: { POSTHORN_RECONCILE_AFTER_MS: "1000", POSTHORN_RECONCILE_INTERVAL_MS: "100" },
  });
  await until(waiting, (count) => count === 0);
  expect(await wrongInboxes(sql)).toEqual([]);
  const statuses = await sql`select distinct status from notifications`;
  expect(statuses.map(({ status }) => status)).toEqual([Status.DELIVERED]);
});

test("JetStream's store deleted under a running worker: streams come back, and nothing accepted is lost", async () => {
  await using _ = await startTestPlatform({
    services,
    tenant: api.tenant,
    roles: ["worker", "scheduler"],
    env: { POSTHORN_RECONCILE_AFTER_MS: "1000", POSTHORN_RECONCILE_INTERVAL_MS: "100" },
  });
  const sends = Promise.all(
    Array.from({ length: 40 }, () => api.key.send.send({ to: { userIds: ["a", "b", "c"] }, content: hi })),
  );
  await Promise.all(LANES.map(({ name }) => manager.streams.delete(ingestStream(services.namespace, name))));
  await sends;
  await until(waiting, (count) => count === 0, 25_000);
  const { results } = await api.key.send.send({
    to: { userIds: ["a"] },
    content: hi,
    waitForDecision: { seconds: 10n },
  });
  expect(results[0]?.status).toBe(Status.DELIVERED);
  expect(await wrongInboxes(sql)).toEqual([]);
});

test("the backlog of a tenant hides nothing that others lost", async () => {
  await purge();
  let other = await api.newTenant();
  while (shardOf(other.tenantId) === shardOf(api.tenant.tenantId)) other = await api.newTenant();
  const send = { to: { userIds: ["one", "two"] }, content: hi, priority: Priority.HIGH };
  await api.key.send.send(send);
  await until(queued, (count) => count === 1);
  await api.clients(other.apiKey).send.send(send);
  await until(queued, (count) => count === 2);
  const filter = ingestShard(services.namespace, "high", shardOf(other.tenantId));
  await manager.streams.purge(ingestStream(services.namespace, "high"), { filter });
  expect(await round(60 * MINUTE, MINUTE)).toBe(2);
  expect(await until(queued, (count) => count === 2)).toBe(2);
  expect(await round(60 * MINUTE, MINUTE)).toBe(0);
});

test("what waits aside is on the queue as well: it is not queued twice, and found when it is lost there", async () => {
  await purge();
  await sql`update notifications set status = ${Status.DELIVERED} where status = 1`;
  const { tenantId, apiKey } = await api.newTenant();
  const userIds = Array.from({ length: 1000 }, (_, n) => `user-${n}`);
  const { send } = api.clients(apiKey);
  for (let n = 0; n < 3; n++) await send.send({ to: { userIds }, content: hi, priority: Priority.HIGH });
  await until(queued, (count) => count === 12);
  const stream = ingestStream(services.namespace, "high");
  const lose = (shard: number) =>
    manager.streams.purge(stream, { filter: ingestShard(services.namespace, "high", shard) });
  expect(await lose(shardOf(tenantId))).toMatchObject({ purged: 8 });
  expect(await round(60 * MINUTE, MINUTE)).toBe(0);
  expect(await lose(floodShardBeside(shardOf(tenantId)))).toMatchObject({ purged: 4 });
  expect(await round(60 * MINUTE, MINUTE)).toBe(3000);
});

test("a message that is done and was kept hides nothing that was lost before it", async () => {
  await purge();
  await sql`update notifications set status = ${Status.DELIVERED} where status = 1`;
  await api.key.send.send({ to: { userIds: ["lost"] }, content: hi, priority: Priority.HIGH });
  await until(queued, (count) => count === 1);
  await purge();
  await api.key.send.send({ to: { userIds: ["done"] }, content: hi, priority: Priority.HIGH });
  await until(queued, (count) => count === 1);
  await sql`update notifications set status = ${Status.DELIVERED} where user_id = 'done'`;
  await sql`update notifications set queued_at = null where status = 1`;
  expect(await round(60 * MINUTE, MINUTE)).toBe(0);
  const { state } = await manager.streams.info(ingestStream(services.namespace, "high"));
  // A NATS that was killed at the right moment says so of its consumer; it cannot be told to.
  const consumers = new Proxy(broker.jsm.consumers, {
    get: (all, name) =>
      name === "info" ? async () => ({ ack_floor: { stream_seq: state.last_seq } }) : Reflect.get(all, name),
  });
  const jsm = new Proxy(broker.jsm, {
    get: (all, name) => (name === "consumers" ? consumers : Reflect.get(all, name)),
  });
  expect(await round(60 * MINUTE, MINUTE, { ...broker, jsm })).toBe(1);
});

test("a fan-out is queued again once it is not on the queue, and else when its lease is over", async () => {
  await purge();
  await sql`update notifications set status = ${Status.DELIVERED} where status = 1`;
  await api.key.topics.upsertTopic({ topic: { key: "all" } });
  await api.key.topics.addMembers({ key: "all", userIds: ["a", "b"] });
  await api.key.send.send({ to: { topics: ["all"] }, content: hi, priority: Priority.HIGH });
  await until(queued, (count) => count === 1);
  const withinLease = () => round(20_000, 1000);
  expect(await withinLease()).toBe(0);
  await purge();
  // Too young to be missed.
  expect(await round(0, MINUTE)).toBe(0);
  expect(await withinLease()).toBe(1);
  await until(queued, (count) => count === 1);
  expect(await withinLease()).toBe(0);
  expect(await round(MINUTE, 1000)).toBe(1);
  await until(queued, (count) => count === 2);
});
