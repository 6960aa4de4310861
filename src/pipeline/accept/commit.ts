import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { SendRequestSchema, type SendResponse, SendResponseSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import { hourOf } from "#src/analytics/hour.ts";
import { BatchRole } from "#src/batches/role.ts";
import { Fault } from "#src/errors.ts";
import { presentZones } from "#src/preferences/present-zones.ts";
import { bytes, instants, plain, texts } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import { FANOUT_LEASE_MS } from "../flow.ts";
import { auditBypasses } from "./audit-bypasses.ts";
import { fenceContracts } from "./fence-contracts.ts";
import { type Draft, firstStatus } from "./prepare.ts";
import { acceptedResponse } from "./response.ts";
import type { Accepted, NewRow, Submission } from "./submission.ts";
import { type Collapsing, lockCollapseKeys, supersedeRows } from "./supersede.ts";

export type Stored =
  /** `rows` leaves out the recipients for whom an earlier notification stands. */
  | { kind: "accepted"; response: SendResponse; rows: NewRow[] }
  | { kind: "repeated"; response: SendResponse }
  | { kind: "refused"; fault: Fault };

export type CommitContext = {
  now: Date;
  /** Counter slot of this writer: see store/schema/tenants.ts. */
  slot: number;
  idempotencyTtlMs: number;
};

/**
 * Stores a group of Sends of one tenant in the caller's transaction: all are committed together or none. No two of the
 * group may claim the same idempotency key or the same user's dedup key.
 *
 * Locks are taken in one order (the fence of local times, idempotency keys sorted, dedup keys sorted, collapse keys sorted,
 * then rows, then types), so that two groups can wait for each other but never in a circle. Throws StaleContract when a
 * payload was judged by a contract that is not current any more; then nothing is stored. `last`: see Store.tenant; where
 * the caller has more to do in the transaction, it gives none.
 */
export async function commitGroup(
  tx: Tx,
  tenantId: string,
  given: readonly Submission[],
  context: CommitContext,
  last: () => void = () => undefined,
): Promise<Stored[]> {
  const group = await inPresentZones(tx, tenantId, given);
  const earlier = await claimIdempotencyKeys(tx, tenantId, group, context);
  const fresh = group.filter((submission) => !earlier.has(submission));
  const original = await claimDedupKeys(tx, tenantId, fresh, context.now);
  const accepted = new Map(
    fresh.map((submission) => [
      submission,
      {
        kind: "accepted" as const,
        response: acceptedResponse(submission, original, context.now),
        rows: submission.rows.filter((row) => !original.has(row)),
      },
    ]),
  );
  const collapsed = collapsing(accepted);
  // Of contracts the answers say whether all of it may be stored, and of collapse keys what is to be stopped besides.
  if (collapsed.length === 0 && !fresh.some(({ draft }) => draft.contractId !== undefined)) last();
  // Sent together, answered together: one round trip for the usual Send.
  await Promise.all([
    lockCollapseKeys(tx, tenantId, collapsed),
    insertNotifications(tx, tenantId, accepted, context),
    insertFanouts(tx, tenantId, fresh, context.now),
    supersedeRows(tx, tenantId, collapsed, context.now, context.slot),
    recordResponses(tx, tenantId, accepted),
    auditBypasses(tx, tenantId, accepted),
    fenceContracts(
      tx,
      tenantId,
      [...accepted.keys()].map(({ draft }) => draft),
    ),
  ]);
  return group.map((submission) => {
    const result = accepted.get(submission) ?? earlier.get(submission);
    if (result === undefined) throw new Error("a submission without a result");
    return result;
  });
}

/**
 * With the times of those who get something at a local time by the zones they are in now: what was planned may be older.
 * Without those for whom it was before `skipBefore` there.
 */
export async function inPresentZones<T extends { draft: Draft; rows: NewRow[]; skipBefore?: Date | null }>(
  tx: Tx,
  tenantId: string,
  group: readonly T[],
): Promise<readonly T[]> {
  const local = group.filter(({ draft }) => draft.local !== undefined);
  const userIds = local.flatMap(({ rows }) => rows.map(({ userId }) => userId));
  if (userIds.length === 0) return group;
  const zones = await presentZones(tx, tenantId, userIds);
  return group.map((each) => {
    const { draft, rows, skipBefore } = each;
    if (draft.local === undefined) return each;
    const zoneOf = ({ userId }: NewRow) => zones.get(userId) ?? "UTC";
    const isBefore = (row: NewRow) => skipBefore != null && (draft.asked(zoneOf(row)) ?? skipBefore) < skipBefore;
    const left = rows.filter((row) => !isBefore(row));
    return { ...each, rows: left.map((row) => ({ ...row, ...draft.times(zoneOf(row)) })) };
  });
}

/** Claims the group's keys; returns what to answer to those whose key was claimed before, by anybody. */
async function claimIdempotencyKeys(
  tx: Tx,
  tenantId: string,
  group: readonly Submission[],
  { now, idempotencyTtlMs }: CommitContext,
): Promise<Map<Submission, Stored>> {
  const claims = new Map(group.flatMap((item) => (item.idempotency ? [[item.idempotency.key, item] as const] : [])));
  const outcome = new Map<Submission, Stored>();
  if (claims.size === 0) return outcome;
  const keys = [...claims.keys()].sort();
  const hashes = keys.map((key) => claims.get(key)?.idempotency?.hash ?? new Uint8Array());
  const claimed = await tx<{ key: string }[]>`
    insert into idempotency_keys (tenant_id, key, request_hash, response, expires_at)
    select ${tenantId}, key, hash, '', ${new Date(now.getTime() + idempotencyTtlMs)}
    from unnest(${texts(keys)}::text[], ${bytes(hashes)}::bytea[]) as t (key, hash) order by key
    on conflict (tenant_id, key) do update
      set request_hash = excluded.request_hash, response = excluded.response, expires_at = excluded.expires_at
      where idempotency_keys.expires_at <= ${now}
    returning key`;
  for (const { key } of claimed) claims.delete(key);
  if (claims.size === 0) return outcome;
  const known = await tx<{ key: string; hash: Uint8Array; response: Uint8Array }[]>`
    select key, request_hash as hash, response from idempotency_keys
    where tenant_id = ${tenantId} and key = any(${texts([...claims.keys()])}::text[])`;
  for (const { key, hash, response } of known) {
    const submission = claims.get(key);
    if (submission?.idempotency === undefined) continue;
    const same = Buffer.from(hash).equals(submission.idempotency.hash);
    outcome.set(
      submission,
      same
        ? { kind: "repeated", response: fromBinary(SendResponseSchema, response) }
        : { kind: "refused", fault: new Fault(ErrorReason.IDEMPOTENCY_KEY_REUSED) },
    );
  }
  return outcome;
}

/** Claims the group's dedup keys; returns, for rows that lost, the notification that stands for them. */
export async function claimDedupKeys(
  tx: Tx,
  tenantId: string,
  group: readonly Pick<Submission, "draft" | "rows">[],
  now: Date,
): Promise<Map<NewRow, string>> {
  const claims = group.flatMap(({ draft, rows }) =>
    draft.dedup === undefined
      ? []
      : rows.map((row) => ({ row, key: draft.dedup?.key ?? "", windowMs: draft.dedup?.windowMs ?? 0 })),
  );
  const original = new Map<NewRow, string>();
  if (claims.length === 0) return original;
  const users = claims.map((claim) => claim.row.userId);
  const keys = claims.map((claim) => claim.key);
  const ids = claims.map((claim) => claim.row.id);
  const until = claims.map((claim) => new Date(now.getTime() + claim.windowMs));
  await tx`
    insert into dedup_keys (tenant_id, user_id, key, notification_id, expires_at)
    select ${tenantId}, user_id, key, id, until
    from unnest(${texts(users)}::text[], ${texts(keys)}::text[], ${plain(ids)}::uuid[], ${instants(until)}::timestamptz[]) as t (user_id, key, id, until)
    order by user_id, key
    on conflict (tenant_id, user_id, key) do update
      set notification_id = excluded.notification_id, expires_at = excluded.expires_at
      where dedup_keys.expires_at <= ${now}`;
  const holders = await tx<{ n: number; id: string }[]>`
    select t.n::int as n, d.notification_id as id
    from unnest(${texts(users)}::text[], ${texts(keys)}::text[]) with ordinality as t (user_id, key, n)
    join dedup_keys d on d.tenant_id = ${tenantId} and d.user_id = t.user_id and d.key = t.key`;
  for (const { n, id } of holders) {
    const claim = claims[n - 1];
    if (claim !== undefined && claim.row.id !== id) original.set(claim.row, id);
  }
  return original;
}

async function insertNotifications(
  tx: Tx,
  tenantId: string,
  accepted: Accepted,
  context: CommitContext,
): Promise<void> {
  const rows = [...accepted].flatMap(([{ draft, actor }, stored]) => stored.rows.map((row) => ({ row, draft, actor })));
  await insertRows(tx, tenantId, rows, undefined, context);
}

/**
 * Inserts notifications with their counters, and the timeline entries of those that wait for their time, and of those that
 * `actor` has sent past the limits.
 */
export async function insertRows(
  tx: Tx,
  tenantId: string,
  rows: readonly { row: NewRow; draft: Draft; actor?: string }[],
  /** Given for rows of a fan-out, whose content stays with the fan-out, but for what is in a recipient's language. */
  fanoutId: string | undefined,
  { now, slot }: CommitContext,
): Promise<void> {
  if (rows.length === 0) return;
  const hour = hourOf(now);
  const bypassing = rows.filter(({ draft, actor }) => draft.bypassLimits && actor !== undefined);
  const bypassed =
    bypassing.length === 0
      ? tx``
      : tx`, bypassed as (
      insert into timeline (tenant_id, notification_id, at, status, channel, reason, actor)
      select ${tenantId}, id, ${now}, ${Status.ACCEPTED}, 0, 0, actor from unnest(
        ${plain(bypassing.map(({ row }) => row.id))}::uuid[], ${texts(bypassing.map(({ actor }) => actor))}::text[]
      ) as t (id, actor))`;
  await tx`
    with added as (
      insert into notifications (tenant_id, id, user_id, type, category, priority, status, channels, content, tags,
        bypass_limits, scheduled_at, expires_at, due_at, updated_at, dedup_key, collapse_key, sender_id, group_key,
        fanout_id, local_time, local_ttl_ms, batch_role, escalation)
      select ${tenantId}, id, user_id, type, category, priority, status, channels, content, tags::text[],
        bypass, scheduled_at, expires_at, scheduled_at, ${now}, dedup_key, collapse_key, sender_id, group_key,
        ${fanoutId ?? null}::uuid, local_time, local_ttl_ms, batch_role, escalation
      from unnest(
        ${plain(rows.map(({ row }) => row.id))}::uuid[],
        ${texts(rows.map(({ row }) => row.userId))}::text[],
        ${texts(rows.map(({ draft }) => draft.type))}::text[],
        ${texts(rows.map(({ draft }) => draft.category))}::text[],
        ${plain(rows.map(({ draft }) => draft.priority))}::smallint[],
        ${plain(rows.map(({ row }) => firstStatus(row.scheduledAt)))}::smallint[],
        ${plain(rows.map(({ draft }) => draft.channels))}::int[],
        ${bytes(rows.map(({ draft, row }) => row.content ?? (fanoutId === undefined ? draft.content : null)))}::bytea[],
        ${texts(rows.map(({ draft }) => (draft.tags.length === 0 ? null : texts(draft.tags))))}::text[],
        ${plain(rows.map(({ draft }) => draft.bypassLimits))}::boolean[],
        ${instants(rows.map(({ row }) => row.scheduledAt ?? null))}::timestamptz[],
        ${instants(rows.map(({ row }) => row.expiresAt ?? null))}::timestamptz[],
        ${texts(rows.map(({ draft }) => draft.dedup?.key ?? null))}::text[],
        ${texts(rows.map(({ draft }) => draft.collapseKey ?? null))}::text[],
        ${texts(rows.map(({ draft }) => draft.senderId ?? null))}::text[],
        ${texts(rows.map(({ draft }) => draft.groupKey ?? null))}::text[],
        ${texts(rows.map(({ draft, row }) => row.scheduledAt && draft.local?.time))}::text[],
        ${plain(rows.map(({ draft, row }) => row.scheduledAt && draft.local?.ttlMs))}::bigint[],
        ${plain(rows.map(({ draft }) => (draft.byItself ? BatchRole.ALONE : undefined)))}::smallint[],
        ${bytes(rows.map(({ draft }) => draft.escalation))}::bytea[]
      ) as t (id, user_id, type, category, priority, status, channels, content, tags, bypass, scheduled_at, expires_at,
        dedup_key, collapse_key, sender_id, group_key, local_time, local_ttl_ms, batch_role, escalation)
      returning id, type, status
    ), history as (
      insert into timeline (tenant_id, notification_id, at, status, channel, reason)
      select ${tenantId}, id, ${now}, ${Status.SCHEDULED}, 0, ${Reason.SCHEDULED} from added where status = ${Status.SCHEDULED}
    ) ${bypassed}
    insert into counters (tenant_id, hour, type, channel, status, slot, count)
    select ${tenantId}, ${hour}, type, 0, status, ${slot}, count(*)
    from (select type, ${Status.ACCEPTED}::smallint as status from added
      union all select type, status from added where status = ${Status.SCHEDULED}) as reached
    group by type, status order by type, status
    on conflict (tenant_id, hour, type, channel, status, slot) do update set count = counters.count + excluded.count`;
}

async function insertFanouts(tx: Tx, tenantId: string, group: readonly Submission[], now: Date): Promise<void> {
  const fanouts = group.flatMap(({ fanout, draft, actor }) => (fanout ? [{ ...fanout, draft, actor }] : []));
  if (fanouts.length === 0) return;
  await tx`
    insert into fanouts (tenant_id, id, state, priority, request, content, actor, cursor, created_at, lease_until, skip_before)
    select ${tenantId}, id, 1, priority, request, content, actor, 'null', ${now},
      ${new Date(now.getTime() + FANOUT_LEASE_MS)}::timestamptz, skip_before
    from unnest(
      ${plain(fanouts.map((fanout) => fanout.id))}::uuid[],
      ${plain(fanouts.map((fanout) => fanout.draft.priority))}::smallint[],
      ${bytes(fanouts.map((fanout) => toBinary(SendRequestSchema, fanout.request)))}::bytea[],
      ${bytes(fanouts.map((fanout) => fanout.draft.content))}::bytea[],
      ${texts(fanouts.map((fanout) => fanout.actor))}::text[],
      ${instants(fanouts.map((fanout) => fanout.skipBefore))}::timestamptz[]
    ) as t (id, priority, request, content, actor, skip_before)`;
}

function collapsing(accepted: Accepted): Collapsing[] {
  return [...accepted].flatMap(([{ draft }, stored]) =>
    draft.collapseKey === undefined ? [] : stored.rows.map((row) => ({ ...row, key: draft.collapseKey ?? "" })),
  );
}

/** Keeps what a repeat of the same key is answered. */
async function recordResponses(tx: Tx, tenantId: string, accepted: Accepted): Promise<void> {
  const keyed = [...accepted].flatMap(([{ idempotency }, { response }]) =>
    idempotency ? [{ key: idempotency.key, response }] : [],
  );
  if (keyed.length === 0) return;
  await tx`
    update idempotency_keys k set response = t.response
    from unnest(
      ${texts(keyed.map(({ key }) => key))}::text[],
      ${bytes(keyed.map(({ response }) => toBinary(SendResponseSchema, response)))}::bytea[]
    ) as t (key, response)
    where k.tenant_id = ${tenantId} and k.key = t.key`;
}
