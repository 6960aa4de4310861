import { type Channel, Priority, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { hourOf } from "#src/analytics/hour.ts";
import { followWholes, type MaybeWhole } from "#src/batches/follow.ts";
import { BatchRole } from "#src/batches/role.ts";
import { lockChains, storeChains } from "#src/escalation/queries.ts";
import { advance, ChainState } from "#src/escalation/state.ts";
import { oneOf } from "#src/inbox/queries.ts";
import { bytes, instants, plain, texts } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import type { OfChannel } from "./channel-slots.ts";
import { detailOf, reasonOf } from "./told.ts";
import type { Hold } from "./within-limits.ts";

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
 * `drop`: it has ended, or its step was answered. `cancelled`: its sender wants it no more. `unknown`: the channel may have taken it, and is not to be given it again.
 * `unwanted`: its recipient's rules refuse the channel by now, for that reason. `back`: whoever claimed it had to stop.
 * `held`: not now; nor was it tried. `expired` with a reason: it would be held for that until it has. `inDoubt`: of what is
 * to be tried again, whether the channel may have taken it.
 */
export type CameOf =
  | { kind: "sent" | "failed" | "drop" | "unknown" | "cancelled" }
  | { kind: "retry" | "back"; inDoubt: boolean }
  | { kind: "expired"; reason?: Reason }
  | { kind: "held"; hold: Hold }
  | { kind: "unwanted"; reason: Reason };

/** `cancelledBy`: whoever cancelled it after it was claimed. */
export type Result = CameOf & { claimed: Claimed; cancelledBy?: string };

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

/** `first`: it had reached its recipient in no other way before. */
export type Delivered = { id: string; userId: string; channel: number; first: boolean };

/** One that waits for its turn with a channel; `status`: of the notification, as it is. */
export type Held = { id: string; userId: string; channel: number; status: number; reason: Reason; until: Date };

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
  cancelledBy?: string;
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
): Promise<{ delivered: Delivered[]; held: Held[]; failed: Failed[] }> {
  const ids = plain([...new Set(results.map(({ claimed }) => claimed.notificationId))].toSorted());
  await tx`select count(*) from (
    select from notifications where tenant_id = ${tenantId} and id = any(${ids}::uuid[]) order by id for update) locked`;
  const mine = await noteDone(tx, tenantId, await withCancelled(tx, tenantId, results), { now, retryAt });
  const sent = mine.filter(({ kind }) => kind === "sent");
  const failed = mine.filter(({ kind }) => kind !== "sent" && kind !== "drop" && kind !== "held");
  const held = mine.filter(isToldHeld);
  const told = [...sent, ...failed, ...held];
  if (told.length === 0) return { delivered: [], held: [], failed: [] };
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
  return {
    delivered: rows.filter((row) => row.sent),
    held: held.flatMap(({ claimed, hold: { reason, until } }) => {
      const { notificationId: id, userId, channel } = claimed;
      const status = rows.find((row) => row.id === id)?.status;
      return status === undefined ? [] : [{ id, userId, channel, status, reason, until }];
    }),
    failed: failed.map(failedOf),
  };
}

/** Whoever has made an end of it: that it is not known what came of it would not have been one. */
function stoppedBy({ kind, cancelledBy }: Result): string | undefined {
  return kind === "cancelled" || kind === "unknown" ? cancelledBy : undefined;
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
  const rows = await tx<{ id: string; step: number; channel: number; by: string }[]>`
    select notification_id as id, step, channel, cancelled_by as by from hand_overs
    where tenant_id = ${tenantId} and notification_id = any(${ids}::uuid[]) and cancelled_by is not null`;
  if (rows.length === 0) return results;
  const by = new Map(rows.map((row) => [`${row.id}:${row.step}:${row.channel}`, row.by]));
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
