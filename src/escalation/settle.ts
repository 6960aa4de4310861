import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { hourOf } from "#src/analytics/hour.ts";
import { followWholes, type MaybeWhole } from "#src/batches/follow.ts";
import { plain, texts } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import { ChainState } from "./state.ts";
import type { Stop } from "./stop.ts";

/** A notification that has ended because no channel took it, or its recipient wanted it by none any more. */
export type Lost = { id: string; userId: string; status: Status; reason: Reason };

/**
 * Ends those of the notifications, which the transaction has locked, that are PROCESSING with nothing left to try: no
 * hand-over and no escalation. FAILED (OUTCOME_UNKNOWN) those that a channel may have taken; CANCELLED those that were
 * stopped, by whom and why stands in `cancelled`; EXPIRED when their time is over,
 * or a rule would hold them until it is, for its reason in `tooLate`; SUPPRESSED those that their recipients' rules refused
 * last, each for its reason in `unwanted`; else FAILED.
 */
export async function endLost(
  tx: Tx,
  tenantId: string,
  ids: readonly string[],
  {
    now,
    slot,
    unwanted = new Map(),
    tooLate = new Map(),
    cancelled = new Map(),
  }: {
    now: Date;
    slot: number;
    unwanted?: ReadonlyMap<string, Reason>;
    tooLate?: ReadonlyMap<string, Reason>;
    cancelled?: ReadonlyMap<string, Stop>;
  },
): Promise<Lost[]> {
  if (ids.length === 0) return [];
  const stops = [...cancelled.values()];
  const rows = await tx<(Lost & MaybeWhole)[]>`
    with lost as materialized (
      select n.id, coalesce(n.expires_at <= ${now}, false) as expired, u.reason as unwanted, l.reason as too_late,
        c.reason as cancelled, c.actor,
        exists (select from timeline t where t.tenant_id = ${tenantId} and t.notification_id = n.id
          and t.reason = ${Reason.OUTCOME_UNKNOWN}) as unknown
      from notifications n
      left join unnest(${plain([...unwanted.keys()])}::uuid[], ${plain([...unwanted.values()])}::smallint[])
        as u (id, reason) on u.id = n.id
      left join unnest(${plain([...tooLate.keys()])}::uuid[], ${plain([...tooLate.values()])}::smallint[])
        as l (id, reason) on l.id = n.id
      left join unnest(${plain([...cancelled.keys()])}::uuid[], ${texts(stops.map(({ actor }) => actor))}::text[],
        ${plain(stops.map(({ reason }) => reason))}::smallint[]) as c (id, actor, reason) on c.id = n.id
      where n.tenant_id = ${tenantId} and n.id = any(${plain(ids)}::uuid[]) and n.status + 0 = ${Status.PROCESSING}
        and not exists (select from hand_overs h where h.tenant_id = ${tenantId} and h.notification_id = n.id)
        and not exists (select from escalations e where e.tenant_id = ${tenantId} and e.notification_id = n.id
          and e.state = ${ChainState.WAITING})
    ), ended as (
      update /* locked before */ notifications n
      set status = case when unknown then ${Status.FAILED}::smallint
          when cancelled is not null then ${Status.CANCELLED}::smallint
          when expired or too_late is not null then ${Status.EXPIRED}::smallint
          when unwanted is not null then ${Status.SUPPRESSED}::smallint else ${Status.FAILED}::smallint end,
        reason = case when unknown then ${Reason.OUTCOME_UNKNOWN}::smallint
          when cancelled is not null then cancelled when expired then ${Reason.EXPIRED}::smallint
          else coalesce(too_late, unwanted, ${Reason.CHANNEL_UNAVAILABLE}::smallint) end,
        updated_at = ${now}
      from lost where n.tenant_id = ${tenantId} and n.id = lost.id and n.id = any(${plain(ids)}::uuid[])
      returning n.id, n.user_id, n.type, n.status, n.reason, n.batch_id, n.batch_role, lost.actor
    ), history as (
      insert into timeline (tenant_id, notification_id, at, status, channel, reason, actor)
      select ${tenantId}, id, ${now}, status, 0, reason, actor from ended
    ), counted as (
      insert into counters (tenant_id, hour, type, channel, status, slot, count)
      select ${tenantId}, ${hourOf(now)}, type, 0, status, ${slot}, count(*) from ended
      group by type, status order by type, status
      on conflict (tenant_id, hour, type, channel, status, slot) do update set count = counters.count + excluded.count
    )
    select id, user_id as "userId", status, reason, batch_id as "batchId", batch_role as "batchRole" from ended`;
  await followWholes(tx, tenantId, rows, now, slot);
  return rows;
}
