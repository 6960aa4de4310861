import { Registry } from "prom-client";
import { expect, test } from "vitest";
import { connectBroker } from "#src/broker/broker.ts";
import { startConsuming } from "#src/pipeline/consume.ts";
import { ensureQueues } from "#src/pipeline/ensure-queues.ts";
import { encodeWork, ingestStream, ingestSubject, routeConsumer, shardOf } from "#src/pipeline/flow.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { createMetrics } from "#src/telemetry/metrics.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

const services = await testServices();
const log = createLogger({ serviceName: "test", logLevel: "silent", logFormat: "json" });
const [FLOOD, NEIGHBOUR] = ["flood", "neighbour"];

test("what came while a spare slot was waited for does not go with the little it is for", async () => {
  expect(shardOf(FLOOD)).not.toBe(shardOf(NEIGHBOUR));
  await using broker = await connectBroker({ url: services.natsUrl, namespace: services.namespace, replicas: 1 }, log);
  await ensureQueues(broker);
  const begun: { who: string; ids: number; end: () => void }[] = [];
  const over = Promise.withResolvers<void>();
  await using _ = await startConsuming({
    broker,
    handle: async (work) => {
      const held = Promise.withResolvers<void>();
      begun.push({ who: work.tenantId, ids: "ids" in work ? work.ids.length : 0, end: held.resolve });
      await Promise.race([held.promise, over.promise]);
    },
    concurrencyPerLane: 1,
    clock: () => new Date(),
    log,
    metrics: createMetrics(new Registry()),
  });
  using ends = new DisposableStack();
  ends.defer(over.resolve);
  const publish = (tenantId: string, count: number) => {
    const ids = Array.from({ length: count }, (_, n) => `${tenantId}-${n}`);
    return broker.js.publish(ingestSubject(services.namespace, "normal", tenantId), encodeWork({ tenantId, ids }));
  };
  const begins = (count: number) =>
    until(
      async () => begun.length,
      (n) => n === count,
    );
  /** Until the worker holds so many of the neighbour's: told on its own connection, so behind the last of them. */
  const holds = async (count: number) => {
    const stream = ingestStream(services.namespace, "normal");
    const info = () => broker.jsm.consumers.info(stream, routeConsumer(shardOf(NEIGHBOUR)));
    await until(info, ({ num_ack_pending }) => num_ack_pending === count);
    await new Promise(setImmediate);
  };

  await publish(FLOOD, 200);
  await begins(1);
  // The two spare slots that one shard may have, and the third waits for one.
  for (const count of [2, 3]) {
    await publish(NEIGHBOUR, 1);
    await begins(count);
  }
  await publish(NEIGHBOUR, 1);
  await holds(3);
  await publish(NEIGHBOUR, 200);
  await holds(4);
  begun[1]?.end();
  await begins(4);
  expect(begun.map(({ who, ids }) => `${ids} of ${who}`)).toEqual([
    "200 of flood",
    "1 of neighbour",
    "1 of neighbour",
    "1 of neighbour",
  ]);
  begun[0]?.end();
  await begins(5);
  expect(begun[4]).toMatchObject({ who: NEIGHBOUR, ids: 200 });
});
