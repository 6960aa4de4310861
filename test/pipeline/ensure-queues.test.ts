import { nanos } from "nats";
import { afterAll, expect, test } from "vitest";
import { connectBroker } from "#src/broker/broker.ts";
import { ensureQueues, restoreQueues } from "#src/pipeline/ensure-queues.ts";
import {
  ALL_SHARDS,
  ingestShard,
  ingestStream,
  ingestStreamConfig,
  LANES,
  routeConsumer,
  routeConsumerConfig,
} from "#src/pipeline/flow.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { testServices } from "../support/services.ts";

const services = await testServices();
const log = createLogger({ serviceName: "test", logLevel: "silent", logFormat: "json" });
const brokers = await Promise.all(
  Array.from({ length: 6 }, () =>
    connectBroker({ url: services.natsUrl, namespace: services.namespace, replicas: 1 }, log),
  ),
);
const [{ jsm, namespace }] = brokers as [(typeof brokers)[0]];
afterAll(() => Promise.all(brokers.map((broker) => broker[Symbol.asyncDispose]())));

test("many nodes that start at the same moment all find the queues there", async () => {
  // JetStream answers some of those that come second with an overlap of subjects; not in every round.
  for (let round = 0; round < 8; round++) {
    await Promise.all(brokers.map(ensureQueues));
    for (const { name } of LANES) {
      const { state } = await jsm.streams.info(ingestStream(namespace, name));
      expect(state.consumer_count).toBe(ALL_SHARDS);
      await jsm.streams.delete(ingestStream(namespace, name));
    }
  }
});

test("a queue that was deleted is created when its deletion has had time, and one that is there at once", async () => {
  const [broker] = brokers as [(typeof brokers)[0]];
  await ensureQueues(broker);
  const gone = ingestStream(namespace, "high");
  await jsm.streams.delete(gone);
  const restored = restoreQueues(broker);
  await new Promise((resolve) => setTimeout(resolve, 1000));
  await expect(jsm.streams.info(gone)).rejects.toThrow("stream not found");
  await restored;
  expect((await jsm.streams.info(gone)).state.consumer_count).toBe(ALL_SHARDS);
});

test("all queues that were deleted are there again after the time of one, and give out what they take", async () => {
  const [broker] = brokers as [(typeof brokers)[0]];
  await ensureQueues(broker);
  for (const { name } of LANES) await jsm.streams.delete(ingestStream(namespace, name));
  const began = performance.now();
  await restoreQueues(broker);
  expect(performance.now() - began).toBeLessThan(2 * 2000);
  for (const { name } of LANES) {
    for (let shard = 0; shard < ALL_SHARDS; shard++) await broker.js.publish(ingestShard(namespace, name, shard), "x");
    for (let shard = 0; shard < ALL_SHARDS; shard++) {
      const consumer = await broker.js.consumers.get(ingestStream(namespace, name), routeConsumer(shard));
      const message = await consumer.next({ expires: 5000 });
      expect(message?.string()).toBe("x");
      expect(await message?.ackAck()).toBe(true);
    }
  }
});

test("a consumer of which NATS does not say in time whether it is there is left as another version has made it", async () => {
  const [broker] = brokers as [(typeof brokers)[0]];
  await ensureQueues(broker);
  const stream = ingestStream(namespace, "high");
  await jsm.consumers.update(stream, routeConsumer(0), { max_ack_pending: 5 });
  const silent = Object.create(jsm.consumers, {
    info: {
      value: (of: string, name: string) =>
        of === stream && name === routeConsumer(0)
          ? Promise.reject(new Error("TIMEOUT"))
          : jsm.consumers.info(of, name),
    },
  });
  const slow = { ...broker, jsm: Object.create(jsm, { consumers: { value: silent } }) };
  await expect(restoreQueues(slow)).rejects.toThrow("TIMEOUT");
  expect((await jsm.consumers.info(stream, routeConsumer(0))).config.max_ack_pending).toBe(5);
});

test("a start brings in a changed configuration; what a running node restores leaves another version's alone", async () => {
  const [broker] = brokers as [(typeof brokers)[0]];
  await ensureQueues(broker);
  const stream = ingestStream(namespace, "high");
  const wanted = [
    { max_bytes: ingestStreamConfig(namespace, "high", 1).max_bytes },
    ...Array.from({ length: ALL_SHARDS }, (_, shard) => {
      const { ack_wait, max_deliver, max_ack_pending } = routeConsumerConfig(namespace, "high", shard);
      return { ack_wait, max_deliver, max_ack_pending };
    }),
  ];
  const configured = async () => {
    const consumers = Array.from({ length: ALL_SHARDS }, (_, shard) =>
      jsm.consumers.info(stream, routeConsumer(shard)),
    );
    const { config } = await jsm.streams.info(stream);
    const all = (await Promise.all(consumers)).map(({ config: { ack_wait, max_deliver, max_ack_pending } }) => {
      return { ack_wait, max_deliver, max_ack_pending };
    });
    return [{ max_bytes: config.max_bytes }, ...all];
  };
  // Another version starts.
  await jsm.streams.update(stream, { ...(await jsm.streams.info(stream)).config, max_bytes: 1_000_000 });
  const others = { ack_wait: nanos(7_000), max_deliver: 3, max_ack_pending: 5 };
  await jsm.consumers.update(stream, routeConsumer(0), others);
  await jsm.consumers.update(stream, routeConsumer(1), { max_ack_pending: 5 });
  const [, , second, ...rest] = wanted;
  const afterTheOther = [{ max_bytes: 1_000_000 }, others, { ...second, max_ack_pending: 5 }, ...rest];
  expect(await configured()).toEqual(afterTheOther);

  await jsm.consumers.delete(stream, routeConsumer(2));
  await restoreQueues(broker);
  expect(await configured()).toEqual(afterTheOther);
  await ensureQueues(broker);
  expect(await configured()).toEqual(wanted);
});
