import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { lockChains, storeChains } from "#src/escalation/queries.ts";
import { advance, ChainState } from "#src/escalation/state.ts";
import { oneOf } from "#src/inbox/queries.ts";
import type { Tx } from "#src/store/store.ts";
import type { Failed } from "./record.ts";

/**
 * Lets escalations go on to the next step at once where the last did not come by its channel, or where none of the
 * decision's did and it has come to the recipient in no other way.
 */
export async function failSteps(tx: Tx, tenantId: string, failed: readonly Failed[], now: Date): Promise<void> {
  const steps = lastSteps(failed.filter(({ unknown }) => !unknown));
  if (steps.size === 0) return;
  const first = [...steps].flatMap(([id, step]) => (step === 0 ? [id] : []));
  const reached = first.length === 0 ? new Set() : await reachedOrTrying(tx, tenantId, first);
  const ids = [...steps.keys()].filter((id) => !reached.has(id));
  const chains = await lockChains(tx, tenantId, ids);
  const moved = [...chains.values()].map((open) => {
    const event = { kind: "failed", step: steps.get(open.notificationId) ?? 0 } as const;
    return { ...open, chain: advance(open.chain, event, now).chain };
  });
  await storeChains(
    tx,
    tenantId,
    moved.filter(({ chain }) => chain.state === ChainState.WAITING),
    now,
  );
}

/** Only the last of a notification's steps may be the one that its escalation waits after. */
function lastSteps(failed: readonly Failed[]): ReadonlyMap<string, number> {
  const steps = new Map<string, number>();
  for (const { notificationId, step } of failed)
    steps.set(notificationId, Math.max(step, steps.get(notificationId) ?? 0));
  return steps;
}

/** Of notifications that the transaction has locked: those that have or may have come, or that a channel may yet take. */
async function reachedOrTrying(tx: Tx, tenantId: string, ids: readonly string[]): Promise<ReadonlySet<string>> {
  const rows = await tx<{ id: string }[]>`
    select n.id from notifications n where n.tenant_id = ${tenantId} ${oneOf(tx, ids)}
      and (n.status + 0 <> ${Status.PROCESSING}
        or exists (select from hand_overs h where h.tenant_id = ${tenantId} and h.notification_id = n.id)
        or exists (select from timeline t where t.tenant_id = ${tenantId} and t.notification_id = n.id
          and t.reason = ${Reason.OUTCOME_UNKNOWN}))`;
  return new Set(rows.map(({ id }) => id));
}
