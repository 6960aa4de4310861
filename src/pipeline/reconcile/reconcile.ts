import type { JetStreamManager } from "nats";
import type { Broker } from "#src/broker/broker.ts";
import { jetstreamCode } from "#src/broker/jetstream-code.ts";
import { instants, plain } from "#src/store/arrays.ts";
import { uuidFloor } from "#src/store/partitions.ts";
import type { Store, Tx } from "#src/store/store.ts";
import { requeueing } from "#src/telemetry/conventions.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { withRootSpan } from "#src/telemetry/work-spans.ts";
import {
  ALL_SHARDS,
  FANOUT_LEASE_MS,
  floodShardBeside,
  ingestShard,
  ingestStream,
  LANES,
  type LaneName,
  routeConsumer,
  SHARDS,
} from "../flow.ts";
import { enqueueByTenant, type Queue } from "../queue.ts";

type Lost = { tenantId: string; id: string; priority: number };

/** Between the clocks of Posthorn and NATS, and between commit and publish. */
const MARGIN_MS = 5000;
const PER_TENANT = 1000;

type ReconcileDeps = { store: Store; broker: Broker; queue: Queue; metrics: Metrics };

/**
 * Finds notifications that are ACCEPTED in Postgres, and fan-outs that are running there, which are no longer on the queue,
 * and queues them again: after a crash between commit and publish, an outage of NATS, or the loss of its store. Returns how
 * many.
 *
 * What is on the queue is told by the age of the oldest message of the tenant's shards: a work queue keeps a message until
 * it is acked, so a row older than every message there has none. A backlog is thus never queued twice, however long it
 * waits. Losses younger than the oldest message are found when that is done, and none stays for ever: a message that
 * always fails is given back to here (see consume.ts). Routing is idempotent, so a mistake costs work and nothing else.
 */
export async function reconcile(deps: ReconcileDeps, now: Date, afterMs: number): Promise<number> {
  let count = 0;
  for (const lane of LANES) {
    const before = await missedBefore(deps.broker, lane.name, new Date(now.getTime() - afterMs));
    for (;;) {
      const lost = await claimLost(deps.store, lane.priority, before, now);
      if (lost.length > 0) await withRootSpan(requeueing("lost"), () => enqueueByTenant(deps.queue, lost));
      count += lost.length;
      deps.metrics.reconcilerRepublished.inc({ lane: lane.name }, lost.length);
      if (lost.length === 0) break;
    }
    count += await resumeFanouts(deps, lane.priority, before, now);
  }
  return count;
}

/**
 * Of each usual shard, how old a row has to be that must have been on the queue by now and is not. It may be on the shard for
 * floods beside it as well.
 */
async function missedBefore({ jsm, namespace }: Broker, lane: LaneName, latest: Date): Promise<Date[]> {
  const stream = ingestStream(namespace, lane);
  const { state } = await jsm.streams.info(stream);
  const nothingOlder = state.messages === 0 || Date.parse(state.first_ts) - MARGIN_MS > latest.getTime();
  if (nothingOlder) return new Array<Date>(SHARDS).fill(latest);
  const oldest = await Promise.all(
    Array.from({ length: ALL_SHARDS }, (_, shard) =>
      oldestOn(jsm, stream, ingestShard(namespace, lane, shard), routeConsumer(shard)),
    ),
  );
  return Array.from({ length: SHARDS }, (_, shard) => {
    const present = [oldest[shard], oldest[floodShardBeside(shard)]].filter((at) => at !== undefined);
    return new Date(Math.min(latest.getTime(), ...present.map((at) => at.getTime() - MARGIN_MS)));
  });
}

/**
 * When the oldest message came that is not done. Those up to the consumer's floor are: a NATS that was killed between noting an
 * ack and removing the message keeps it for ever, and gives it to nobody.
 */
async function oldestOn(
  jsm: JetStreamManager,
  stream: string,
  subject: string,
  consumer: string,
): Promise<Date | undefined> {
  const info = await jsm.consumers.info(stream, consumer).catch(() => undefined); // Missing: it begins at the first.
  // The client's types know this request of the server only for reading past its API.
  const first = { seq: (info?.ack_floor.stream_seq ?? 0) + 1, next_by_subj: subject } as { seq: number };
  try {
    return (await jsm.streams.getMessage(stream, first)).time;
  } catch (error) {
    if (jetstreamCode(error) === NO_MESSAGE) return undefined;
    throw error;
  }
}

const NO_MESSAGE = 10037;

/** Marks rows as queued now and returns them. Skips through the tenants by index: the cost grows with what is lost. */
async function claimLost(store: Store, priority: number, before: readonly Date[], now: Date): Promise<Lost[]> {
  const shards = Map.groupBy(before.keys(), (shard) => before[shard]?.getTime() ?? 0);
  return store.system(async (tx) => {
    // One for each instant, mostly one for all, and the change by itself: see store/unpruned.ts.
    const locked = await Promise.all(
      [...shards].map(([at, these]) =>
        tx<Pick<Lost, "tenantId" | "id">[]>`
          select n.tenant_id as "tenantId", n.id from (
            select id from tenants where ${shardIn(tx, "id")} = any(${plain(these.map((shard) => shard + 1))}::int[])
          ) t cross join lateral (
            select tenant_id, id from notifications
            where tenant_id = t.id and priority = ${priority} and status = 1 and id < ${uuidFloor(new Date(at))}
              and (queued_at is null or queued_at < ${new Date(at)})
            order by id limit ${PER_TENANT} for update skip locked
          ) n`.execute(),
      ),
    );
    const lost = locked.flat();
    if (lost.length === 0) return [];
    return tx<Lost[]>`
      update /* locked before */ notifications n set queued_at = ${now}
      from unnest(${plain(lost.map(({ tenantId }) => tenantId))}::uuid[], ${plain(lost.map(({ id }) => id))}::uuid[])
        as lost (tenant_id, id)
      where n.tenant_id = lost.tenant_id and n.id = lost.id and n.status = 1
      returning n.tenant_id as "tenantId", n.id, n.priority`;
  });
}

/**
 * Fan-outs that are not on the queue, as a row is not that was last queued when they were last moved; and those that
 * nobody has moved within their lease, whatever is there. Two messages for the same page are one too many, and no more: the
 * second one finds it stored.
 */
async function resumeFanouts(
  { store, queue }: Pick<ReconcileDeps, "store" | "queue">,
  priority: number,
  before: readonly Date[],
  now: Date,
): Promise<number> {
  const leases = before.map((moved) => new Date(moved.getTime() + FANOUT_LEASE_MS));
  for (let count = 0; ; ) {
    const stalled = await store.system(
      (tx) => tx<Lost[]>`
        update fanouts set lease_until = ${new Date(now.getTime() + FANOUT_LEASE_MS)}
        where (tenant_id, id) in (
          select tenant_id, id from fanouts
          where lease_until is not null and priority = ${priority}
            and lease_until < greatest(${now}::timestamptz, (${instants(leases)}::timestamptz[])[${shardIn(tx, "tenant_id")}])
          order by lease_until limit ${FANOUTS} for update skip locked)
        returning tenant_id as "tenantId", id, priority`,
    );
    await Promise.all(stalled.map(({ tenantId, ...fanout }) => queue.enqueueFanout(tenantId, fanout, now.getTime())));
    count += stalled.length;
    if (stalled.length < FANOUTS) return count;
  }
}

/** At once. */
const FANOUTS = 100;

/** The tenant's place in an array with an item for each shard; as shardOf in flow.ts does it. */
function shardIn(tx: Tx, column: "id" | "tenant_id") {
  return tx`1 + get_byte(sha256(convert_to(${tx(column)}::text, 'UTF8')), 0) % ${SHARDS}::int`;
}
