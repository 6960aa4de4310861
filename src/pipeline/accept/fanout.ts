import { fromBinary } from "@bufbuild/protobuf";
import { type Fanout_State, type SendRequest, SendRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import type { Tx } from "#src/store/store.ts";
import { topicTag } from "#src/stream/filter.ts";
import type { AcceptDeps } from "./accept.ts";
import { DEFAULT_TYPE } from "./accept.ts";
import { claimDedupKeys, insertRows, lockCollapseKeys, supersedeRows } from "./commit.ts";
import { type Draft, prepare } from "./prepare.ts";
import type { NewRow } from "./submission.ts";

/** Members handled in one transaction: bounds memory, and what a crash makes another worker repeat. */
const PAGE = 1000;
const LEASE_MS = 30_000;

export type FanoutState = { request: SendRequest; draft: Draft };

type Page = { rows: NewRow[]; done: boolean; priority: number; handled: number } | undefined;

/**
 * Goes on with a fan-out by one page, and queues itself behind what else waits, so that the sends of others come in
 * between however many its members are. A page is one transaction that also moves the cursor, so a crash repeats nothing,
 * and two workers on the same fan-out take turns under its row lock. Members come in the order of their ids, each once,
 * whatever number of topics and roles they are reached through.
 */
export async function runFanout(
  deps: AcceptDeps,
  tenantId: string,
  fanoutId: string,
  context: { slot: number },
): Promise<void> {
  const page = await deps.store.tenant(tenantId, (tx) => fanOutPage(deps, tx, tenantId, fanoutId, context));
  if (page === undefined) return;
  const queued = page.rows
    .filter((row) => row.scheduledAt === undefined)
    .map(({ id }) => ({ id, priority: page.priority }));
  await deps.queue.enqueue(tenantId, queued, 0);
  // Should it be lost here, the reconciler goes on when the lease is over.
  if (!page.done) await deps.queue.enqueueFanout(tenantId, fanoutId, page.priority, page.handled);
}

async function fanOutPage(
  deps: AcceptDeps,
  tx: Tx,
  tenantId: string,
  fanoutId: string,
  { slot }: { slot: number },
): Promise<Page> {
  const [state] = await tx<{ request: Uint8Array; cursor: string | null; createdAt: Date; handled: number }[]>`
    select request, cursor #>> '{}' as cursor, created_at as "createdAt", (created + deduplicated)::float8 as handled
    from fanouts
    where tenant_id = ${tenantId} and id = ${fanoutId} and state = 1 for update`;
  if (state === undefined) return undefined;
  const request = fromBinary(SendRequestSchema, state.request);
  const type = await deps.findType(tenantId, request.type || DEFAULT_TYPE);
  const now = deps.clock();
  const members = type === undefined ? [] : await pageAudience(tx, tenantId, request, state.cursor ?? "", PAGE);
  const done = members.length < PAGE;
  let rows: NewRow[] = [];
  let deduplicated = 0;
  let priority = 0;
  if (type !== undefined && members.length > 0) {
    // Prepared as of the Send: "in an hour" means an hour after it was accepted, however long the fan-out takes.
    const prepared = prepare(request, type, state.createdAt, deps.dedupWindowMs);
    const topics = request.to?.topics ?? [];
    const draft: Draft = { ...prepared, tags: [...prepared.tags, ...topics.map(topicTag)] };
    priority = draft.priority;
    const zones = draft.local ? await deps.zonesOf(tenantId, members) : undefined;
    const wanted = members.map((userId) => ({ id: deps.newId(), userId, ...draft.times(zones?.get(userId) ?? "UTC") }));
    const original = await claimDedupKeys(tx, tenantId, [{ draft, rows: wanted }], now);
    rows = wanted.filter((row) => !original.has(row));
    deduplicated = original.size;
    const key = draft.collapseKey;
    const collapsing = key === undefined ? [] : rows.map((row) => ({ ...row, key }));
    await lockCollapseKeys(tx, tenantId, collapsing);
    await insertRows(
      tx,
      tenantId,
      rows.map((row) => ({ row, draft })),
      fanoutId,
      { now, slot, idempotencyTtlMs: 0 },
    );
    await supersedeRows(tx, tenantId, collapsing, now, slot);
  }
  await tx`
    update fanouts set
      cursor = to_jsonb(${members.at(-1) ?? ""}::text), created = created + ${rows.length},
      deduplicated = deduplicated + ${deduplicated},
      state = ${done ? 2 : 1}, ended_at = ${done ? now : null}::timestamptz,
      lease_until = ${done ? null : new Date(now.getTime() + LEASE_MS)}::timestamptz
    where tenant_id = ${tenantId} and id = ${fanoutId}`;
  return { rows, done, priority, handled: state.handled + rows.length + deduplicated };
}

/** The next members of the audience after a user id: distinct over topics, roles and everyone, without those named. */
async function pageAudience(
  tx: Tx,
  tenantId: string,
  request: SendRequest,
  after: string,
  limit: number,
): Promise<string[]> {
  const { topics = [], roles = [], everyone = false, userIds = [] } = request.to ?? {};
  const rows = await tx<{ userId: string }[]>`
    select user_id as "userId" from (
      select m.user_id from unnest(${topics}::text[]) as t (topic) cross join lateral (
        select user_id from topic_members m where m.tenant_id = ${tenantId} and m.topic = t.topic
          and m.user_id > ${after} and m.user_id <> all(${userIds}::text[]) order by m.user_id limit ${limit}) m
      union
      select r.user_id from unnest(${roles}::text[]) as t (role) cross join lateral (
        select user_id from user_roles r where r.tenant_id = ${tenantId} and r.role = t.role
          and r.user_id > ${after} and r.user_id <> all(${userIds}::text[]) order by r.user_id limit ${limit}) r
      union
      select u.id from (
        select id from users where ${everyone} and tenant_id = ${tenantId} and id > ${after} and id <> all(${userIds}::text[])
        order by id limit ${limit}) u
    ) as audience order by user_id limit ${limit}`;
  return rows.map((row) => row.userId);
}

export type FanoutRow = {
  id: string;
  state: Fanout_State;
  created: number;
  deduplicated: number;
  createdAt: Date;
  endedAt: Date | null;
};

export async function findFanout(tx: Tx, tenantId: string, id: string): Promise<FanoutRow | undefined> {
  const [row] = await tx<FanoutRow[]>`
    select id, state, created::float8 as created, deduplicated::float8 as deduplicated, created_at as "createdAt",
      ended_at as "endedAt"
    from fanouts where tenant_id = ${tenantId} and id = ${id}`;
  return row;
}

/** Stops a running fan-out before its next page. */
export async function cancelFanout(tx: Tx, tenantId: string, id: string, now: Date): Promise<void> {
  await tx`update fanouts set state = 3, ended_at = ${now}, lease_until = null
    where tenant_id = ${tenantId} and id = ${id} and state = 1`;
}
