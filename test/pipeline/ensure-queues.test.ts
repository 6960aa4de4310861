import { afterAll, expect, test } from "vitest";
import { connectBroker } from "#src/broker/broker.ts";
import { ensureQueues, restoreQueues } from "#src/pipeline/ensure-queues.ts";
import { ingestStream, LANES, SHARDS } from "#src/pipeline/flow.ts";
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
      expect(state.consumer_count).toBe(SHARDS);
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
  expect((await jsm.streams.info(gone)).state.consumer_count).toBe(SHARDS);
});
