import { plain } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";

/** A notification that waits for its decision, as stored. */
export type Waiting = {
  id: string;
  userId: string;
  type: string;
  category: string;
  priority: number;
  /** Bit n is set when channel n was asked for. */
  channels: number;
  /** Encoded posthorn.v1.Content. */
  content: Uint8Array;
  tags: string[] | null;
  bypassLimits: boolean;
  attempts: number;
  scheduledAt: Date | null;
  expiresAt: Date | null;
  senderId: string | null;
  /** The turn that its limits gave it when it was held, and the reason of that. */
  bookedAt: Date | null;
  reason: number;
  batchRole: number | null;
  batchedAt: Date | null;
  groupKey: string | null;
  /** Encoded posthorn.v1.Escalation, as sent. */
  escalation: Uint8Array | null;
  /** Differs after every change of the row. */
  version: string;
};

/** Reads those of the ids that are still ACCEPTED. What was decided, cancelled or updated meanwhile shows here. */
export async function loadWaiting(tx: Tx, tenantId: string, ids: readonly string[]): Promise<Waiting[]> {
  const sorted = [...ids].sort();
  // By the primary key only: see commit.ts.
  return tx<Waiting[]>`
    select n.id, n.user_id as "userId", n.type, n.category, n.priority, n.channels,
      coalesce(n.content, f.content) as content, n.tags, n.bypass_limits as "bypassLimits", n.attempts,
      n.scheduled_at as "scheduledAt", n.expires_at as "expiresAt", n.sender_id as "senderId",
      n.booked_at as "bookedAt", n.reason, n.batch_role as "batchRole", n.batched_at as "batchedAt",
      n.group_key as "groupKey", n.escalation, n.xmin::text as version
    from notifications n
    left join fanouts f on f.tenant_id = n.tenant_id and f.id = n.fanout_id and n.content is null
    where n.tenant_id = ${tenantId} and n.id = any(${plain(ids)}::uuid[])
      and n.id between ${sorted[0] ?? ""} and ${sorted.at(-1) ?? ""} and n.status + 0 = 1
    order by n.id`;
}
