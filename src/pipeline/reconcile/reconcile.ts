import type { Broker } from "#src/broker/broker.ts";
import { uuidFloor } from "#src/store/partitions.ts";
import type { Store } from "#src/store/store.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { ingestStream, LANES } from "../flow.ts";
import { enqueueByTenant, type Queue } from "../queue.ts";

type Lost = { tenantId: string; id: string; priority: number };

/** Between the clocks of Posthorn and NATS, and between commit and publish. */
const MARGIN_MS = 5000;
const PER_TENANT = 1000;

/**
 * Finds notifications that are ACCEPTED in Postgres and no longer on the queue, and queues them again: after a crash
 * between commit and publish, an outage of NATS, or the loss of its store. Returns how many.
 *
 * What is on the queue is told by the age of the lane's oldest message: a work queue keeps a message until it is acked, so
 * a row older than every message there has none. A backlog is thus never queued twice, however long it waits. Routing is
 * idempotent, so a mistake here costs work and nothing else.
 */
export async function reconcile(
  deps: { store: Store; broker: Broker; queue: Queue; metrics: Metrics },
  now: Date,
  afterMs: number,
): Promise<number> {
  let count = 0;
  for (const lane of LANES) {
    const { state } = await deps.broker.jsm.streams.info(ingestStream(deps.broker.namespace, lane.name));
    const oldest = state.messages === 0 ? Number.POSITIVE_INFINITY : Date.parse(state.first_ts) - MARGIN_MS;
    const before = new Date(Math.min(now.getTime() - afterMs, oldest));
    for (;;) {
      const lost = await claimLost(deps.store, lane.priority, before, now);
      await enqueueByTenant(deps.queue, lost, now);
      count += lost.length;
      deps.metrics.reconcilerRepublished.inc({ lane: lane.name }, lost.length);
      if (lost.length === 0) break;
    }
  }
  return count + (await resumeFanouts(deps, now));
}

/** Marks rows as queued now and returns them. Skips through the tenants by index: the cost grows with what is lost. */
async function claimLost(store: Store, priority: number, before: Date, now: Date): Promise<Lost[]> {
  return store.system(
    (tx) => tx<Lost[]>`
      with lost as (
        select n.tenant_id, n.id from tenants t cross join lateral (
          select tenant_id, id from notifications
          where tenant_id = t.id and priority = ${priority} and status = 1 and id < ${uuidFloor(before)}
            and (queued_at is null or queued_at < ${before})
          order by id limit ${PER_TENANT} for update skip locked
        ) n
      )
      update notifications n set queued_at = ${now} from lost
      where n.tenant_id = lost.tenant_id and n.id = lost.id and n.status = 1
      returning n.tenant_id as "tenantId", n.id, n.priority`,
  );
}

/** Fan-outs whose worker has not moved them within their lease. */
async function resumeFanouts(deps: { store: Store; queue: Queue }, now: Date): Promise<number> {
  const stalled = await deps.store.system(
    (tx) => tx<Lost[]>`
      update fanouts set lease_until = ${new Date(now.getTime() + 30_000)}
      where (tenant_id, id) in (
        select tenant_id, id from fanouts where lease_until < ${now} order by lease_until limit 100 for update skip locked)
      returning tenant_id as "tenantId", id, priority`,
  );
  await Promise.all(
    stalled.map(({ tenantId, id, priority }) => deps.queue.enqueueFanout(tenantId, id, priority, now.getTime())),
  );
  return stalled.length;
}
