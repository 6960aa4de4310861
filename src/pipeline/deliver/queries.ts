import { create, toBinary } from "@bufbuild/protobuf";
import {
  type Channel,
  Priority,
  Reason,
  Status,
  TimelineEntrySchema,
  VerdictKind,
} from "#gen/posthorn/v1/notification_pb.ts";
import { hourOf } from "#src/analytics/hour.ts";
import { followWholes, type MaybeWhole } from "#src/batches/follow.ts";
import { lockChains, storeChains } from "#src/escalation/queries.ts";
import { advance, ChainState } from "#src/escalation/state.ts";
import { oneOf } from "#src/inbox/queries.ts";
import { bytes, instants, plain } from "#src/store/arrays.ts";
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
  /** The recorded trace that goes on with it. */
  trace: string | null;
  atMostOnce: boolean;
  /** It was given to the channel before, which may have taken it. */
  inDoubt: boolean;
};

/**
 * `drop`: it has ended, or its step was answered. `unknown`: the channel may have taken it, and is not to be given it again.
 * `unwanted`: its recipient's rules refuse the channel by now, for that reason. `back`: whoever claimed it had to stop.
 * `inDoubt`: of what is to be tried again, whether the channel may have taken it.
 */
export type CameOf =
  | { kind: "sent" | "failed" | "expired" | "drop" | "unknown" }
  | { kind: "retry" | "back"; inDoubt: boolean }
  | { kind: "unwanted"; reason: Reason };

export type Result = CameOf & { claimed: Claimed };

/**
 * Claims what is due until `until`: of each channel as many as it says, the most urgent first, and of those the longest
 * due. Each is claimed by one, and counts as given to its channel with that: but for those that are at most once, which
 * `give` notes before it is so.
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
            select h.tenant_id, h.notification_id, h.step, h.channel, h.due_at, h.given from hand_overs h
            where h.channel = room.channel and h.priority = lane.priority and h.due_at <= ${now}
            order by h.due_at limit room.size for update skip locked
          ) its limit room.size
        ) mine
      )
      update hand_overs set due_at = ${until}, attempts = least(attempts + 1, 32767),
        given = hand_overs.given or not at_most_once
      from due d where hand_overs.tenant_id = d.tenant_id and hand_overs.notification_id = d.notification_id
        and hand_overs.step = d.step and hand_overs.channel = d.channel
      returning d.tenant_id as "tenantId", d.notification_id as "notificationId", user_id as "userId", d.step, d.channel,
        attempts, d.due_at as "dueAt", trace, at_most_once as "atMostOnce", d.given as "inDoubt"`.execute(),
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
      n.expires_at as "expiresAt", n.sender_id as "senderId", coalesce(n.content, f.content) as content,
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

/**
 * `unwanted`: it was no fault of the channel's, but the recipient's word. `unknown`: it may have come, and what follows it
 * waits for its time.
 */
export type Failed = { notificationId: string; step: number; unwanted?: Reason; unknown?: true };

/**
 * Notes what came of hand-overs: those that are done go away, with history and counters; the others are due again. Those
 * that somebody else has claimed since are passed over.
 */
export async function record(
  tx: Tx,
  tenantId: string,
  results: readonly Result[],
  { now, slot, retryAt }: { now: Date; slot: number; retryAt(attempts: number): Date },
): Promise<{ delivered: Delivered[]; failed: Failed[] }> {
  const ids = plain([...new Set(results.map(({ claimed }) => claimed.notificationId))].toSorted());
  await tx`select count(*) from (
    select from notifications where tenant_id = ${tenantId} and id = any(${ids}::uuid[]) order by id for update) locked`;
  const mine = await noteDone(tx, tenantId, results, { now, retryAt });
  const sent = mine.filter(({ kind }) => kind === "sent");
  const failed = mine.filter(({ kind }) => kind !== "sent" && kind !== "drop");
  const told = [...sent, ...failed];
  if (told.length === 0) return { delivered: [], failed: [] };
  const rows = await tx<(MaybeWhole & { userId: string; channel: number; first: boolean; sent: boolean })[]>`
    with told as (
      select t.*, row_number() over (partition by t.id order by not t.sent, t.channel) as nth from unnest(
        ${plain(told.map(({ claimed }) => claimed.notificationId))}::uuid[],
        ${plain(told.map(({ claimed }) => claimed.channel))}::smallint[],
        ${plain(told.map(({ kind }) => kind === "sent"))}::boolean[],
        ${plain(told.map(reasonOf))}::smallint[],
        ${bytes(told.map(detailOf))}::bytea[]
      ) as t (id, channel, sent, reason, detail)
    ), told_of as materialized (
      select t.*, n.user_id, n.type, n.batch_id, n.batch_role,
        t.sent and t.nth = 1 and n.status = ${Status.PROCESSING} as first
      from told t join notifications n on n.tenant_id = ${tenantId} and n.id = t.id
      where n.id = any(${ids}::uuid[])
    ), moved as (
      update notifications n set status = ${Status.DELIVERED}, delivered_at = ${now}, updated_at = ${now}
      from told_of t where t.first and n.tenant_id = ${tenantId} and n.id = t.id and n.id = any(${ids}::uuid[])
    ), history as (
      insert into timeline (tenant_id, notification_id, at, status, channel, reason, detail)
      select ${tenantId}, id, ${now}, case when sent then ${Status.DELIVERED} else 0 end, channel, reason, detail
      from told_of
    ), counted as (
      insert into counters (tenant_id, hour, type, channel, status, slot, count)
      select ${tenantId}, ${hourOf(now)}, type, channel, ${Status.DELIVERED}, ${slot}, count(*) from told_of where sent
      group by type, channel order by type, channel
      on conflict (tenant_id, hour, type, channel, status, slot) do update set count = counters.count + excluded.count
    )
    select id, user_id as "userId", channel, first, sent, batch_id as "batchId", batch_role as "batchRole" from told_of`;
  for (const [channel, wholes] of Map.groupBy(
    rows.filter(({ first }) => first),
    (row) => row.channel,
  ))
    await followWholes(tx, tenantId, wholes, now, slot, channel as Channel);
  return {
    delivered: rows.filter((row) => row.sent),
    failed: failed.map((result) => {
      const { notificationId, step } = result.claimed;
      if (result.kind === "unknown") return { notificationId, step, unknown: true };
      return { notificationId, step, ...(result.kind === "unwanted" ? { unwanted: result.reason } : {}) };
    }),
  };
}

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
    ${instants(some.map(({ claimed }) => retryAt(claimed.attempts)))}::timestamptz[],
    ${plain(some.map((result) => "inDoubt" in result && result.inDoubt))}::boolean[]
  ) as t (id, step, channel, attempts, retry_at, in_doubt)`;
  const claim = tx`h.tenant_id = ${tenantId} and h.notification_id = t.id and h.step = t.step and h.channel = t.channel
    and h.attempts = t.attempts`;
  const again = results.filter(({ kind }) => kind === "retry");
  const back = results.filter(({ kind }) => kind === "back");
  const done = results.filter(({ kind }) => kind !== "retry" && kind !== "back");
  if (again.length > 0)
    await tx`update hand_overs h set due_at = t.retry_at, given = t.in_doubt from ${which(again)} where ${claim}`;
  if (back.length > 0)
    await tx`
      update hand_overs h set due_at = ${now}, attempts = h.attempts - 1, given = t.in_doubt
      from ${which(back)} where ${claim}`;
  if (done.length === 0) return [];
  const gone = await tx<{ key: string }[]>`
    delete from hand_overs h using ${which(done)} where ${claim}
    returning h.notification_id || ':' || h.step || ':' || h.channel || ':' || h.attempts as key`;
  // With the attempt: a process that stood still may have claimed again what it has at hand, and notes both at once.
  const keys = new Set(gone.map(({ key }) => key));
  return done.filter(({ claimed: { notificationId, step, channel, attempts } }) =>
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

function detailOf(result: Result): Uint8Array {
  const { step, channel } = result.claimed;
  const verdict = { channel, kind: VERDICTS[result.kind] ?? VerdictKind.SUPPRESS, reason: reasonOf(result) };
  return toBinary(TimelineEntrySchema, create(TimelineEntrySchema, { step, verdicts: [verdict] }));
}

const VERDICTS: { [kind in CameOf["kind"]]?: VerdictKind } = {
  sent: VerdictKind.DELIVER,
  unknown: VerdictKind.UNKNOWN,
};

function reasonOf(result: Result): Reason {
  if (result.kind === "sent") return Reason.UNSPECIFIED;
  if (result.kind === "unknown") return Reason.OUTCOME_UNKNOWN;
  if (result.kind === "unwanted") return result.reason;
  return result.kind === "expired" ? Reason.EXPIRED : Reason.CHANNEL_UNAVAILABLE;
}
