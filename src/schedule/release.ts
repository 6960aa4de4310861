import { Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { withoutBatch } from "#src/notifications/queries.ts";
import { enqueueByTenant, type Queue } from "#src/pipeline/queue.ts";
import { instants, plain } from "#src/store/arrays.ts";
import type { Store, Tx } from "#src/store/store.ts";
import { requeueing } from "#src/telemetry/conventions.ts";
import { withRootSpan } from "#src/telemetry/work-spans.ts";

export type Released = { tenantId: string; id: string; priority: number; dueAt: Date };

const URGENCY = [Priority.CRITICAL, Priority.HIGH, Priority.NORMAL, Priority.LOW];

/**
 * Releases notifications whose time has come (SCHEDULED, HELD, and BATCHED in a batch that was dissolved) to the queue,
 * the most urgent first: one of a lower priority is only taken when nothing above it is due, however long it has been due.
 * Any number of schedulers may run: each row is claimed by one. Returns what was released; fewer than `limit` means nothing
 * more is due.
 */
export async function releaseDue(deps: { store: Store; queue: Queue }, now: Date, limit: number): Promise<Released[]> {
  const released = await deps.store.system(async (tx) => {
    // Or the planner, who knows no numbers, reads everything that waits for any time instead of looking each one up.
    const [, rows] = await Promise.all([
      tx`select set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)`.execute(),
      claimDue(tx, now, limit),
    ]);
    return rows;
  });
  if (released.length > 0) await withRootSpan(requeueing("due"), () => enqueueByTenant(deps.queue, released));
  return released;
}

async function claimDue(tx: Tx, now: Date, limit: number): Promise<Released[]> {
  // In two statements, because the first locks: see store/unpruned.ts.
  const due = await tx<Pick<Released, "tenantId" | "id" | "dueAt">[]>`
    select mine.* from unnest(${plain(URGENCY)}::smallint[]) as lane (priority) cross join lateral (
      select n.tenant_id as "tenantId", n.id, n.due_at as "dueAt" from notifications n
      where n.priority = lane.priority and n.due_at <= ${now}
      order by n.due_at limit ${limit} for update skip locked
    ) mine limit ${limit}`;
  if (due.length === 0) return [];
  return tx<Released[]>`
    with released as (
      update /* locked before */ notifications n
      set status = ${Status.ACCEPTED}, due_at = null, queued_at = ${now}, updated_at = ${now}, ${withoutBatch(tx)}
      from unnest(
        ${plain(due.map(({ tenantId }) => tenantId))}::uuid[], ${plain(due.map(({ id }) => id))}::uuid[],
        ${instants(due.map(({ dueAt }) => dueAt))}::timestamptz[]
      ) as due (tenant_id, id, due_at)
      where n.tenant_id = due.tenant_id and n.id = due.id and n.status + 0 in (2, 3, 4)
      returning n.tenant_id, n.id, n.priority, due.due_at
    ), history as (
      insert into timeline (tenant_id, notification_id, at, status, channel, reason)
      select tenant_id, id, ${now}, ${Status.ACCEPTED}, 0, 0 from released
    )
    select tenant_id as "tenantId", id, priority, due_at as "dueAt" from released
    order by priority desc, due_at, id`;
}
