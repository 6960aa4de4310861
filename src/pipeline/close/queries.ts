import { type BatchKind, BatchState } from "#gen/posthorn/v1/batch_service_pb.ts";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { hourOf } from "#src/analytics/hour.ts";
import type { Part } from "#src/batches/merge.ts";
import { BatchRole } from "#src/batches/role.ts";
import { encodeContent } from "#src/notifications/encode-content.ts";
import { bytes, instants, plain, texts } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import type { Closing } from "./closing.ts";

export type DueBatch = {
  id: string;
  userId: string;
  kind: BatchKind;
  type: string;
  category: string;
  state: typeof BatchState.OPEN | typeof BatchState.FULL;
  joined: number;
  maxSize: number;
  flushAt: Date;
  /** How often a limit had it wait, and the turn that it gave. */
  attempts: number;
  bookedAt: Date | null;
  bookedFor: number | null;
};

/** `version`: differs after every change of the row. */
export type MemberRow = Part & { userId: string; type: string; batchId: string; version: string };

/** Those whose time has come, the longest due first. A look only: nothing is locked. */
export function findDue(
  tx: Tx,
  now: Date,
  limit: number,
): Promise<{ tenantId: string; id: string; userId: string; type: string; joined: number }[]> {
  return tx<{ tenantId: string; id: string; userId: string; type: string; joined: number }[]>`
    select tenant_id as "tenantId", id, user_id as "userId", type, joined from batches
    where state in (1, 2) and flush_at <= ${now} order by flush_at limit ${limit}`;
}

/** Takes those that are still to be closed and that nobody else is closing. */
export function lockDue(tx: Tx, tenantId: string, ids: readonly string[], now: Date): Promise<DueBatch[]> {
  return tx<DueBatch[]>`${due(tx, tenantId, ids, now)} for update skip locked`;
}

/** The same as they are now. */
export function readDue(tx: Tx, tenantId: string, ids: readonly string[], now: Date): Promise<DueBatch[]> {
  return tx<DueBatch[]>`${due(tx, tenantId, ids, now)}`;
}

function due(tx: Tx, tenantId: string, ids: readonly string[], now: Date) {
  return tx`
    select id, user_id as "userId", kind, type, category, state, joined, max_size as "maxSize", flush_at as "flushAt", attempts,
      booked_at as "bookedAt", booked_for as "bookedFor"
    from batches
    where tenant_id = ${tenantId} and id = any(${plain(ids)}::uuid[]) and state in (1, 2) and flush_at <= ${now}
    order by user_id, key, id`;
}

/**
 * Their live members, by id; what is to be decided anew is none any more. Nobody can join them, or take one of these out,
 * before the transaction ends.
 */
export function lockMembers(tx: Tx, tenantId: string, batchIds: readonly string[]): Promise<MemberRow[]> {
  return tx<MemberRow[]>`${members(tx, tenantId, batchIds)} for update of n`;
}

/** The same as they are now. */
export function readMembers(tx: Tx, tenantId: string, batchIds: readonly string[]): Promise<MemberRow[]> {
  return tx<MemberRow[]>`${members(tx, tenantId, batchIds)}`;
}

function members(tx: Tx, tenantId: string, batchIds: readonly string[]) {
  return tx`
    select n.id, n.user_id as "userId", n.type, n.category, n.priority, n.channels, n.batch_id as "batchId",
      coalesce(n.content, (select f.content from fanouts f where f.tenant_id = n.tenant_id and f.id = n.fanout_id))
        as content,
      n.tags, n.sender_id as "senderId", n.bypass_limits as "bypassLimits", n.expires_at as "expiresAt",
      n.xmin::text as version
    from notifications n
    where n.tenant_id = ${tenantId} and n.batch_id = any(${plain(batchIds)}::uuid[])
      and n.status = ${Status.BATCHED} and n.batch_role = ${BatchRole.MEMBER} and n.due_at is null
    order by n.id`;
}

/**
 * Stores what was made of them: members, histories, counters, the new notifications, and the batches' ends; of those that
 * stay open, when they are asked again; of those that the hourly cap has refused, who of them has ended (pour.ts does the
 * rest).
 */
export async function applyClosings(
  tx: Tx,
  tenantId: string,
  closings: readonly Closing[],
  { now, slot }: { now: Date; slot: number },
): Promise<void> {
  const members = closings.flatMap(({ ended, merged, whole, turn }) => [
    ...ended.map((end) => ({ ...end, role: BatchRole.MEMBER, bookedAt: undefined })),
    ...merged.map(({ id }) =>
      whole === undefined
        ? { id, status: Status.ACCEPTED, reason: turn?.reason ?? 0, role: BatchRole.ALONE, bookedAt: turn?.at }
        : { id, status: Status.BATCHED, reason: undefined, role: BatchRole.MERGED, bookedAt: undefined },
    ),
  ]);
  const ids = plain(members.map(({ id }) => id));
  const ending = closings.filter(({ heldUntil, refused }) => heldUntil === undefined && refused === undefined);
  const waiting = closings.filter(({ heldUntil }) => heldUntil !== undefined);
  const wholes = closings.flatMap(({ batch, whole, next, turn }) =>
    whole && next ? [{ batch, whole, id: next.id, turn }] : [],
  );
  await Promise.all([
    tx`
      with outcome as materialized (
        select * from unnest(
          ${ids}::uuid[],
          ${plain(members.map(({ status }) => status))}::smallint[],
          ${plain(members.map(({ reason }) => reason))}::smallint[],
          ${plain(members.map(({ role }) => role))}::smallint[],
          ${instants(members.map(({ bookedAt }) => bookedAt))}::timestamptz[]
        ) as t (id, status, reason, role, booked_at)
      ), moved as (
        update /* locked before */ notifications n
        set status = o.status, reason = coalesce(o.reason, n.reason), batch_role = o.role, due_at = null,
          booked_at = o.booked_at,
          queued_at = case when o.status = ${Status.ACCEPTED} then ${now} else n.queued_at end, updated_at = ${now}
        from outcome o
        where n.tenant_id = ${tenantId} and n.id = o.id and n.id = any(${ids}::uuid[])
        returning n.id, n.type, n.status, n.reason
      ), history as (
        insert into timeline (tenant_id, notification_id, at, status, channel, reason)
        select ${tenantId}::uuid, id, ${now}::timestamptz, status, 0, reason from moved
        where status <> ${Status.BATCHED}
      )
      insert into counters (tenant_id, hour, type, channel, status, slot, count)
      select ${tenantId}::uuid, ${hourOf(now)}::timestamptz, type, 0, status, ${slot}::smallint, count(*) from moved
      where status > ${Status.READ} group by type, status order by type, status
      on conflict (tenant_id, hour, type, channel, status, slot) do update set count = counters.count + excluded.count`.execute(),
    insertWholes(tx, tenantId, wholes, now, slot),
    tx`
      update batches b set state = ${BatchState.CLOSED}, size = t.size, notification_id = t.next, ended_at = ${now}
      from unnest(
        ${plain(ending.map(({ batch }) => batch.id))}::uuid[],
        ${plain(ending.map(({ merged }) => merged.length))}::int[],
        ${plain(ending.map(({ next }) => next?.id))}::uuid[]
      ) as t (id, size, next)
      where b.tenant_id = ${tenantId} and b.id = t.id`.execute(),
    // Nobody was merged: there is nothing to tell of it.
    tx`
      delete from batches where tenant_id = ${tenantId}
        and id = any(${plain(ending.flatMap(({ batch, next }) => (next ? [] : [batch.id])))}::uuid[])`.execute(),
    waiting.length > 0 &&
      tx`
        update batches b set flush_at = t.until, latest_flush_at = t.until, booked_at = t.booked_at,
          booked_for = t.booked_for, attempts = least(b.attempts + t.limited::int, 32767)
        from unnest(
          ${plain(waiting.map(({ batch }) => batch.id))}::uuid[],
          ${instants(waiting.map(({ heldUntil }) => heldUntil))}::timestamptz[],
          ${instants(waiting.map(({ turn }) => turn?.at))}::timestamptz[],
          ${plain(waiting.map(({ turn }) => turn?.reason))}::smallint[],
          ${plain(waiting.map(({ limited = false }) => limited))}::boolean[]
        ) as t (id, until, booked_at, booked_for, limited)
        where b.tenant_id = ${tenantId} and b.id = t.id`.execute(),
  ]);
}

async function insertWholes(
  tx: Tx,
  tenantId: string,
  wholes: readonly { batch: DueBatch; whole: NonNullable<Closing["whole"]>; id: string; turn: Closing["turn"] }[],
  now: Date,
  slot: number,
): Promise<void> {
  if (wholes.length === 0) return;
  await tx`
    with added as (
      insert into notifications (tenant_id, id, user_id, type, category, priority, status, channels, content, tags,
        bypass_limits, expires_at, updated_at, sender_id, batch_id, batch_role, booked_at, reason)
      select ${tenantId}, id, user_id, type, category, priority, ${Status.ACCEPTED}, channels, content, tags::text[],
        bypass, expires_at, ${now}, sender_id, batch_id, ${BatchRole.WHOLE}, booked_at, coalesce(booked_for, 0)
      from unnest(
        ${plain(wholes.map(({ id }) => id))}::uuid[],
        ${texts(wholes.map(({ batch }) => batch.userId))}::text[],
        ${texts(wholes.map(({ batch }) => batch.type))}::text[],
        ${texts(wholes.map(({ batch }) => batch.category))}::text[],
        ${plain(wholes.map(({ whole }) => whole.priority))}::smallint[],
        ${plain(wholes.map(({ whole }) => whole.channels))}::int[],
        ${bytes(wholes.map(({ whole }) => encodeContent(whole.content)))}::bytea[],
        ${texts(wholes.map(({ whole }) => (whole.tags.length === 0 ? null : texts(whole.tags))))}::text[],
        ${plain(wholes.map(({ whole }) => whole.bypassLimits))}::boolean[],
        ${instants(wholes.map(({ whole }) => whole.expiresAt))}::timestamptz[],
        ${texts(wholes.map(({ whole }) => whole.senderId))}::text[],
        ${plain(wholes.map(({ batch }) => batch.id))}::uuid[],
        ${instants(wholes.map(({ turn }) => turn?.at))}::timestamptz[],
        ${plain(wholes.map(({ turn }) => turn?.reason))}::smallint[]
      ) as t (id, user_id, type, category, priority, channels, content, tags, bypass, expires_at, sender_id, batch_id,
        booked_at, booked_for)
      returning type
    )
    insert into counters (tenant_id, hour, type, channel, status, slot, count)
    select ${tenantId}::uuid, ${hourOf(now)}::timestamptz, type, 0, ${Status.ACCEPTED}, ${slot}::smallint, count(*)
    from added group by type order by type
    on conflict (tenant_id, hour, type, channel, status, slot) do update set count = counters.count + excluded.count`;
}

/** What becomes of a member whose batch the hourly cap has refused. `batchId`: the digest that it is in now. */
export type Moved = {
  id: string;
  status: Status;
  reason: number;
  role: number;
  batchId: string | undefined;
  detail: Uint8Array | undefined;
};

/** Stores that, and the ends of these batches. `empty`: nobody was left of these. */
export async function applyMoves(
  tx: Tx,
  tenantId: string,
  moved: readonly Moved[],
  { ended, empty }: { ended: readonly string[]; empty: readonly string[] },
  { now, slot }: { now: Date; slot: number },
): Promise<void> {
  const ids = plain(moved.map(({ id }) => id));
  await Promise.all([
    tx`
      with outcome as materialized (
        select * from unnest(
          ${ids}::uuid[],
          ${plain(moved.map(({ status }) => status))}::smallint[],
          ${plain(moved.map(({ reason }) => reason))}::smallint[],
          ${plain(moved.map(({ role }) => role))}::smallint[],
          ${plain(moved.map(({ batchId }) => batchId))}::uuid[],
          ${bytes(moved.map(({ detail }) => detail ?? null))}::bytea[]
        ) as t (id, status, reason, role, joins, detail)
      ), moved as (
        update /* locked before */ notifications n
        set status = o.status, reason = o.reason, batch_role = o.role, batch_id = coalesce(o.joins, n.batch_id),
          queued_at = case when o.status = ${Status.ACCEPTED} then ${now} else n.queued_at end, updated_at = ${now}
        from outcome o
        where n.tenant_id = ${tenantId} and n.id = o.id and n.id = any(${ids}::uuid[])
        returning n.id, n.type, n.status, n.reason, o.detail
      ), history as (
        insert into timeline (tenant_id, notification_id, at, status, channel, reason, detail)
        select ${tenantId}::uuid, id, ${now}::timestamptz, status, 0, reason, detail from moved
      )
      insert into counters (tenant_id, hour, type, channel, status, slot, count)
      select ${tenantId}::uuid, ${hourOf(now)}::timestamptz, type, 0, status, ${slot}::smallint, count(*) from moved
      where status > ${Status.READ} group by type, status order by type, status
      on conflict (tenant_id, hour, type, channel, status, slot) do update set count = counters.count + excluded.count`.execute(),
    tx`
      update batches set state = ${BatchState.DISSOLVED}, ended_at = ${now}
      where tenant_id = ${tenantId} and id = any(${plain(ended)}::uuid[])`.execute(),
    tx`delete from batches where tenant_id = ${tenantId} and id = any(${plain(empty)}::uuid[])`.execute(),
  ]);
}
