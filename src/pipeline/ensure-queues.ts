import { setTimeout as delay } from "node:timers/promises";
import type { ConsumerConfig, ConsumerInfo, ConsumerUpdateConfig } from "nats";
import type { Broker } from "#src/broker/broker.ts";
import { jetstreamCode } from "#src/broker/jetstream-code.ts";
import {
  ALL_SHARDS,
  ingestStream,
  ingestStreamConfig,
  LANES,
  type LaneName,
  routeConsumer,
  routeConsumerConfig,
} from "./flow.ts";

/**
 * Creates the streams and consumers that are missing and brings the others up to date, as far as JetStream lets them change.
 * For the start of a process, and only that: while versions run side by side, the one that started last has its way.
 */
export async function ensureQueues(broker: Broker): Promise<void> {
  for (const { name } of LANES) {
    const stream = ingestStream(broker.namespace, name);
    const config = ingestStreamConfig(broker.namespace, name, broker.replicas);
    await broker.jsm.streams.add(config).catch(async (error) => {
      if (!EXISTS.has(jetstreamCode(error))) throw error;
      await broker.jsm.streams.update(stream, config);
    });
    await eachConsumer(broker, name, async (shard, found) => {
      const wanted = routeConsumerConfig(broker.namespace, name, shard);
      const changes = found && changesTo(found.config, wanted);
      if (changes !== undefined) await broker.jsm.consumers.update(stream, routeConsumer(shard), changes);
    });
  }
}

/**
 * Creates what has gone, and leaves the rest as it is: another version may have configured it. What has gone may still be
 * going, because somebody is deleting it: NATS (2.9 for one) frees the name of a stream before it removes its files, and
 * one that is created in between loses its files to that. It then takes messages, counts them, and never gives one out.
 */
export async function restoreQueues(broker: Broker): Promise<void> {
  await Promise.all(
    LANES.map(async ({ name }) => {
      const found = broker.jsm.streams.info(ingestStream(broker.namespace, name));
      const error = await found.then(() => undefined, jetstreamCode);
      if (error === STREAM_NOT_FOUND) {
        await delay(DELETED_WITHIN_MS, undefined, { ref: false });
        const config = ingestStreamConfig(broker.namespace, name, broker.replicas);
        await broker.jsm.streams.add(config).catch((error) => {
          if (!EXISTS.has(jetstreamCode(error))) throw error;
        });
      }
      await eachConsumer(broker, name, () => undefined);
    }),
  );
}

/** Creates the consumers of a lane that are missing, and tells of each that was there. */
async function eachConsumer(
  broker: Broker,
  name: LaneName,
  present: (shard: number, found: ConsumerInfo) => Promise<void> | undefined,
): Promise<void> {
  const stream = ingestStream(broker.namespace, name);
  await Promise.all(
    Array.from({ length: ALL_SHARDS }, async (_, shard) => {
      // Only one that is not there: to create one that is changes it.
      const found = await broker.jsm.consumers.info(stream, routeConsumer(shard)).catch((error) => {
        if (jetstreamCode(error) !== CONSUMER_NOT_FOUND) throw error;
        return undefined;
      });
      if (found !== undefined) await present(shard, found);
      else await broker.jsm.consumers.add(stream, routeConsumerConfig(broker.namespace, name, shard));
    }),
  );
}

/** What of a consumer's configuration may change and is to; undefined when there is nothing. */
function changesTo(
  current: ConsumerConfig,
  { ack_wait, max_deliver, max_ack_pending }: Partial<ConsumerConfig>,
): Partial<ConsumerUpdateConfig> | undefined {
  const wanted = { ack_wait, max_deliver, max_ack_pending };
  const changes = Object.entries(wanted).filter(([key, value]) => Reflect.get(current, key) !== value);
  return changes.length === 0 ? undefined : Object.fromEntries(changes);
}

/** For the removal of a stream's files. */
const DELETED_WITHIN_MS = 2000;

// Of JetStream's API.
const CONSUMER_NOT_FOUND = 10014;
const STREAM_NOT_FOUND = 10059;
/** With another configuration; and by another process at this very moment, said as an overlap of its subjects. */
const EXISTS: ReadonlySet<number | undefined> = new Set([10058, 10065]);
