import { type Channel, Priority, type Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { plain } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import type { OfChannel } from "./channel-slots.ts";

const URGENCY = [Priority.CRITICAL, Priority.HIGH, Priority.NORMAL, Priority.LOW];

export type Claimed = {
  tenantId: string;
  notificationId: string;
  userId: string;
  step: number;
  channel: Channel;
  /** With this one. */
  attempts: number;
  /** Since when it may have been claimed. */
  dueAt: Date;
  /** For which reason it waited until then, if a rule or a limit held it; else UNSPECIFIED. */
  heldBy: Reason;
  /** The recorded trace that goes on with it. */
  trace: string | null;
  atMostOnce: boolean;
  /** It was given to the channel before, which may have taken it. */
  inDoubt: boolean;
  /** Whoever cancelled it while somebody else had claimed it. */
  cancelledBy: string | null;
};

/**
 * Claims what is due until `until`: of each channel as many as it says, the most urgent first, and of those the longest
 * due, answered in this order, in which the limits of their channels are asked. Each is claimed by one, and counts as given
 * to its channel with that: but for those that are at most once, which `give` notes before it is so.
 */
export async function claimDue(tx: Tx, now: Date, until: Date, room: readonly OfChannel[]): Promise<Claimed[]> {
  // Or the planner, who knows no numbers, reads everything that waits instead of looking each one up.
  const [, claimed] = await Promise.all([
    tx`select set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)`.execute(),
    tx<Claimed[]>`
      with due as materialized (
        select mine.* from unnest(
          ${plain(room.map(({ channel }) => channel))}::smallint[], ${plain(room.map(({ size }) => size))}::int[]
        ) as room (channel, size) cross join lateral (
          select its.* from unnest(${plain(URGENCY)}::smallint[]) as lane (priority) cross join lateral (
            select h.tenant_id, h.notification_id, h.step, h.channel, h.due_at, h.given, h.held_by from hand_overs h
            where h.channel = room.channel and h.priority = lane.priority and h.due_at <= ${now}
            order by h.due_at limit room.size for update skip locked
          ) its limit room.size
        ) mine
      ), claimed as (
        update hand_overs set due_at = ${until}, attempts = least(attempts + 1, 32767),
          claimed = true, given = hand_overs.given or not at_most_once, held_by = -abs(hand_overs.held_by)
        from due d where hand_overs.tenant_id = d.tenant_id and hand_overs.notification_id = d.notification_id
          and hand_overs.step = d.step and hand_overs.channel = d.channel
        returning d.tenant_id, d.notification_id, user_id, d.step, d.channel, attempts, d.due_at, d.held_by, trace,
          at_most_once, d.given, cancelled_by, priority
      )
      select tenant_id as "tenantId", notification_id as "notificationId", user_id as "userId", step, channel, attempts,
        due_at as "dueAt", abs(held_by) as "heldBy", trace, at_most_once as "atMostOnce", given as "inDoubt",
        cancelled_by as "cancelledBy"
      from claimed order by priority desc, due_at, notification_id, step`.execute(),
  ]);
  return claimed;
}

/**
 * Notes that a channel is about to be given what it must not be given twice. False: somebody else has claimed it since, and
 * it is theirs.
 */
export async function give(tx: Tx, { tenantId, notificationId, step, channel, attempts }: Claimed): Promise<boolean> {
  const mine = await tx`
    update hand_overs set given = true where tenant_id = ${tenantId} and notification_id = ${notificationId}
      and step = ${step} and channel = ${channel} and attempts = ${attempts} and not given`;
  return mine.count > 0;
}
