import { Registry } from "prom-client";
import { expect, test } from "vitest";
import { Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { connectBroker } from "#src/broker/broker.ts";
import { ensureQueues } from "#src/pipeline/ensure-queues.ts";
import { FANOUT_COUNTS, SHARE } from "#src/pipeline/floods.ts";
import { CHUNK, floodShardBeside, ingestStream, routeConsumer, shardOf } from "#src/pipeline/flow.ts";
import { enqueueByTenant, openQueue } from "#src/pipeline/queue.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { createMetrics } from "#src/telemetry/metrics.ts";
import { freshServices } from "../support/services.ts";

const log = createLogger({ serviceName: "test", logLevel: "silent", logFormat: "json" });

test("the same ids for the first time are one message; again they are another, however soon", async () => {
  await using services = await freshServices();
  await using broker = await connectBroker({ url: services.natsUrl, namespace: services.namespace, replicas: 1 }, log);
  await ensureQueues(broker);
  const queue = openQueue(broker, log, createMetrics(new Registry()), () => performance.now());
  const messages = async () =>
    (await broker.jsm.streams.info(ingestStream(services.namespace, "normal"))).state.messages;
  const rows = [{ tenantId: "a", id: "one", priority: Priority.NORMAL }];
  for (let n = 0; n < 2; n++) await queue.enqueue("a", rows, "first");
  expect(await messages()).toBe(1);
  for (let n = 0; n < 3; n++) await enqueueByTenant(queue, rows);
  expect(await messages()).toBe(4);
});

test("what a tenant queues beyond its share waits on the shard for floods, until it has queued little for a while", async () => {
  await using services = await freshServices();
  await using broker = await connectBroker({ url: services.natsUrl, namespace: services.namespace, replicas: 1 }, log);
  await ensureQueues(broker);
  const registry = new Registry();
  let nowMs = 0;
  const queue = openQueue(broker, log, createMetrics(registry), () => nowMs);
  const waits = async (shard: number) =>
    (await broker.jsm.consumers.info(ingestStream(services.namespace, "low"), routeConsumer(shard))).num_pending;
  const usual = shardOf("a");
  const each = async () => [await waits(usual), await waits(floodShardBeside(usual))];
  const items = Array.from({ length: SHARE.burst + 2 * CHUNK }, (_, n) => ({ id: `${n}`, priority: Priority.LOW }));

  await queue.enqueue("a", items, "first");
  expect(await each()).toEqual([SHARE.burst / CHUNK, 2]);
  // What goes on with a fan-out goes behind what the fan-out has made.
  await queue.enqueueFanout("a", { id: "f", priority: Priority.LOW }, 0);
  expect(await each()).toEqual([SHARE.burst / CHUNK, 3]);
  expect(await registry.metrics()).toContain('posthorn_queue_aside_total{lane="low"} 3');
  // The same for the first time, now aside, is the same message.
  await queue.enqueue("a", items.slice(0, 4 * CHUNK), "first");
  expect(await each()).toEqual([SHARE.burst / CHUNK, 3]);
  // Other lanes and tenants are as they were.
  const [one] = items;
  await queue.enqueue("a", [{ id: "n", priority: Priority.NORMAL }], "first");
  const normal = await broker.jsm.consumers.info(ingestStream(services.namespace, "normal"), routeConsumer(usual));
  expect(normal.num_pending).toBe(1);
  const others = Array.from({ length: 200 }, (_, n) => `${n}`);
  const other = others.find((id) => shardOf(id) === usual) ?? "";
  await queue.enqueue(other, [{ id: "o", priority: Priority.LOW }], "first");
  expect(await each()).toEqual([SHARE.burst / CHUNK + 1, 3]);
  nowMs = (SHARE.most / SHARE.perSecond) * 1000;
  await queue.enqueue("a", [{ id: one?.id ?? "", priority: Priority.LOW }], "again");
  expect(await each()).toEqual([SHARE.burst / CHUNK + 2, 3]);
});

test("many fan-outs are a flood as well", async () => {
  await using services = await freshServices();
  await using broker = await connectBroker({ url: services.natsUrl, namespace: services.namespace, replicas: 1 }, log);
  await ensureQueues(broker);
  const queue = openQueue(broker, log, createMetrics(new Registry()), () => 0);
  const within = SHARE.burst / FANOUT_COUNTS;
  for (let n = 0; n < within + 5; n++) await queue.enqueueFanout("a", { id: `${n}`, priority: Priority.HIGH }, 0);
  const stream = ingestStream(services.namespace, "high");
  const info = (shard: number) => broker.jsm.consumers.info(stream, routeConsumer(shard));
  expect((await info(shardOf("a"))).num_pending).toBe(within);
  expect((await info(floodShardBeside(shardOf("a")))).num_pending).toBe(5);
});
