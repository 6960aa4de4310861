import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { withoutBatch } from "#src/notifications/queries.ts";
import { enqueueByTenant, type Queue } from "#src/pipeline/queue.ts";
import type { Store } from "#src/store/store.ts";
import { requeueing } from "#src/telemetry/conventions.ts";
import { withRootSpan } from "#src/telemetry/work-spans.ts";

export type Released = { tenantId: string; id: string; priority: number; dueAt: Date };

/**
 * Releases notifications whose time has come (SCHEDULED, HELD, and BATCHED in a batch that was dissolved) to the queue, the most urgent first. Any number of
 * schedulers may run: each row is claimed by one. Returns what was released; fewer than `limit` means nothing more is due.
 */
export async function releaseDue(deps: { store: Store; queue: Queue }, now: Date, limit: number): Promise<Released[]> {
  const released = await deps.store.system(
    (tx) => tx<Released[]>`
      with due as (
        select tenant_id, id, due_at from notifications
        where due_at <= ${now} order by due_at limit ${limit} for update skip locked
      ), released as (
        update notifications n set status = ${Status.ACCEPTED}, due_at = null, queued_at = ${now}, updated_at = ${now},
          ${withoutBatch(tx)}
        from due where n.tenant_id = due.tenant_id and n.id = due.id and n.status in (2, 3, 4)
        returning n.tenant_id, n.id, n.priority, due.due_at
      ), history as (
        insert into timeline (tenant_id, notification_id, at, status, channel, reason)
        select tenant_id, id, ${now}, ${Status.ACCEPTED}, 0, 0 from released
      )
      select tenant_id as "tenantId", id, priority, due_at as "dueAt" from released
      order by priority desc, due_at, id`,
  );
  if (released.length > 0) await withRootSpan(requeueing("due"), () => enqueueByTenant(deps.queue, released, now));
  return released;
}
