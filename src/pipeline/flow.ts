import { createHash } from "node:crypto";
import {
  AckPolicy,
  type ConsumerConfig,
  DiscardPolicy,
  nanos,
  RetentionPolicy,
  StorageType,
  type StreamConfig,
} from "nats";
import { Priority } from "#gen/posthorn/v1/notification_pb.ts";

// The map: every stream, subject and consumer of the platform, and nothing else names them.
//
//   INGEST_<LANE>   work queue   ingest.<lane>.<shard>        accept, schedule, reconcile ──▶ route
//                                shards 0 to 15: what is usual; 16 to 19: floods, beside them
//   (core NATS)     at most once live.user.<tenant>.<user>    route, inbox, preferences   ──▶ stream hub
//                                live.tenant.<tenant>, live.topic.<tenant>.<topic>, live.all
//                                invalidate                   caches (broker/invalidations.ts)
//
// Messages of a work queue carry ids only: the stage reads the row, so what was updated, cancelled or erased meanwhile is
// honoured, and no content rests in the queue.

/** One work queue per priority, so that a lane never waits for another; most urgent first. */
export const LANES = [
  { name: "critical", priority: Priority.CRITICAL },
  { name: "high", priority: Priority.HIGH },
  { name: "normal", priority: Priority.NORMAL },
  { name: "low", priority: Priority.LOW },
] as const;

export type Lane = (typeof LANES)[number];
export type LaneName = Lane["name"];

export function laneOf(priority: number): Lane {
  return LANES.find((lane) => lane.priority === priority) ?? LANES[2];
}

/** A tenant always falls on the same one of these; workers take shards in turn, so that the tenants of one wait in it. */
export const SHARDS = 16;

/**
 * Further shards of a lane, for what a tenant queues beyond its share (floods.ts): it waits for other floods, and in front
 * of nobody else. They take their turns like the others. Few, so that all floods together have few of the turns.
 */
export const FLOOD_SHARDS = 4;

/** All of a lane's: first the usual ones, then those for floods. */
export const ALL_SHARDS = SHARDS + FLOOD_SHARDS;

export function shardOf(tenantId: string): number {
  return (createHash("sha256").update(tenantId).digest()[0] ?? 0) % SHARDS;
}

/** The one for floods of a usual shard's tenants: what is waiting of a tenant is on these two. */
export function floodShardBeside(shard: number): number {
  return SHARDS + (shard % FLOOD_SHARDS);
}

export function isFloodShard(shard: number): boolean {
  return shard >= SHARDS;
}

/** Ids in one message: enough to make a round trip worth while, few enough to be decided within a few milliseconds. */
export const CHUNK = 250;

/** What a message of an INGEST stream says: notifications to decide, or a fan-out to go on with. */
export type Work = { tenantId: string; ids: string[] } | { tenantId: string; fanoutId: string };

export function encodeWork(work: Work): Uint8Array {
  return Buffer.from(JSON.stringify(work));
}

/** Throws when it is none: whoever may write to NATS, and another version of this program, may send anything. */
export function decodeWork(bytes: Uint8Array): Work {
  const work: unknown = JSON.parse(Buffer.from(bytes).toString());
  if (!isWork(work)) throw new Error("the message is none of ours");
  return work;
}

function isWork(value: unknown): value is Work {
  if (typeof value !== "object" || value === null) return false;
  const { tenantId, ids, fanoutId } = value as Record<string, unknown>;
  if (typeof tenantId !== "string") return false;
  return ids === undefined
    ? typeof fanoutId === "string"
    : Array.isArray(ids) && ids.every((id) => typeof id === "string");
}

export function ingestStream(namespace: string, lane: LaneName): string {
  return `${streamPrefix(namespace)}_INGEST_${lane.toUpperCase()}`;
}

export function ingestShard(namespace: string, lane: LaneName, shard: number): string {
  return `${namespace}.ingest.${lane}.${shard}`;
}

export function ingestStreamConfig(namespace: string, lane: LaneName, replicas: number): Partial<StreamConfig> {
  return {
    name: ingestStream(namespace, lane),
    subjects: [`${namespace}.ingest.${lane}.*`],
    retention: RetentionPolicy.Workqueue,
    storage: StorageType.File,
    num_replicas: replicas,
    // Full is an error for the publisher, whose rows the reconciler queues again; dropping the oldest would be silent.
    discard: DiscardPolicy.New,
    max_bytes: 1024 * 1024 * 1024,
    duplicate_window: nanos(120_000),
  };
}

/** How long a fan-out may stand still while its message seems to be on the queue. */
export const FANOUT_LEASE_MS = 30_000;

/** How long a worker may be silent about a chunk before another one gets it. */
export const ACK_WAIT_MS = 30_000;

export function routeConsumer(shard: number): string {
  return `route_${shard}`;
}

export function routeConsumerConfig(namespace: string, lane: LaneName, shard: number): Partial<ConsumerConfig> {
  return {
    durable_name: routeConsumer(shard),
    filter_subject: ingestShard(namespace, lane, shard),
    ack_policy: AckPolicy.Explicit,
    ack_wait: nanos(ACK_WAIT_MS),
    // A message past max_deliver would be stranded in the work queue: consume.ts ends poison itself.
    max_deliver: -1,
    max_ack_pending: 64,
  };
}

// Subjects of live events. Ids may hold dots, stars and angle brackets, so they travel encoded.

export const live = {
  user: (namespace: string, tenantId: string, userId: string) => `${namespace}.live.user.${tenantId}.${token(userId)}`,
  topic: (namespace: string, tenantId: string, topic: string) => `${namespace}.live.topic.${tenantId}.${token(topic)}`,
  tenant: (namespace: string, tenantId: string) => `${namespace}.live.tenant.${tenantId}`,
  all: (namespace: string) => `${namespace}.live.all`,
};

function token(id: string): string {
  return Buffer.from(id).toString("base64url");
}

function streamPrefix(namespace: string): string {
  return namespace.replaceAll(/[^A-Za-z0-9_-]/g, "_");
}
