/**
 * Every instrument of Posthorn, made in one place. Labels are closed sets: never a tenant, a user or an id, because
 * each value is a time series for ever. What belongs to one tenant is in AnalyticsService.
 *
 * Stages count per chunk and per group, not per notification: what carries one notification pays for none of this.
 */

import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import { WeightedHistogram } from "./weighted-histogram.ts";

/** Seconds, from what a cached answer takes to what a caller gives up on. */
const latency = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
/** Items of a group, a chunk or a batch. */
const sizes = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500];
/** Seconds on the way through the whole platform: from what it aims at to what people notice. */
const ways = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600];

/**
 * The labels there may be: none that Prometheus gives itself (`job`, `instance`), and `method` is the full name of an RPC of
 * the contract, never what a caller sent.
 */
type Label =
  | "transport"
  | "method"
  | "code"
  | "lane"
  | "channel"
  | "status"
  | "reason"
  | "stage"
  | "step"
  | "event"
  | "limit"
  | "decision"
  | "kind"
  | "task"
  | "pool"
  | "dependency"
  | "outcome";

/** Has its instrument set by whoever knows the value, whenever somebody reads it. */
type Sampled = { read(set: () => void): void };

export type Metrics = ReturnType<typeof createMetrics>;

/** Makes the instruments in `registry`, which must not hold them already. Times are seconds, as Prometheus asks. */
export function createMetrics(registry: Registry) {
  const registers = [registry];
  const counter = <const L extends Label = never>(name: string, help: string, ...labelNames: L[]) =>
    new Counter<L>({ name: `posthorn_${name}_total`, help, labelNames, registers });
  const gauge = <const L extends Label = never>(name: string, help: string, ...labelNames: L[]) =>
    new Gauge<L>({ name: `posthorn_${name}`, help, labelNames, registers });
  const sampled = <const L extends Label = never>(
    name: string,
    help: string,
    ...labelNames: L[]
  ): Gauge<L> & Sampled => {
    const readers: (() => void)[] = [];
    const made = new Gauge<L>({
      name: `posthorn_${name}`,
      help,
      labelNames,
      registers,
      collect() {
        for (const read of readers) read();
      },
    });
    return Object.assign(made, { read: (set: () => void) => void readers.push(set) });
  };
  const histogram = <const L extends Label = never>(
    name: string,
    help: string,
    buckets: number[],
    ...labelNames: L[]
  ) => new Histogram<L>({ name: `posthorn_${name}`, help, buckets, labelNames, registers });
  const weighted = <const L extends Label>(name: string, help: string, buckets: number[], label: L) =>
    new WeightedHistogram<L>({ name: `posthorn_${name}`, help, buckets, label, registry });

  return {
    rpcRequests: counter("rpc_requests", "Calls answered.", "transport", "method", "code"),
    rpcSeconds: histogram("rpc_seconds", "Time to answer a unary call.", latency, "method"),
    rpcActive: gauge("rpc_active", "Calls being answered, streams included.", "transport"),
    rpcLimited: counter("rpc_limited", "Calls refused because the API limit was used up, by whose limit.", "limit"),

    acceptWaitSeconds: histogram("accept_wait_seconds", "Longest wait of a Send for its group's commit.", latency),
    acceptGroupItems: histogram("accept_group_items", "Sends in one accept commit.", sizes),
    acceptGroupSeconds: histogram("accept_group_seconds", "Time of one accept commit.", latency),
    accepted: counter("notifications_accepted", "Notifications committed, those of fan-outs included.", "lane"),
    deduplicated: counter("notifications_deduplicated", "Sends or recipients that an earlier one answered.", "kind"),

    deprecatedSends: counter("deprecated_sends", "Sends of deprecated types, by what came of them.", "outcome"),
    contractsUnusable: counter(
      "payload_contract_unusable",
      "Looks for payload contracts that this process cannot use.",
    ),

    queuePublished: counter("queue_published", "Chunks put on the queue.", "lane"),
    queuePublishFailures: counter(
      "queue_publish_failures",
      "Chunks the queue refused; the reconciler repeats them.",
      "lane",
    ),
    queueAside: counter("queue_aside", "Chunks put aside: their tenants queued more than their share.", "lane"),
    queueWaitSeconds: histogram("queue_wait_seconds", "From on the queue to taken by a worker.", ways, "stage", "lane"),
    queueMessages: counter("queue_messages", "Queue messages handled.", "stage", "lane", "outcome"),
    queueWaiting: gauge("queue_waiting", "Messages on the queue, those at work included.", "stage", "lane"),
    queueOldestSeconds: gauge("queue_oldest_seconds", "Age of the oldest message on the queue.", "stage", "lane"),

    routeChunkSize: gauge("route_chunk_size", "Notifications that are decided in one go at most, at present.", "lane"),
    routeChunkItems: histogram("route_chunk_items", "Notifications in one chunk.", sizes, "lane"),
    routeChunkSeconds: histogram("route_chunk_seconds", "Time to decide and commit one chunk.", latency, "lane"),
    routeStepSeconds: histogram("route_step_seconds", "Time of one step of a chunk.", latency, "step"),
    decided: counter("notifications_decided", "Decisions committed.", "channel", "status", "lane"),
    verdicts: counter("verdicts", "Verdicts of gates other than deliver.", "reason", "lane"),
    filterFailures: counter("filter_failures", "Notifications kept back because a filter of the recipient failed."),
    endToEndSeconds: weighted(
      "end_to_end_seconds",
      "From accepted to in the inbox, of what need not wait.",
      ways,
      "lane",
    ),

    streamsOpen: sampled("streams_open", "Streams open on this process."),
    streamsOpened: counter("streams_opened", "Streams begun."),
    streamsClosed: counter("streams_closed", "Streams ended, by why.", "reason"),
    streamEvents: counter("stream_events", "Events given to streams.", "event"),
    streamSeconds: histogram("stream_seconds", "From accepted to on the stream, of one notification of a chunk.", ways),
    streamSlowConsumers: counter("stream_slow_consumers", "Streams told to resume because their queue was full."),
    streamReplayed: counter("stream_replayed_events", "Events replayed to resuming streams."),
    streamResets: counter("stream_resets", "Resumes whose history had been trimmed."),

    limiterDecisions: counter("limiter_decisions", "Answers of the limiter.", "limit", "decision"),
    limiterFallback: counter("limiter_fallback", "Decisions made without Redis.", "limit", "decision"),
    redisSeconds: histogram("redis_seconds", "Time of one round trip to Redis.", latency),

    handOvers: counter("hand_overs", "Hand-overs to outside channels, by what came of them.", "channel", "outcome"),
    handOverRepeats: counter(
      "hand_over_repeats",
      "Hand-overs to channels that may have taken the same before.",
      "channel",
    ),
    handOverSeconds: histogram("hand_over_seconds", "From due to answered by the channel.", ways, "channel"),
    escalationsBegun: counter("escalations_begun", "Escalations begun."),
    escalationSteps: counter("escalation_steps", "Turns of escalations' steps, by what came.", "channel", "outcome"),
    escalationsEnded: counter("escalations_ended", "Escalations ended, by what ended them.", "outcome"),
    escalationsOpen: gauge("escalations_open", "Escalations that wait for an answer, counted up to 10,000."),
    confirmations: counter("confirmations", "Notifications confirmed."),
    hourlyCap: counter("hourly_cap", "What users' hourly caps said.", "decision"),
    batchesClosed: counter("batches_closed", "Batches and digests that ended, by why.", "kind", "reason"),
    batchItems: histogram("batch_items", "Notifications that a batch or digest was made of.", sizes, "kind"),
    occurrences: counter("occurrences", "Occurrences of schedules, by what came of them.", "outcome"),

    reconcilerRepublished: counter("reconciler_republished", "Notifications put back on the queue.", "lane"),
    schedulerLagSeconds: weighted("scheduler_lag_seconds", "From due to released.", ways, "kind"),
    schedulerReleased: counter("scheduler_released", "Due work released.", "kind"),
    schedulerWaiting: gauge("scheduler_waiting", "Due work that waits, counted up to 10,000.", "kind"),
    schedulerOldestSeconds: gauge("scheduler_oldest_seconds", "How long the oldest due work has waited.", "kind"),
    schedulerBatchSize: gauge("scheduler_batch_size", "Due work taken in one go at most, at present.", "kind"),
    jobSeconds: histogram("job_seconds", "Time of one run of a periodic job.", latency, "task"),
    jobFailures: counter("job_failures", "Runs of a periodic job that failed.", "task"),

    poolSize: sampled("pool_size", "Database connections there may be.", "pool"),
    poolInUse: sampled("pool_in_use", "Database connections in use.", "pool"),
    poolWaiting: sampled("pool_waiting", "Transactions waiting for a database connection.", "pool"),
    memoryLive: gauge("memory_live_bytes", "Heap and buffers that the last full garbage collection left."),
    memoryThreshold: gauge("memory_threshold_bytes", "Live memory above which work that can wait does so."),
    memoryPressureSeconds: counter("memory_pressure_seconds", "Time in which memory was short, by how short.", "kind"),
    dependencyUp: gauge("dependency_up", "1 while a dependency answers, and Postgres takes writes.", "dependency"),
    draining: gauge("draining", "1 while this process goes out of service."),
  };
}
