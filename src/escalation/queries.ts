import { type SQL, sql } from "drizzle-orm";
import type { Channel } from "#gen/posthorn/v1/notification_pb.ts";
import { instants, plain, texts } from "#src/store/arrays.ts";
import type { Db, Tx } from "#src/store/store.ts";
import { type Chain, ChainState, type Step } from "./state.ts";

// Escalations are changed only by who holds the lock of their notification, which comes before theirs everywhere. Only the
// end of holds and the deletion of a user do without.

export type OpenChain = { notificationId: string; userId: string; chain: Chain };

/** The recorded trace that is to go on with a row, as `traceparent`. */
type Traced = { trace: string | undefined };

/** Stores chains that begin. */
export async function openChains(tx: Tx, tenantId: string, chains: readonly (OpenChain & Traced)[]): Promise<void> {
  if (chains.length === 0) return;
  await tx`
    insert into escalations
      (tenant_id, notification_id, user_id, steps, confirmation_required, state, taken, due_at, turn_at, trace)
    select ${tenantId}, id, user_id, steps::jsonb, confirmation, ${ChainState.WAITING}, 0, due_at, due_at, trace
    from unnest(
      ${plain(chains.map(({ notificationId }) => notificationId))}::uuid[],
      ${texts(chains.map(({ userId }) => userId))}::text[],
      ${texts(chains.map(({ chain }) => JSON.stringify(chain.steps)))}::text[],
      ${plain(chains.map(({ chain }) => chain.confirmationRequired))}::boolean[],
      ${instants(chains.map(({ chain }) => chain.dueAt))}::timestamptz[],
      ${texts(chains.map(({ trace }) => trace))}::text[]
    ) as t (id, user_id, steps, confirmation, due_at, trace)
    on conflict do nothing`;
}

export type HandOver = {
  notificationId: string;
  userId: string;
  /** Of the notification. */
  priority: number;
  step: number;
  channel: Channel;
  /** Its channel is not to be given it again that may have taken it. */
  atMostOnce: boolean;
} & Traced;

/** Has outside channels handed something, from now on. What is there already stays as it is. */
export async function queueHandOvers(
  tx: Tx,
  tenantId: string,
  messages: readonly HandOver[],
  now: Date,
): Promise<void> {
  if (messages.length === 0) return;
  await tx`
    insert into hand_overs
      (tenant_id, notification_id, user_id, priority, step, channel, attempts, due_at, trace, at_most_once)
    select ${tenantId}, id, user_id, priority, step, channel, 0, ${now}, trace, at_most_once
    from unnest(
      ${plain(messages.map(({ notificationId }) => notificationId))}::uuid[],
      ${texts(messages.map(({ userId }) => userId))}::text[],
      ${plain(messages.map(({ priority }) => priority))}::smallint[],
      ${plain(messages.map(({ step }) => step))}::smallint[],
      ${plain(messages.map(({ channel }) => channel))}::smallint[],
      ${texts(messages.map(({ trace }) => trace))}::text[],
      ${plain(messages.map(({ atMostOnce }) => atMostOnce))}::boolean[]
    ) as t (id, user_id, priority, step, channel, trace, at_most_once)
    on conflict do nothing`;
}

type ChainRow = {
  notificationId: string;
  userId: string;
  steps: Step[];
  confirmationRequired: boolean;
  state: ChainState;
  taken: number;
  turnAt: Date | null;
  dueAt: Date | null;
};

/** The chains of notifications that the transaction has locked, locked with them. */
export async function lockChains(tx: Tx, tenantId: string, ids: readonly string[]): Promise<Map<string, OpenChain>> {
  const rows = await tx<ChainRow[]>`
    select notification_id as "notificationId", user_id as "userId", steps, state, taken, turn_at as "turnAt",
      confirmation_required as "confirmationRequired", due_at as "dueAt"
    from escalations where tenant_id = ${tenantId} and notification_id = any(${plain(ids)}::uuid[])
    order by notification_id for update`;
  return new Map(
    rows.map(({ notificationId, userId, turnAt, dueAt, ...chain }) => [
      notificationId,
      { notificationId, userId, chain: { ...chain, turnAt: turnAt ?? undefined, dueAt: dueAt ?? undefined } },
    ]),
  );
}

/** Stores how locked chains stand. */
export async function storeChains(tx: Tx, tenantId: string, chains: readonly OpenChain[], now: Date): Promise<void> {
  if (chains.length === 0) return;
  const ids = plain(chains.map(({ notificationId }) => notificationId));
  await tx`
    update escalations e set state = t.state, taken = t.taken, due_at = t.due_at, turn_at = t.turn_at,
      ended_at = case when t.state = ${ChainState.WAITING} then null else ${now}::timestamptz end
    from unnest(
      ${ids}::uuid[],
      ${plain(chains.map(({ chain }) => chain.state))}::smallint[],
      ${plain(chains.map(({ chain }) => chain.taken))}::smallint[],
      ${instants(chains.map(({ chain }) => chain.dueAt))}::timestamptz[],
      ${instants(chains.map(({ chain }) => chain.turnAt))}::timestamptz[]
    ) as t (id, state, taken, due_at, turn_at)
    where e.tenant_id = ${tenantId} and e.notification_id = t.id and e.notification_id = any(${ids}::uuid[])`;
}

/** Gives steps that the rules of their users hold their turn at once: the rules have changed. */
export async function endHolds(db: Db, tenantId: string, userIds: readonly string[]): Promise<void> {
  await db.execute(sql`
    with held as materialized (
      select notification_id as id from escalations
      where tenant_id = ${tenantId}::uuid and user_id = any(${texts(userIds)}::text[]) and due_at > turn_at
      order by notification_id for update)
    ${freed(tenantId)}`);
}

/**
 * The same for a page of a tenant's escalations after an id, of one type or, where it is empty, of all. How many were
 * looked at, and the last: undefined when there is no more.
 */
export async function endHoldsOfAll(
  db: Db,
  { tenantId, type }: { tenantId: string; type: string },
  after: string,
  limit: number,
): Promise<{ looked: number; last: string | undefined }> {
  const [page] = await db.execute<{ looked: number; last: string | null }>(sql`
    with page as materialized (
      select notification_id as id from escalations
      where tenant_id = ${tenantId}::uuid and notification_id > ${after}::uuid order by notification_id limit ${limit}
    ), held as materialized (
      select notification_id as id from escalations e
      where tenant_id = ${tenantId}::uuid and notification_id in (select id from page) and due_at > turn_at
        ${ofType(tenantId, type, sql`select id from page`)}
      order by notification_id for update
    ), freed as (${freed(tenantId)})
    select count(*)::int as looked, (array_agg(id order by id desc))[1] as last from page`);
  const { looked, last } = page ?? { looked: 0, last: null };
  return { looked, last: looked < limit ? undefined : (last ?? undefined) };
}

/**
 * Gives hand-overs that a rule or a limit holds their turn at once, to be asked anew: the rules of their users have changed.
 * One that somebody has claimed is being asked, and is asked again if that was by the former rules (preferences/fence.ts).
 */
export async function endHandOverHolds(db: Db, tenantId: string, userIds: readonly string[], now: Date): Promise<void> {
  await db.execute(sql`
    with held as materialized (
      select notification_id, step, channel, due_at from hand_overs
      where tenant_id = ${tenantId}::uuid and user_id = any(${texts(userIds)}::text[]) and held_by > 0
        and due_at > ${now.toISOString()}::timestamptz for update skip locked)
    ${asked(tenantId, now)}`);
}

/** The same for all that hang on a page of a tenant's notifications after an id, of one type or, where it is empty, of all. */
export async function endHandOverHoldsOfAll(
  db: Db,
  { tenantId, type }: { tenantId: string; type: string },
  after: string,
  { limit, now }: { limit: number; now: Date },
): Promise<{ looked: number; last: string | undefined }> {
  const [page] = await db.execute<{ looked: number; last: string | null }>(sql`
    with page as materialized (
      select distinct notification_id from hand_overs
      where tenant_id = ${tenantId}::uuid and notification_id > ${after}::uuid order by notification_id limit ${limit}
    ), held as materialized (
      select notification_id, step, channel, due_at from hand_overs h
      where tenant_id = ${tenantId}::uuid and notification_id in (select notification_id from page) and held_by > 0
        and due_at > ${now.toISOString()}::timestamptz
        ${ofType(tenantId, type, sql`select notification_id from page`)}
      for update skip locked
    ), freed as (${asked(tenantId, now)})
    select count(*)::int as looked, (array_agg(notification_id order by notification_id desc))[1] as last from page`);
  const { looked, last } = page ?? { looked: 0, last: null };
  return { looked, last: looked < limit ? undefined : (last ?? undefined) };
}

/** Of a row: it hangs on one of these notifications that is of the type; where that is empty, nothing. */
const ofType = (tenantId: string, type: string, ids: SQL) =>
  type === ""
    ? sql``
    : sql`and notification_id = any(array(select id from notifications
        where tenant_id = ${tenantId}::uuid and id = any(array(${ids})) and type = ${type}))`;

/** In the order of their turns, a millisecond apart, the column's own: what is due at the same one is claimed in any. */
const asked = (tenantId: string, now: Date) => sql`
  update hand_overs h set due_at = ${now.toISOString()}::timestamptz - turns.before * interval '1 millisecond'
  from (select *, row_number() over (order by due_at desc, notification_id desc) as before from held) turns
  where h.tenant_id = ${tenantId}::uuid and h.notification_id = turns.notification_id and h.step = turns.step
    and h.channel = turns.channel`;

/** Locked in the order of ids first, as everywhere. */
const freed = (tenantId: string) => sql`
  update escalations e set due_at = turn_at from held
  where e.tenant_id = ${tenantId}::uuid and e.notification_id = held.id and due_at > turn_at`;
