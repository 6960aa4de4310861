import { create, fromBinary } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  type Fanout,
  type Fanout_State,
  FanoutSchema,
  type SendRequest,
  SendRequestSchema,
} from "#gen/posthorn/v1/send_service_pb.ts";
import { Fault } from "#src/errors.ts";
import type { Cancelled } from "#src/notifications/cancel.ts";
import type { Tx } from "#src/store/store.ts";
import { topicTag } from "#src/stream/filter.ts";
import { recordedTrace } from "#src/telemetry/work-spans.ts";
import { FANOUT_LEASE_MS, laneOf } from "../flow.ts";
import type { AcceptDeps } from "./accept.ts";
import { DEFAULT_TYPE } from "./accept.ts";
import { claimDedupKeys, inPresentZones, insertRows } from "./commit.ts";
import { type Draft, draftOf, encodedIn, type TypeDefaults } from "./prepare.ts";
import { dependsOnRecipient, type NewRow, rowsOf } from "./submission.ts";
import { lockCollapseKeys, supersedeRows } from "./supersede.ts";
import { typedContent } from "./typed-content.ts";

/** Members handled in one transaction: bounds memory, and what a crash makes another worker repeat. */
const PAGE = 1000;

/** Where a fan-out stands, and the members that come next. */
type Next = {
  request: SendRequest;
  cursor: string | null;
  createdAt: Date;
  skipBefore: Date | null;
  /** Who has sent it. */
  actor: string;
  members: string[];
};

/** What a page will store for its members. */
type Plan = { draft: Draft; rows: NewRow[]; skipBefore: Date | null };

/**
 * Goes on with a fan-out by one page, and queues itself behind what else waits, so that the sends of others come in
 * between however many its members are. A page is stored in one transaction that also moves the cursor, so a crash
 * repeats nothing, and of two workers on the same page one stores it and the other leaves off. Members come in the order
 * of their ids, each once, whatever number of topics and roles they are reached through.
 */
export async function runFanout(
  deps: AcceptDeps,
  tenantId: string,
  fanoutId: string,
  context: { slot: number },
): Promise<void> {
  const next = await deps.store.tenant(tenantId, (tx) => readNext(tx, tenantId, fanoutId));
  if (next === undefined) return;
  // Not within a transaction: it would hold a connection while waiting for another.
  const plan = await planPage(deps, tenantId, next);
  const now = deps.clock();
  const stored = await deps.store.tenant(tenantId, (tx) =>
    storePage(tx, tenantId, { id: fanoutId, ...next }, plan, { ...context, now }),
  );
  if (stored === undefined || plan === undefined) return;
  const { priority } = plan.draft;
  const trace = recordedTrace();
  const queued = stored.rows.filter((row) => row.scheduledAt === undefined).map(({ id }) => ({ id, priority, trace }));
  deps.metrics.accepted.inc({ lane: laneOf(priority).name }, stored.rows.length);
  if (stored.superseded.length > 0) deps.superseded(tenantId, stored.superseded, now);
  await deps.queue.enqueue(tenantId, queued, "first");
  // Should it be lost here, the reconciler goes on with it.
  // By the time, for a page may create nothing: what it has created would be the number of the one before.
  if (!stored.done) await deps.queue.enqueueFanout(tenantId, { id: fanoutId, priority, trace }, now.getTime());
}

async function readNext(tx: Tx, tenantId: string, fanoutId: string): Promise<Next | undefined> {
  const [state] = await tx<(Omit<Next, "request" | "members"> & { request: Uint8Array })[]>`
    select request, cursor #>> '{}' as cursor, created_at as "createdAt", skip_before as "skipBefore", actor
    from fanouts where tenant_id = ${tenantId} and id = ${fanoutId} and state = 1`;
  if (state === undefined) return undefined;
  const request = fromBinary(SendRequestSchema, state.request);
  return { ...state, request, members: await pageAudience(tx, tenantId, request, state.cursor ?? "", PAGE) };
}

/** Undefined when the type is gone: there is nothing to send any more. */
async function planPage(deps: AcceptDeps, tenantId: string, next: Next): Promise<Plan | undefined> {
  const { request, members } = next;
  const type = await deps.findType(tenantId, request.type || DEFAULT_TYPE);
  if (type === undefined) return undefined;
  // Prepared as of the Send: "in an hour" means an hour after it was accepted, however long the fan-out takes.
  // Its content was judged with the Send, and stays with the fan-out.
  const prepared = draftOf(request, type, next.createdAt, deps.dedupWindowMs, { judged: true });
  const topics = request.to?.topics ?? [];
  const tags = [...prepared.tags, ...topics.map(topicTag)];
  const draft: Draft = { ...prepared, tags, contentIn: contentIn(request, type) };
  const known = dependsOnRecipient(draft) ? await deps.recipientsOf(tenantId, members) : undefined;
  const { skipBefore } = next;
  return { draft, skipBefore, rows: rowsOf(draft, members, { newId: deps.newId, known, skipBefore }) };
}

/** Where its payload would no longer be taken, all get what was made with the Send. */
function contentIn({ content }: SendRequest, type: TypeDefaults): Draft["contentIn"] {
  if (content === undefined || content.title !== "" || type.words?.wordsIn === undefined) return undefined;
  try {
    return encodedIn(typedContent(content, type));
  } catch (error) {
    if (error instanceof Fault) return undefined;
    throw error;
  }
}

/** Undefined when another worker has stored this page, or it was cancelled. */
async function storePage(
  tx: Tx,
  tenantId: string,
  { id, cursor, members, actor }: Next & { id: string },
  planned: Plan | undefined,
  { now, slot }: { now: Date; slot: number },
): Promise<{ rows: NewRow[]; superseded: Cancelled[]; done: boolean } | undefined> {
  const [plan] = planned === undefined ? [] : await inPresentZones(tx, tenantId, [planned]);
  const mine = await tx`
    select from fanouts where tenant_id = ${tenantId} and id = ${id} and state = 1
      and (cursor #>> '{}') is not distinct from ${cursor}::text for update`;
  if (mine.length === 0) return undefined;
  const original = plan && (await claimDedupKeys(tx, tenantId, [plan], now));
  const rows = plan?.rows.filter((row) => !original?.has(row)) ?? [];
  let superseded: Cancelled[] = [];
  if (plan !== undefined) {
    const { draft } = plan;
    const key = draft.collapseKey;
    const collapsing = key === undefined ? [] : rows.map((row) => ({ ...row, key }));
    const drafted = rows.map((row) => ({ row, draft, actor }));
    await lockCollapseKeys(tx, tenantId, collapsing);
    await insertRows(tx, tenantId, drafted, id, { now, slot, idempotencyTtlMs: 0 });
    superseded = await supersedeRows(tx, tenantId, collapsing, now, slot);
  }
  const done = plan === undefined || members.length < PAGE;
  await tx`
    update fanouts set
      cursor = to_jsonb(${members.at(-1) ?? ""}::text), created = created + ${rows.length},
      deduplicated = deduplicated + ${original?.size ?? 0},
      state = ${done ? 2 : 1}, ended_at = ${done ? now : null}::timestamptz,
      lease_until = ${done ? null : new Date(now.getTime() + FANOUT_LEASE_MS)}::timestamptz
    where tenant_id = ${tenantId} and id = ${id}`;
  return { rows, superseded, done };
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

/** Stops the fan-outs that run and whose notifications carry a tag, each before its next page. */
export async function cancelFanoutsWith(tx: Tx, tenantId: string, tag: string, now: Date): Promise<void> {
  // By their leases, which only those have that run.
  const running = await tx<{ id: string; request: Uint8Array }[]>`
    select id, request from fanouts where tenant_id = ${tenantId} and lease_until is not null and state = 1
    order by id`;
  for (const { id, request } of running)
    if (fromBinary(SendRequestSchema, request).tags.includes(tag)) await cancelFanout(tx, tenantId, id, now);
}

/** Stops a running fan-out before its next page. */
export async function cancelFanout(tx: Tx, tenantId: string, id: string, now: Date): Promise<void> {
  await tx`update fanouts set state = 3, ended_at = ${now}, lease_until = null
    where tenant_id = ${tenantId} and id = ${id} and state = 1`;
}

export function toFanout(row: FanoutRow): Fanout {
  return create(FanoutSchema, {
    id: row.id,
    state: row.state,
    created: BigInt(row.created),
    deduplicated: BigInt(row.deduplicated),
    createTime: timestampFromDate(row.createdAt),
    ...(row.endedAt === null ? {} : { endTime: timestampFromDate(row.endedAt) }),
  });
}
