import { setTimeout as delay } from "node:timers/promises";
import type { Broker } from "#src/broker/broker.ts";
import { jetstreamCode } from "#src/broker/jetstream-code.ts";
import {
  ingestStream,
  ingestStreamConfig,
  LANES,
  type LaneName,
  routeConsumer,
  routeConsumerConfig,
  SHARDS,
} from "./flow.ts";

/** Creates the streams and consumers that are missing and brings the streams up to date. Idempotent. */
export async function ensureQueues(broker: Broker): Promise<void> {
  for (const { name } of LANES) await ensureLane(broker, name);
}

/**
 * The same for queues that were there already, and may be gone because somebody is deleting them: NATS (2.9 for one) frees
 * the name of a stream before it removes its files, and one that is created in between loses its files to that. It then
 * takes messages, counts them, and never gives one out.
 */
export async function restoreQueues(broker: Broker): Promise<void> {
  for (const { name } of LANES) {
    const found = broker.jsm.streams.info(ingestStream(broker.namespace, name));
    const error = await found.then(() => undefined, jetstreamCode);
    if (error === STREAM_NOT_FOUND) await delay(DELETED_WITHIN_MS, undefined, { ref: false });
    await ensureLane(broker, name);
  }
}

async function ensureLane(broker: Broker, name: LaneName): Promise<void> {
  const config = ingestStreamConfig(broker.namespace, name, broker.replicas);
  const stream = ingestStream(broker.namespace, name);
  await broker.jsm.streams.add(config).catch(async (error) => {
    if (!EXISTS.has(jetstreamCode(error))) throw error;
    await broker.jsm.streams.update(stream, config);
  });
  await Promise.all(
    Array.from({ length: SHARDS }, async (_, shard) => {
      const exists = await broker.jsm.consumers.info(stream, routeConsumer(shard)).catch(() => undefined);
      if (exists === undefined) {
        await broker.jsm.consumers.add(stream, routeConsumerConfig(broker.namespace, name, shard));
      }
    }),
  );
}

/** For the removal of a stream's files. */
const DELETED_WITHIN_MS = 2000;

// Of JetStream's API.
const STREAM_NOT_FOUND = 10059;
/** With another configuration; and by another process at this very moment, said as an overlap of its subjects. */
const EXISTS: ReadonlySet<number | undefined> = new Set([10058, 10065]);
