/**
 * Every instrument of Posthorn, made in one place. Labels are closed sets: never a tenant, a user or an id, because
 * each value is a time series for ever. What belongs to one tenant is in AnalyticsService.
 */

import { Counter, Gauge, Histogram, type Registry } from "prom-client";

/** Seconds, from what a cached answer takes to what a caller gives up on. */
const latency = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
/** Items of a group, a chunk or a batch. */
const sizes = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500];
/** Seconds of waiting that people notice. */
const waits = [0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3_600];

/** The labels there may be. `method` is the full name of an RPC of the contract, never what a caller sent. */
type Label =
  | "transport"
  | "method"
  | "code"
  | "lane"
  | "channel"
  | "status"
  | "reason"
  | "stage"
  | "event"
  | "limit"
  | "decision"
  | "kind"
  | "pool"
  | "outcome";

export type Metrics = ReturnType<typeof createMetrics>;

/** Makes the instruments in `registry`, which must not hold them already. Times are seconds, as Prometheus asks. */
export function createMetrics(registry: Registry) {
  const registers = [registry];
  const counter = <const L extends Label = never>(name: string, help: string, ...labelNames: L[]) =>
    new Counter<L>({ name: `posthorn_${name}_total`, help, labelNames, registers });
  const gauge = <const L extends Label = never>(name: string, help: string, ...labelNames: L[]) =>
    new Gauge<L>({ name: `posthorn_${name}`, help, labelNames, registers });
  const histogram = <const L extends Label = never>(
    name: string,
    help: string,
    buckets: number[],
    ...labelNames: L[]
  ) => new Histogram<L>({ name: `posthorn_${name}`, help, buckets, labelNames, registers });

  return {
    rpcRequests: counter("rpc_requests", "Calls answered.", "transport", "method", "code"),
    rpcSeconds: histogram("rpc_seconds", "Time to answer a unary call.", latency, "transport", "method"),
    rpcActive: gauge("rpc_active", "Calls being answered, streams included.", "transport"),

    acceptGroupItems: histogram("accept_group_items", "Notifications in one accept commit.", sizes),
    acceptGroupSeconds: histogram("accept_group_seconds", "Time of one accept commit.", latency),
    accepted: counter("notifications_accepted", "Notifications committed by Send.", "lane"),
    deduplicated: counter("notifications_deduplicated", "Sends that an earlier one answered.", "kind"),
    decided: counter("notifications_decided", "Decisions committed.", "channel", "status", "lane"),
    verdicts: counter("verdicts", "Verdicts of gates other than deliver.", "reason", "lane"),
    endToEndSeconds: histogram("end_to_end_seconds", "From accepted to in the inbox.", waits, "lane"),

    routeChunkItems: histogram("route_chunk_items", "Notifications in one chunk.", sizes, "lane"),
    routeChunkSeconds: histogram("route_chunk_seconds", "Time to decide and commit one chunk.", latency, "lane"),
    queuePublishFailures: counter(
      "queue_publish_failures",
      "Chunks the queue refused; the reconciler repeats them.",
      "lane",
    ),
    queueMessages: counter("queue_messages", "Queue messages handled.", "stage", "lane", "outcome"),
    queueWaiting: gauge("queue_waiting", "Messages waiting in the queue.", "stage", "lane"),

    streamsOpen: gauge("streams_open", "Streams open on this process.", "transport"),
    streamsOpened: counter("streams_opened", "Streams begun.", "transport"),
    streamsClosed: counter("streams_closed", "Streams ended, by why.", "reason"),
    streamEvents: counter("stream_events", "Events written to streams.", "event"),
    streamSlowConsumers: counter("stream_slow_consumers", "Streams told to resume because their queue was full."),
    streamReplayed: counter("stream_replayed_events", "Events replayed to resuming streams."),
    streamResets: counter("stream_resets", "Resumes whose history had been trimmed."),

    limiterDecisions: counter("limiter_decisions", "Answers of the limiter.", "limit", "decision"),
    limiterFallback: counter("limiter_fallback", "Decisions made without Redis.", "limit", "decision"),
    redisSeconds: histogram("redis_seconds", "Time of one round trip to Redis.", latency),

    reconcilerRepublished: counter("reconciler_republished", "Notifications put back on the queue.", "lane"),
    schedulerLagSeconds: histogram("scheduler_lag_seconds", "From due to released.", waits, "kind"),
    schedulerReleased: counter("scheduler_released", "Due work released.", "kind"),

    poolInUse: gauge("pool_in_use", "Database connections in use.", "pool"),
    poolWaiting: gauge("pool_waiting", "Statements waiting for a database connection.", "pool"),
    dependencyUp: gauge("dependency_up", "1 while a dependency answers, 0 while it does not.", "kind"),
  };
}
