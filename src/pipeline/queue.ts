import { headers, type MsgHdrs } from "nats";
import type { Broker } from "#src/broker/broker.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import { injectTrace } from "#src/telemetry/traces.ts";
import {
  CHUNK,
  encodeWork,
  ingestStream,
  ingestStreamConfig,
  ingestSubject,
  LANES,
  type LaneName,
  laneOf,
  routeConsumer,
  routeConsumerConfig,
  SHARDS,
  type Work,
} from "./flow.ts";

export type Queued = { id: string; priority: number };

/**
 * Puts ids on the lanes. Best effort by design: the rows are the record, and the reconciler queues again what was lost
 * here, so callers do not wait for it.
 */
export type Queue = {
  /** `attempt` tells a first queueing (0) from later ones, which JetStream must not take for duplicates. */
  enqueue(tenantId: string, items: readonly Queued[], attempt: number): Promise<void>;
  enqueueFanout(tenantId: string, fanoutId: string, priority: number, attempt: number): Promise<void>;
};

/** Publishes that wait for JetStream beyond this are left to the reconciler. */
const MAX_PENDING = 2000;

export function openQueue(broker: Broker, log: Logger, onFailure: (lane: LaneName) => void): Queue {
  let pending = 0;

  async function publish(lane: LaneName, work: Work, messageId: string): Promise<void> {
    if (pending >= MAX_PENDING || !broker.up()) return onFailure(lane);
    pending++;
    try {
      await broker.js.publish(ingestSubject(broker.namespace, lane, work.tenantId), encodeWork(work), {
        msgID: messageId,
        headers: traceHeaders(),
      });
    } catch (error) {
      log.warn({ err: error, lane }, "could not queue a chunk; the reconciler will");
      onFailure(lane);
    } finally {
      pending--;
    }
  }

  return {
    async enqueue(tenantId, items, attempt) {
      const publishes: Promise<void>[] = [];
      for (const lane of LANES) {
        const ids = items.filter((item) => laneOf(item.priority) === lane).map((item) => item.id);
        for (let start = 0; start < ids.length; start += CHUNK) {
          const chunk = ids.slice(start, start + CHUNK);
          publishes.push(publish(lane.name, { tenantId, ids: chunk }, `${chunk[0]}:${attempt}`));
        }
      }
      await Promise.all(publishes);
    },
    enqueueFanout: (tenantId, fanoutId, priority, attempt) =>
      publish(laneOf(priority).name, { tenantId, fanoutId }, `${fanoutId}:${attempt}`),
  };
}

/** Queues rows of many tenants, each tenant's together. The instant makes the message ids differ from earlier ones. */
export async function enqueueByTenant<R extends { tenantId: string; id: string; priority: number }>(
  queue: Queue,
  rows: readonly R[],
  now: Date,
): Promise<void> {
  const tenants = Map.groupBy(rows, (row) => row.tenantId);
  await Promise.all([...tenants].map(([tenantId, items]) => queue.enqueue(tenantId, items, now.getTime())));
}

/** Creates the streams and consumers that are missing and brings the others up to date. Idempotent. */
export async function ensureQueues(broker: Broker): Promise<void> {
  for (const { name } of LANES) {
    const config = ingestStreamConfig(broker.namespace, name, broker.replicas);
    const stream = ingestStream(broker.namespace, name);
    await broker.jsm.streams.add(config).catch(async (error) => {
      // 10058: the stream exists with another configuration.
      if ((error as { api_error?: { err_code?: number } }).api_error?.err_code !== 10058) throw error;
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
}

function traceHeaders(): MsgHdrs {
  const carrier: Record<string, string> = {};
  injectTrace(carrier);
  const result = headers();
  for (const [key, value] of Object.entries(carrier)) result.set(key, value);
  return result;
}
