import { type Channel, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { hourOf } from "#src/analytics/hour.ts";
import { followWholes, type MaybeWhole } from "#src/batches/follow.ts";
import { type Stop, storedStop } from "#src/escalation/stop.ts";
import { bytes, instants, plain, texts } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import type { Claimed } from "./claim.ts";
import { byPresentExpiry } from "./outdated.ts";
import { detailOf, reasonOf } from "./told.ts";
import type { Hold } from "./within-limits.ts";

/**
 * `drop`: it has ended, or its step was answered. `cancelled`: its sender wants it no more. `unknown`: the channel may have
 * taken it, and is not to be given it again. `unwanted`: its recipient's rules refuse the channel by now, for that reason.
 * `back`: whoever claimed it had to stop. `held`: not now; nor was it tried. `expired` with a reason: it would be held for
 * that until it has. `inDoubt`: of what is to be tried again, whether the channel may have taken it.
 */
export type CameOf =
  | { kind: "sent" | "failed" | "drop" | "unknown" | "cancelled" }
  | { kind: "retry" | "back"; inDoubt: boolean }
  | { kind: "expired"; reason?: Reason }
  | { kind: "held"; hold: Hold }
  | { kind: "unwanted"; reason: Reason };

/**
 * `expiresAt`: of its notification, as it was when it was asked. `cancelledBy`: by whom, and why, it was stopped after it
 * was claimed.
 */
export type Result = CameOf & { claimed: Claimed; expiresAt?: Date | null | undefined; cancelledBy?: Stop };

/** `first`: it had reached its recipient in no other way before. */
export type Delivered = { id: string; userId: string; channel: number; first: boolean };

/** One that waits for its turn with a channel; `status`: of the notification, as it is. */
export type Held = { id: string; userId: string; channel: number; status: number; reason: Reason; until: Date };

/** One that goes to a channel no more, for that reason; `status`: of the notification, as it is. */
export type Gone = Omit<Held, "until">;

/**
 * `unwanted`: it was no fault of the channel's, but the recipient's word. `tooLate`: nor that, but a rule's for so long.
 * `unknown`: it may have come, and what follows it waits for its time. `cancelledBy`: nothing is to follow it.
 */
export type Failed = {
  notificationId: string;
  step: number;
  unwanted?: Reason;
  tooLate?: Reason;
  unknown?: true;
  cancelledBy?: Stop;
};

/**
 * Notes what came of hand-overs: those that are done go away, with history and counters; the others are due again. Those
 * that somebody else has claimed since are passed over.
 */
export async function record(
  tx: Tx,
  tenantId: string,
  results: readonly Result[],
  { now, slot, retryAt }: { now: Date; slot: number; retryAt(attempts: number): Date },
): Promise<{ delivered: Delivered[]; held: Held[]; gone: Gone[]; failed: Failed[] }> {
  const ids = plain([...new Set(results.map(({ claimed }) => claimed.notificationId))].toSorted());
  await tx`select count(*) from (
    select from notifications where tenant_id = ${tenantId} and id = any(${ids}::uuid[]) order by id for update) locked`;
  const standing = await withCancelled(tx, tenantId, await byPresentExpiry(tx, tenantId, results));
  const mine = await noteDone(tx, tenantId, standing, { now, retryAt });
  const sent = mine.filter(({ kind }) => kind === "sent");
  const failed = mine.filter(({ kind }) => kind !== "sent" && kind !== "drop" && kind !== "held");
  const held = mine.filter(isToldHeld);
  const told = [...sent, ...failed, ...held];
  if (told.length === 0) return { delivered: [], held: [], gone: [], failed: [] };
  const rows = await tx<ToldRow[]>`
    with told as (
      select t.*, row_number() over (partition by t.id order by not t.sent, t.channel) as nth from unnest(
        ${plain(told.map(({ claimed }) => claimed.notificationId))}::uuid[],
        ${plain(told.map(({ claimed }) => claimed.channel))}::smallint[],
        ${plain(told.map(({ kind }) => kind === "sent"))}::boolean[],
        ${plain(told.map(reasonOf))}::smallint[],
        ${bytes(told.map(detailOf))}::bytea[],
        ${texts(told.map(stoppedBy))}::text[]
      ) as t (id, channel, sent, reason, detail, actor)
    ), told_of as materialized (
      select t.*, n.user_id, n.type, n.batch_id, n.batch_role, n.status,
        t.sent and t.nth = 1 and n.status = ${Status.PROCESSING} as first
      from told t join notifications n on n.tenant_id = ${tenantId} and n.id = t.id
      where n.id = any(${ids}::uuid[])
    ), moved as (
      update /* locked before */ notifications n
      set status = ${Status.DELIVERED}, delivered_at = ${now}, updated_at = ${now}
      from told_of t where t.first and n.tenant_id = ${tenantId} and n.id = t.id and n.id = any(${ids}::uuid[])
    ), history as (
      insert into timeline (tenant_id, notification_id, at, status, channel, reason, actor, detail)
      select ${tenantId}, id, ${now}, case when sent then ${Status.DELIVERED} else 0 end, channel, reason, actor, detail
      from told_of
    ), counted as (
      insert into counters (tenant_id, hour, type, channel, status, slot, count)
      select ${tenantId}, ${hourOf(now)}, type, channel, ${Status.DELIVERED}, ${slot}, count(*) from told_of where sent
      group by type, channel order by type, channel
      on conflict (tenant_id, hour, type, channel, status, slot) do update set count = counters.count + excluded.count
    )
    select id, user_id as "userId", channel, status, first, sent, batch_id as "batchId", batch_role as "batchRole" from told_of`;
  for (const [channel, wholes] of Map.groupBy(
    rows.filter(({ first }) => first),
    (row) => row.channel,
  ))
    await followWholes(tx, tenantId, wholes, now, slot, channel as Channel);
  // As it stands with what else was noted of it now.
  const statuses = new Map(rows.map(({ id, status }) => [id, status]));
  for (const { id, first } of rows) if (first) statuses.set(id, Status.DELIVERED);
  const about = <More extends object>(result: Result, more: More) => {
    const { notificationId: id, userId, channel } = result.claimed;
    const status = statuses.get(id);
    return status === undefined ? [] : [{ id, userId, channel, status, reason: reasonOf(result), ...more }];
  };
  return {
    delivered: rows.filter((row) => row.sent),
    held: held.flatMap((result) => about(result, { until: result.hold.until })),
    gone: failed.flatMap((result) => about(result, {})),
    failed: failed.map(failedOf),
  };
}

/** Whoever has made an end of it: that it is not known what came of it would not have been one. */
function stoppedBy({ kind, cancelledBy }: Result): string | null | undefined {
  return kind === "cancelled" || kind === "unknown" ? cancelledBy?.actor : undefined;
}

function failedOf(result: Result): Failed {
  const { notificationId, step } = result.claimed;
  const by = result.cancelledBy === undefined ? {} : { cancelledBy: result.cancelledBy };
  if (result.kind === "unknown") return { notificationId, step, unknown: true, ...by };
  if (result.kind === "unwanted") return { notificationId, step, unwanted: result.reason, ...by };
  if (result.kind !== "expired" || result.reason === undefined) return { notificationId, step, ...by };
  return { notificationId, step, tooLate: result.reason, ...by };
}

type ToldRow = MaybeWhole & { userId: string; channel: number; status: number; first: boolean; sent: boolean };

/** Those who wait for a limiter that is away ask every few seconds, which is told once. */
function isToldHeld(result: Result): result is Extract<Result, { kind: "held" }> {
  if (result.kind !== "held") return false;
  return result.hold.reason !== Reason.LIMITER_UNAVAILABLE || result.claimed.heldBy !== result.hold.reason;
}

/** What is given back goes on waiting as before; one that was tried has had its turn. */
function heldByOf(result: Result): Reason {
  if (result.kind === "held") return result.hold.reason;
  return result.kind === "back" ? result.claimed.heldBy : Reason.UNSPECIFIED;
}

/**
 * What came of hand-overs, but that those which were cancelled meanwhile are not tried again: unless a channel may have
 * taken them they have come to nothing. Nobody cancels while the transaction has their notifications locked.
 */
async function withCancelled(tx: Tx, tenantId: string, results: readonly Result[]): Promise<readonly Result[]> {
  const some = results.filter(({ kind }) => kind !== "sent");
  if (some.length === 0) return results;
  const ids = plain(some.map(({ claimed }) => claimed.notificationId));
  const rows = await tx<
    { id: string; step: number; channel: number; cancelledBy: string; cancelReason: Reason | null }[]
  >`
    select notification_id as id, step, channel, cancelled_by as "cancelledBy", cancel_reason as "cancelReason" from hand_overs
    where tenant_id = ${tenantId} and notification_id = any(${ids}::uuid[]) and cancelled_by is not null`;
  if (rows.length === 0) return results;
  const by = new Map(rows.map((row) => [`${row.id}:${row.step}:${row.channel}`, storedStop(row)]));
  return results.map((result): Result => {
    const { claimed } = result;
    const cancelledBy = by.get(`${claimed.notificationId}:${claimed.step}:${claimed.channel}`);
    if (result.kind === "sent" || cancelledBy === undefined) return result;
    const isInDoubt = "inDoubt" in result ? result.inDoubt : claimed.inDoubt;
    if (!STOPPED.has(result.kind)) return { ...result, cancelledBy };
    return { claimed, cancelledBy, kind: isInDoubt ? "unknown" : "cancelled" };
  });
}

/** What would be tried again, or ends without a word because it is not to come. */
const STOPPED: ReadonlySet<Result["kind"]> = new Set(["retry", "back", "held", "drop", "cancelled"]);

/** Those whose claim still holds. */
async function noteDone(
  tx: Tx,
  tenantId: string,
  results: readonly Result[],
  { now, retryAt }: { now: Date; retryAt(attempts: number): Date },
): Promise<Result[]> {
  const which = (some: readonly Result[]) => tx`unnest(
    ${plain(some.map(({ claimed }) => claimed.notificationId))}::uuid[],
    ${plain(some.map(({ claimed }) => claimed.step))}::smallint[],
    ${plain(some.map(({ claimed }) => claimed.channel))}::smallint[],
    ${plain(some.map(({ claimed }) => claimed.attempts))}::smallint[],
    ${instants(some.map((each) => (each.kind === "held" ? each.hold.until : retryAt(each.claimed.attempts))))}::timestamptz[],
    ${plain(some.map((each) => ("inDoubt" in each ? each.inDoubt : each.claimed.inDoubt)))}::boolean[],
    ${plain(some.map(heldByOf))}::smallint[]
  ) as t (id, step, channel, attempts, retry_at, in_doubt, held_by)`;
  const claim = tx`h.tenant_id = ${tenantId} and h.notification_id = t.id and h.step = t.step and h.channel = t.channel
    and h.attempts = t.attempts`;
  const again = results.filter(({ kind }) => kind === "retry");
  const back = results.filter(({ kind }) => kind === "back");
  const held = results.filter(({ kind }) => kind === "held");
  const done = results.filter(({ kind }) => kind !== "retry" && kind !== "back" && kind !== "held");
  if (again.length > 0)
    await tx`
      update hand_overs h set due_at = t.retry_at, claimed = false, given = t.in_doubt, held_by = t.held_by
      from ${which(again)} where ${claim}`;
  if (back.length > 0)
    await tx`
      update hand_overs h
      set due_at = ${now}, attempts = h.attempts - 1, claimed = false, given = t.in_doubt, held_by = t.held_by
      from ${which(back)} where ${claim}`;
  const key = tx`t.id || ':' || t.step || ':' || t.channel || ':' || t.attempts as key`;
  // Not an attempt: it was not tried.
  const waiting =
    held.length === 0
      ? []
      : await tx<{ key: string }[]>`
          update hand_overs h
          set due_at = t.retry_at, attempts = h.attempts - 1, claimed = false, given = t.in_doubt, held_by = t.held_by
          from ${which(held)} where ${claim} returning ${key}`;
  const gone =
    done.length === 0
      ? []
      : await tx<{ key: string }[]>`delete from hand_overs h using ${which(done)} where ${claim} returning ${key}`;
  // With the attempt: a process that stood still may have claimed again what it has at hand, and notes both at once.
  const keys = new Set([...waiting, ...gone].map(({ key }) => key));
  return [...held, ...done].filter(({ claimed: { notificationId, step, channel, attempts } }) =>
    keys.has(`${notificationId}:${step}:${channel}:${attempts}`),
  );
}
