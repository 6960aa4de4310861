import { create, toBinary } from "@bufbuild/protobuf";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Reason, Status, TimelineEntrySchema } from "#gen/posthorn/v1/notification_pb.ts";
import { Fault, notFound } from "#src/errors.ts";
import type { Tx } from "#src/store/store.ts";
import { lockChains, storeChains } from "./queries.ts";
import { advance, ChainState } from "./state.ts";

const CONFIRMED = toBinary(TimelineEntrySchema, create(TimelineEntrySchema, { confirmed: true }));

/** `first`: it is this confirmation that counts; `escalated`: it has ended an escalation. */
export type Confirmed = {
  userId: string;
  type: string;
  status: Status;
  confirmedAt: Date;
  first: boolean;
  escalated: boolean;
};

/**
 * Notes that the recipient has confirmed a notification, and ends its escalation. Throws NOT_FOUND when there is none, or
 * none of `userId`, and NOTIFICATION_NOT_DELIVERED before it has reached the recipient.
 */
export async function confirm(
  tx: Tx,
  tenantId: string,
  id: string,
  { userId, actor, now }: { userId: string | undefined; actor: string; now: Date },
): Promise<Confirmed> {
  const [row] = await tx<(Pick<Confirmed, "userId" | "type" | "status"> & { confirmedAt: Date | null })[]>`
    select user_id as "userId", type, status, confirmed_at as "confirmedAt" from notifications
    where tenant_id = ${tenantId} and id = ${id} for update`;
  if (row === undefined || (userId !== undefined && row.userId !== userId)) throw notFound("notification");
  const { status, confirmedAt } = row;
  if (status !== Status.DELIVERED && status !== Status.READ) throw notDelivered(status);
  if (confirmedAt !== null) return { ...row, confirmedAt, first: false, escalated: false };
  await tx`update notifications set confirmed_at = ${now} where tenant_id = ${tenantId} and id = ${id}`;
  await tx`insert into timeline (tenant_id, notification_id, at, status, channel, reason, actor, detail)
    values (${tenantId}, ${id}, ${now}, 0, 0, 0, ${actor}, ${CONFIRMED})`;
  const open = (await lockChains(tx, tenantId, [id])).get(id);
  if (open !== undefined) {
    const { chain } = advance(open.chain, { kind: "confirmed" }, now);
    await storeChains(tx, tenantId, [{ ...open, chain }], now);
  }
  const escalated = open?.chain.state === ChainState.WAITING;
  return { ...row, confirmedAt: now, first: true, escalated };
}

/** Ends the escalation of a notification; whether one went on. Throws NOT_FOUND when there is no such notification. */
export async function cancelEscalation(
  tx: Tx,
  tenantId: string,
  id: string,
  { actor, now }: { actor: string; now: Date },
): Promise<boolean> {
  const rows = await tx`select from notifications where tenant_id = ${tenantId} and id = ${id} for update`;
  if (rows.length === 0) throw notFound("notification");
  const open = (await lockChains(tx, tenantId, [id])).get(id);
  if (open?.chain.state !== ChainState.WAITING) return false;
  const { chain } = advance(open.chain, { kind: "cancelled", reason: Reason.CANCELLED }, now);
  await storeChains(tx, tenantId, [{ ...open, chain }], now);
  await tx`insert into timeline (tenant_id, notification_id, at, status, channel, reason, actor)
    values (${tenantId}, ${id}, ${now}, 0, 0, ${Reason.CANCELLED}, ${actor})`;
  return true;
}

function notDelivered(status: Status): Fault {
  const name = Object.entries(Status).find(([, value]) => value === status)?.[0] ?? "UNSPECIFIED";
  return new Fault(ErrorReason.NOTIFICATION_NOT_DELIVERED, { metadata: { status: name } });
}
