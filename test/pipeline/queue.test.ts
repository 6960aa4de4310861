import { Registry } from "prom-client";
import { expect, test } from "vitest";
import { Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { connectBroker } from "#src/broker/broker.ts";
import { ensureQueues } from "#src/pipeline/ensure-queues.ts";
import { ingestStream } from "#src/pipeline/flow.ts";
import { enqueueByTenant, openQueue } from "#src/pipeline/queue.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { createMetrics } from "#src/telemetry/metrics.ts";
import { freshServices } from "../support/services.ts";

const log = createLogger({ serviceName: "test", logLevel: "silent", logFormat: "json" });

test("the same ids for the first time are one message; again they are another, however soon", async () => {
  await using services = await freshServices();
  await using broker = await connectBroker({ url: services.natsUrl, namespace: services.namespace, replicas: 1 }, log);
  await ensureQueues(broker);
  const queue = openQueue(broker, log, createMetrics(new Registry()));
  const messages = async () =>
    (await broker.jsm.streams.info(ingestStream(services.namespace, "normal"))).state.messages;
  const rows = [{ tenantId: "a", id: "one", priority: Priority.NORMAL }];
  for (let n = 0; n < 2; n++) await queue.enqueue("a", rows, "first");
  expect(await messages()).toBe(1);
  for (let n = 0; n < 3; n++) await enqueueByTenant(queue, rows);
  expect(await messages()).toBe(4);
});
