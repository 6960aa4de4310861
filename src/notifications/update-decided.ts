import { type Channel, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { lockChains } from "#src/escalation/queries.ts";
import { ChainState } from "#src/escalation/state.ts";
import type { Tx } from "#src/store/store.ts";
import { notOpen } from "./not-open.ts";
import type { NotificationRow } from "./notification.ts";
import { type Changes, updateRow } from "./queries.ts";

/** Outside channels of one that was changed, in ascending order. */
export type Told = {
  /** Those that get it as it is now, if they get it. */
  updated: Channel[];
  /** Those that are being given it as it was, or may have got it so; not, and they are given it as it is now. */
  pending: Channel[];
};

type HandOver = { channel: Channel; claimed: boolean; given: boolean; stopped: boolean };

const DECIDED: ReadonlySet<number> = new Set([Status.PROCESSING, Status.DELIVERED, Status.READ]);

/**
 * Changes a notification that is decided, and that the transaction has locked, for what outside channels have not got of
 * it. A claim is the fence: whoever claims a hand-over after this reads what it has become, and what is claimed may have
 * been read before. Undefined, and nothing changed, where nothing waits outside.
 *
 * A new time takes back what has reached nobody: it is SCHEDULED, or was due before and stays as it is. Throws
 * NOTIFICATION_NOT_OPEN, with the field, where it has come or may have.
 */
export async function updateDecided(
  tx: Tx,
  tenantId: string,
  before: NotificationRow,
  changes: Changes,
  now: Date,
): Promise<Told | undefined> {
  const { id } = before;
  if (!DECIDED.has(before.status)) return undefined;
  const these = tx`tenant_id = ${tenantId} and notification_id = ${id}`;
  const all = await tx<HandOver[]>`
    select channel, claimed, given, cancelled_by is not null as stopped from hand_overs
    where ${these} order by step, channel for update`;
  const chain = (await lockChains(tx, tenantId, [id])).get(id)?.chain;
  const steps = chain?.state === ChainState.WAITING ? chain.steps.slice(chain.taken) : undefined;
  const open = all.filter(({ stopped }) => !stopped);
  if (open.length === 0 && steps === undefined) return undefined;
  const isOut = ({ claimed, given }: HandOver) => claimed || given;
  if (changes.scheduledAt !== undefined) {
    if (before.status !== Status.PROCESSING || all.some(isOut) || (await mayHaveCome(tx, tenantId, id)))
      throw notOpen(before.status, {
        field: changes.localTime === undefined ? "schedule_time" : "local_schedule_time",
        description: "it has come by a channel, or may have; leave the time out, or cancel it and send another",
      });
    if (changes.scheduledAt !== null && changes.scheduledAt > now) {
      await tx`delete from hand_overs where ${these}`;
      await tx`delete from escalations where ${these} and state in (${ChainState.WAITING}, ${ChainState.EXHAUSTED})`;
      await updateRow(tx, tenantId, id, changes, now, tx`true`);
      return { updated: [], pending: [] };
    }
  }
  await updateRow(tx, tenantId, id, changes, now, tx`true`);
  // What would come too late by now is asked at once, and told so.
  if (changes.expiresAt)
    await tx`update hand_overs set due_at = ${now}
      where ${these} and not claimed and due_at > ${now} and due_at >= ${changes.expiresAt}`;
  const channels = (some: readonly { channel: Channel }[]) =>
    [...new Set(some.map(({ channel }) => channel))].toSorted((a, b) => a - b);
  return {
    updated: channels([...open.filter((each) => !isOut(each)), ...(steps ?? [])]),
    pending: channels(open.filter(isOut)),
  };
}

async function mayHaveCome(tx: Tx, tenantId: string, id: string): Promise<boolean> {
  const unknown = await tx`select from timeline
    where tenant_id = ${tenantId} and notification_id = ${id} and reason = ${Reason.OUTCOME_UNKNOWN} limit 1`;
  return unknown.length > 0;
}
