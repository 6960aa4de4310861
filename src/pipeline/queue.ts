import { type SpanContext, SpanStatusCode } from "@opentelemetry/api";
import { headers } from "nats";
import type { Broker } from "#src/broker/broker.ts";
import { publishing } from "#src/telemetry/conventions.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import { type TracedItems, tracedItems, writeTraces } from "#src/telemetry/message-traces.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { recordedTrace, spanIn } from "#src/telemetry/work-spans.ts";
import { FANOUT_COUNTS, SHARE, watchFloods } from "./floods.ts";
import {
  CHUNK,
  encodeWork,
  floodShardBeside,
  ingestShard,
  LANES,
  type LaneName,
  laneOf,
  shardOf,
  type Work,
} from "./flow.ts";

/** `trace`: the recorded trace it belongs to; travels with it. */
export type Queued = { id: string; priority: number; trace?: SpanContext | undefined };

/**
 * Puts ids on the lanes. Best effort by design: the rows are the record, and the reconciler queues again what was lost
 * here, so callers do not wait for it. What a tenant queues beyond its share waits aside, on a shard for floods.
 */
export type Queue = {
  /** The same ids for the `first` time are one message. `again` makes another, also in the same instant. */
  enqueue(tenantId: string, items: readonly Queued[], turn: "first" | "again"): Promise<void>;
  /** `attempt` tells the pages of a fan-out, and their resumptions, from each other, for JetStream drops what is repeated. */
  enqueueFanout(
    tenantId: string,
    fanout: { id: string; priority: number; trace?: SpanContext | undefined },
    attempt: number,
  ): Promise<void>;
};

/** Publishes that wait for JetStream beyond this are left to the reconciler. */
const MAX_PENDING = 2000;

/** @param ticks milliseconds that only rise, such as `performance.now` */
export function openQueue(
  broker: Broker,
  log: Logger,
  metrics: Pick<Metrics, "queuePublished" | "queuePublishFailures" | "queueAside">,
  ticks: () => number,
): Queue {
  let pending = 0;
  const floods = watchFloods(SHARE, ({ tenantId: tenant, lane, aside: notifications }) => {
    if (notifications === undefined)
      log.info({ tenant, lane }, "a tenant queues more than its share; the rest waits aside");
    else log.info({ tenant, lane, notifications }, "a tenant that queued more than its share is back");
  });

  async function publish(
    lane: LaneName,
    work: Work,
    messageId: string | undefined,
    traced: TracedItems,
  ): Promise<void> {
    if (pending >= MAX_PENDING || !broker.up()) return metrics.queuePublishFailures.inc({ lane });
    pending++;
    const count = "ids" in work ? work.ids.length : FANOUT_COUNTS;
    const isAside = floods.isAside(work.tenantId, lane, count, ticks());
    const usual = shardOf(work.tenantId);
    const shard = isAside ? floodShardBeside(usual) : usual;
    const subject = ingestShard(broker.namespace, lane, shard);
    const [first] = traced.keys();
    const span = first && spanIn(first, publishing(`ingest.${lane}`, subject, shard));
    const carried = span && headers();
    if (span && carried) writeTraces(carried, span.spanContext(), traced, "ids" in work ? work.ids.length : 0);
    try {
      await broker.js.publish(subject, encodeWork(work), {
        ...(messageId === undefined ? {} : { msgID: messageId }),
        ...(carried === undefined ? {} : { headers: carried }),
      });
      metrics.queuePublished.inc({ lane });
      if (isAside) metrics.queueAside.inc({ lane });
    } catch (error) {
      span?.setStatus({ code: SpanStatusCode.ERROR });
      log.warn({ err: error, lane, tenant: work.tenantId }, "could not queue a chunk; the reconciler will");
      metrics.queuePublishFailures.inc({ lane });
    } finally {
      pending--;
      span?.end();
    }
  }

  return {
    async enqueue(tenantId, items, turn) {
      const publishes: Promise<void>[] = [];
      for (const lane of LANES) {
        const own = items.filter((item) => laneOf(item.priority) === lane);
        for (let start = 0; start < own.length; start += CHUNK) {
          const chunk = own.slice(start, start + CHUNK);
          const ids = chunk.map((item) => item.id);
          // Who queues again has claimed the rows: nobody else does it with these, and it may be soon after the last time.
          const messageId = turn === "first" ? ids[0] : undefined;
          publishes.push(publish(lane.name, { tenantId, ids }, messageId, tracedItems(chunk)));
        }
      }
      await Promise.all(publishes);
    },
    enqueueFanout: (tenantId, { id, priority, trace }, attempt) =>
      publish(
        laneOf(priority).name,
        { tenantId, fanoutId: id },
        `${id}:${attempt}`,
        trace === undefined ? new Map() : new Map([[trace, []]]),
      ),
  };
}

/** Queues rows of many tenants again, each tenant's together. */
export async function enqueueByTenant<R extends { tenantId: string; id: string; priority: number }>(
  queue: Queue,
  rows: readonly R[],
): Promise<void> {
  const trace = recordedTrace();
  const traced = trace === undefined ? rows : rows.map((row) => ({ ...row, trace }));
  const tenants = Map.groupBy(traced, (row) => row.tenantId);
  await Promise.all([...tenants].map(([tenantId, items]) => queue.enqueue(tenantId, items, "again")));
}
