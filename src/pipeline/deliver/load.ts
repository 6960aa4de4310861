import { BatchRole } from "#src/batches/role.ts";
import { ChainState } from "#src/escalation/state.ts";
import { oneOf } from "#src/inbox/queries.ts";
import type { Tx } from "#src/store/store.ts";
import type { Claimed } from "./claim.ts";

/** What there is to hand over, as it stands. */
export type Stored = {
  id: string;
  type: string;
  category: string;
  priority: number;
  /** Bit n is set when channel n was asked for. */
  channels: number;
  status: number;
  bypassLimits: boolean;
  expiresAt: Date | null;
  senderId: string | null;
  /** It is the notification of a batch, or was left alone in one. */
  collected: boolean;
  /** Encoded posthorn.v1.Content. */
  content: Uint8Array;
  /** Nobody has answered it yet. */
  goesOn: boolean;
};

export async function loadMessages(
  tx: Tx,
  tenantId: string,
  claimed: readonly Claimed[],
): Promise<ReadonlyMap<string, Stored>> {
  // An exhausted chain has not been answered: its last step may still be on the way.
  const rows = await tx<Stored[]>`
    select n.id, n.type, n.category, n.priority, n.channels, n.status, n.bypass_limits as "bypassLimits",
      n.expires_at as "expiresAt", n.sender_id as "senderId",
      n.batch_role is not distinct from ${BatchRole.WHOLE}
        or n.batch_role is not distinct from ${BatchRole.ALONE} and n.batched_at is not null as collected,
      coalesce(n.content, f.content) as content,
      exists (select from escalations e where e.tenant_id = ${tenantId} and e.notification_id = n.id
        and e.state in (${ChainState.WAITING}, ${ChainState.EXHAUSTED})) as "goesOn"
    from notifications n
    left join fanouts f on f.tenant_id = n.tenant_id and f.id = n.fanout_id and n.content is null
    where n.tenant_id = ${tenantId} ${oneOf(
      tx,
      claimed.map(({ notificationId }) => notificationId),
    )}`;
  return new Map(rows.map((row) => [row.id, row]));
}
