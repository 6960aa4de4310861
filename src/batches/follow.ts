import { Channel, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { hourOf } from "#src/analytics/hour.ts";
import { plain } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import { BatchRole } from "./role.ts";

/** A row that may be a batch's notification. */
export type MaybeWhole = { id: string; batchId: string | null; batchRole: number | null };

/**
 * Lets the members of closed batches share what has just become of the batches' notifications: delivered, read or ended,
 * with history and counters. Call it in the transaction that changed these, with whatever was changed; where no batch is
 * among it, which is nearly always, it does nothing. `by`: the channel that delivered them.
 */
export async function followWholes(
  tx: Tx,
  tenantId: string,
  changed: readonly MaybeWhole[],
  now: Date,
  slot: number,
  by: Channel = Channel.IN_APP,
): Promise<void> {
  const wholes = changed.filter(({ batchRole }) => batchRole === BatchRole.WHOLE);
  if (wholes.length === 0) return;
  const channel = tx`case when status in (${Status.DELIVERED}, ${Status.READ}) then ${by}::smallint else 0 end`;
  await tx`
    with whole as materialized (
      select batch_id, status, reason, delivered_at from notifications
      where tenant_id = ${tenantId} and id = any(${plain(wholes.map(({ id }) => id))}::uuid[])
        and batch_role = ${BatchRole.WHOLE} and status >= ${Status.DELIVERED}
    ), member as materialized (
      select n.id from notifications n join whole w using (batch_id)
      where n.tenant_id = ${tenantId} and n.batch_id = any(${plain(wholes.map(({ batchId }) => batchId))}::uuid[])
        and n.batch_role = ${BatchRole.MERGED}
        and (n.status = ${Status.BATCHED} or n.status = ${Status.DELIVERED} and w.status = ${Status.READ})
      order by n.id for update of n
    ), moved as (
      update notifications n
      set status = w.status, reason = w.reason, delivered_at = w.delivered_at, updated_at = ${now}
      from whole w
      where n.tenant_id = ${tenantId} and n.id = any(array(select id from member)) and n.batch_id = w.batch_id
      returning n.id, n.type, n.status, n.reason
    ), history as (
      insert into timeline (tenant_id, notification_id, at, status, channel, reason)
      select ${tenantId}::uuid, id, ${now}::timestamptz, status, ${channel}, reason from moved
    )
    insert into counters (tenant_id, hour, type, channel, status, slot, count)
    select ${tenantId}::uuid, ${hourOf(now)}::timestamptz, type, ${channel}, status, ${slot}::smallint, count(*)
    from moved group by type, status order by type, status
    on conflict (tenant_id, hour, type, channel, status, slot) do update set count = counters.count + excluded.count`;
}
