import { create, toBinary } from "@bufbuild/protobuf";
import { type Channel, Reason, TimelineEntrySchema, VerdictKind } from "#gen/posthorn/v1/notification_pb.ts";
import { bytes, plain } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import { lockChains, storeChains } from "./queries.ts";
import { advance, ChainState } from "./state.ts";

/** What was stopped of a notification. */
export type Stopped = {
  id: string;
  /** Those that it goes to no more. */
  channels: Channel[];
  /** Those that are being given it: it may still come by them, but is not tried again. */
  pending: Channel[];
  /** Its escalation has ended. */
  escalated: boolean;
};

/** Who stops what, and why; `actor` null: nobody, since a newer one takes its place. */
export type Stop = { actor: string | null; reason: Reason };

/** What stands in `cancelled_by` where nobody did. */
const NOBODY = "posthorn";

/** How somebody's stop of a hand-over that was claimed is kept on its row. */
export function storedStop({ cancelledBy, cancelReason }: { cancelledBy: string; cancelReason: Reason | null }): Stop {
  const reason = cancelReason ?? Reason.CANCELLED;
  return { actor: cancelledBy === NOBODY ? null : cancelledBy, reason };
}

/**
 * Stops whatever of the notifications, which the transaction has locked, outside channels have not got: what waits is handed
 * over no more, what somebody has claimed is not tried again, and escalations end. A claim is the fence: what is claimed may
 * have gone. Only those of which something was stopped are answered, so that of two who cancel the second stops nothing.
 */
export async function stopOutside(
  tx: Tx,
  tenantId: string,
  ids: readonly string[],
  { actor, reason, now }: Stop & { now: Date },
): Promise<Stopped[]> {
  if (ids.length === 0) return [];
  const these = tx`h.tenant_id = ${tenantId} and h.notification_id = any(${plain(ids)}::uuid[])`;
  // In this order, as whoever deletes a user's does: see users/delete.ts.
  await tx`select count(*) from (
    select from hand_overs h where ${these} order by notification_id, step, channel for update) locked`;
  const gone = await tx<HandOver[]>`
    delete from hand_overs h where ${these} and not claimed returning notification_id as id, step, channel, given`;
  const inHand = await tx<HandOver[]>`
    update hand_overs h set cancelled_by = ${actor ?? NOBODY}, cancel_reason = ${reason} where ${these} and cancelled_by is null
    returning notification_id as id, step, channel, given`;
  await tellStopped(tx, tenantId, gone, { actor, reason, now });
  const chains = [...(await lockChains(tx, tenantId, ids)).values()].filter(
    ({ chain }) => chain.state === ChainState.WAITING,
  );
  const cancelled = { kind: "cancelled", reason } as const;
  await storeChains(
    tx,
    tenantId,
    chains.map((open) => ({ ...open, chain: advance(open.chain, cancelled, now).chain })),
    now,
  );
  const escalated = new Set(chains.map(({ notificationId }) => notificationId));
  const stopped = new Set([...gone.map(({ id }) => id), ...inHand.map(({ id }) => id), ...escalated]);
  const channelsOf = (some: readonly HandOver[], of: string) => [
    ...new Set(some.flatMap(({ id, channel }) => (id === of ? [channel] : []))),
  ];
  return [...stopped].toSorted().map((id) => ({
    id,
    channels: channelsOf(gone, id),
    pending: channelsOf(inHand, id),
    escalated: escalated.has(id),
  }));
}

type HandOver = { id: string; step: number; channel: Channel; given: boolean };

/** Of a hand-over that was tried and not answered nobody knows whether it has come. */
async function tellStopped(
  tx: Tx,
  tenantId: string,
  gone: readonly HandOver[],
  { actor, reason: why, now }: Stop & { now: Date },
): Promise<void> {
  if (gone.length === 0) return;
  const told = gone.map(({ id, step, channel, given }) => {
    const reason = given ? Reason.OUTCOME_UNKNOWN : why;
    const verdict = { channel, reason, kind: given ? VerdictKind.UNKNOWN : VerdictKind.SUPPRESS };
    const entry = create(TimelineEntrySchema, { step, verdicts: [verdict] });
    return { id, channel, reason, detail: toBinary(TimelineEntrySchema, entry) };
  });
  await tx`
    insert into timeline (tenant_id, notification_id, at, status, channel, reason, actor, detail)
    select ${tenantId}, id, ${now}, 0, channel, reason, ${actor}, detail
    from unnest(
      ${plain(told.map(({ id }) => id))}::uuid[],
      ${plain(told.map(({ channel }) => channel))}::smallint[],
      ${plain(told.map(({ reason }) => reason))}::smallint[],
      ${bytes(told.map(({ detail }) => detail))}::bytea[]
    ) as t (id, channel, reason, detail)`;
}
