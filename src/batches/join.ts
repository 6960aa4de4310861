import { BatchKind, BatchState } from "#gen/posthorn/v1/batch_service_pb.ts";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { NewId } from "#src/ids.ts";
import { instants, plain, texts } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import type { BatchPlan } from "./plan.ts";

/** A notification that shall go into a batch. */
export type Joining = {
  id: string;
  userId: string;
  type: string;
  category: string;
  priority: number;
  plan: BatchPlan;
  /** Of the row that was decided about. */
  version: string;
};

/** A batch that some have joined, as it stands after it. */
export type Joined = {
  id: string;
  userId: string;
  kind: BatchKind;
  state: typeof BatchState.OPEN | typeof BatchState.FULL;
  size: number;
  flushAt: Date;
  /** Those of the notifications that are in it. */
  members: string[];
  /** They have opened it, though somebody was to go at once and do so. */
  leaderless: boolean;
};

export type JoinContext = { now: Date; newId: NewId };

/**
 * Finds every notification a place in the open batch of its user and key, or opens that. A batch never takes more than it
 * may hold: it is FULL with the last, nobody finds it any more, and the next open another.
 *
 * What somebody else has decided meanwhile (a message that was delivered twice) joins nothing and is missing in the answer.
 *
 * Whoever joins holds the batch's row until the end of the transaction, as does whoever closes it: so everyone who joined
 * is there when it closes, and nobody joins what has closed. Locks are taken in the order of user and key, and before
 * those of notifications.
 */
export function joinBatches(
  tx: Tx,
  tenantId: string,
  joining: readonly Joining[],
  context: JoinContext,
): Promise<Joined[]> {
  return join(tx, tenantId, joining, context, (rows, groups) => withdraw(tx, tenantId, rows, groups));
}

/**
 * Has the batches that these shall move into open and locked, where the notifications are to be locked before they move:
 * moveIntoBatches then waits for nobody. Answers those that it has opened; call closeIfEmpty with them at the end.
 */
export async function openBatches(
  tx: Tx,
  tenantId: string,
  joining: readonly Joining[],
  context: JoinContext,
): Promise<string[]> {
  if (joining.length === 0) return [];
  const rows = await put(tx, tenantId, groups(joining), context, () => null);
  return rows.filter(({ opened }) => opened).map(({ id }) => id);
}

/** The same as joinBatches for notifications that the transaction has locked. */
export function moveIntoBatches(
  tx: Tx,
  tenantId: string,
  joining: readonly Joining[],
  context: JoinContext,
): Promise<Joined[]> {
  return join(tx, tenantId, joining, context, async (_, groups) => groups);
}

/** Takes those of the open batches back that nobody has joined. */
export async function closeIfEmpty(tx: Tx, tenantId: string, ids: readonly string[]): Promise<void> {
  if (ids.length === 0) return;
  await tx`
    delete from batches where tenant_id = ${tenantId} and id = any(${plain(ids)}::uuid[])
      and joined = 0 and leader_id is null and state = ${BatchState.OPEN}`;
}

async function join(
  tx: Tx,
  tenantId: string,
  joining: readonly Joining[],
  context: JoinContext,
  still: (rows: readonly Row[], groups: Map<string, Joining[]>) => Promise<Map<string, Joining[]>>,
): Promise<Joined[]> {
  const done: Joined[] = [];
  let left = groups(joining);
  let isFirst = true;
  while (left.size > 0) {
    const rows = await put(tx, tenantId, left, context, undefined);
    // Only now: whoever has joined with the same notifications held these rows until it had committed.
    if (isFirst) left = await still(rows, left);
    const full = rows.filter((row) => row.joined >= row.maxSize);
    if (full.length > 0) await fill(tx, tenantId, full, context.now);
    const next = new Map<string, Joining[]>();
    for (const row of rows) {
      const key = groupOf(row.userId, row.key);
      const group = left.get(key) ?? [];
      if (group.length === 0) continue;
      const room = Math.max(0, group.length - Math.max(0, row.joined - row.maxSize));
      const isFull = row.joined >= row.maxSize;
      if (room < group.length) next.set(key, group.slice(room));
      done.push({
        id: row.id,
        userId: row.userId,
        kind: row.kind,
        state: isFull ? BatchState.FULL : BatchState.OPEN,
        size: Math.min(row.joined, row.maxSize),
        flushAt: isFull && row.kind === BatchKind.BATCH && row.flushAt > context.now ? context.now : row.flushAt,
        members: group.slice(0, room).map(({ id }) => id),
        // What is more than a batch holds opens another, which nobody leads.
        leaderless: isFirst && row.opened && group.some(({ plan }) => plan.leading),
      });
    }
    left = next;
    isFirst = false;
  }
  return done;
}

/**
 * Has those whose batches are not open yet open them; answers who did, or had done so before: they go at once. Commit
 * it before they do. One that dies in between is found as the one who opened it; one that has ended before anybody
 * joined (it was cancelled, say) leads nobody, and gives its place to the first of these.
 */
export async function openLeading(
  tx: Tx,
  tenantId: string,
  joining: readonly Joining[],
  context: JoinContext,
): Promise<Set<string>> {
  const left = groups(joining);
  const rows = await put(tx, tenantId, left, context, (group) => group[0]?.id ?? null);
  const ids = new Set(joining.map(({ id }) => id));
  const gone = await withdrawLed(tx, tenantId, rows);
  const led = rows.flatMap(({ leaderId }) =>
    leaderId !== null && ids.has(leaderId) && !gone.has(leaderId) ? [leaderId] : [],
  );
  const behind = rows.flatMap((row) => {
    const next = left.get(groupOf(row.userId, row.key))?.[0];
    const isAnothers = row.leaderId !== null && !ids.has(row.leaderId);
    return row.joined === 0 && isAnothers && next !== undefined ? [{ row, next }] : [];
  });
  if (behind.length === 0) return new Set(led);
  const leaders = plain(behind.map(({ row }) => row.leaderId));
  const taken = await tx<{ leaderId: string }[]>`
    update /* locked before */ batches b set leader_id = t.next, opened_at = ${context.now}, flush_at = t.flush_at,
      latest_flush_at = t.latest_flush_at
    from unnest(
      ${plain(behind.map(({ row }) => row.id))}::uuid[],
      ${leaders}::uuid[],
      ${plain(behind.map(({ next }) => next.id))}::uuid[],
      ${instants(behind.map(({ next }) => next.plan.flushAt))}::timestamptz[],
      ${instants(behind.map(({ next }) => next.plan.latestFlushAt))}::timestamptz[]
    ) as t (id, leader, next, flush_at, latest_flush_at)
    where b.tenant_id = ${tenantId} and b.id = t.id and exists (
      select from notifications n
      where n.tenant_id = ${tenantId} and n.id = t.leader and n.id = any(${leaders}::uuid[])
        and n.status >= ${Status.FAILED})
    returning b.leader_id as "leaderId"`;
  return new Set([...led, ...taken.map(({ leaderId }) => leaderId)]);
}

/**
 * Takes back what was opened for leaders that somebody else has decided meanwhile, and whose own batch has been filled or
 * closed since: nobody else would lead as long as it is open. Answers these leaders.
 */
async function withdrawLed(tx: Tx, tenantId: string, rows: readonly Row[]): Promise<ReadonlySet<string>> {
  const opened = rows.filter((row) => row.opened);
  const leaders = opened.flatMap(({ leaderId }) => leaderId ?? []).toSorted();
  if (leaders.length === 0) return new Set();
  // Only now: whoever has filled or closed the batch before had decided its leader when it committed.
  const gone = await tx<{ leaderId: string }[]>`
    delete /* locked before */ from batches b
      where tenant_id = ${tenantId} and id = any(${plain(opened.map(({ id }) => id))}::uuid[])
      and not exists (
        select from notifications n
        where n.tenant_id = ${tenantId} and n.id = b.leader_id and n.id = any(${plain(leaders)}::uuid[])
          and n.id between ${leaders[0] ?? ""} and ${leaders.at(-1) ?? ""} and n.status + 0 = 1)
    returning leader_id as "leaderId"`;
  return new Set(gone.map(({ leaderId }) => leaderId));
}

type Row = {
  id: string;
  userId: string;
  key: string;
  kind: BatchKind;
  flushAt: Date;
  maxSize: number;
  joined: number;
  leaderId: string | null;
  /** By this statement. */
  opened: boolean;
};

async function put(
  tx: Tx,
  tenantId: string,
  groups: ReadonlyMap<string, readonly Joining[]>,
  { now, newId }: JoinContext,
  leaderOf: ((group: readonly Joining[]) => string | null) | undefined,
): Promise<Row[]> {
  const all = [...groups.values()];
  const first = all.flatMap((group) => group.slice(0, 1));
  const ids = first.map(() => newId());
  const made = new Set(ids);
  const soonest = (group: readonly Joining[], read: (plan: BatchPlan) => Date) =>
    new Date(Math.min(...group.map(({ plan }) => read(plan).getTime())));
  const rows = await tx<Omit<Row, "opened">[]>`
    insert into batches (tenant_id, id, user_id, kind, key, type, category, priority, state, opened_at, flush_at,
      latest_flush_at, max_size, joined, leader_id)
    select ${tenantId}, id, user_id, kind, key, type, category, priority, ${BatchState.OPEN}, ${now}, flush_at,
      latest_flush_at, max_size, joined, leader_id
    from unnest(
      ${plain(ids)}::uuid[],
      ${texts(first.map(({ userId }) => userId))}::text[],
      ${plain(first.map(({ plan }) => plan.kind))}::smallint[],
      ${texts(first.map(({ plan }) => plan.key))}::text[],
      ${texts(first.map(({ plan, type }) => (plan.kind === BatchKind.DIGEST ? DIGEST : type)))}::text[],
      ${texts(first.map(({ plan, category }) => (plan.kind === BatchKind.DIGEST ? DIGEST : category)))}::text[],
      ${plain(first.map(({ plan, priority }) => (plan.kind === BatchKind.DIGEST ? 0 : priority)))}::smallint[],
      ${instants(all.map((group) => soonest(group, (plan) => plan.flushAt)))}::timestamptz[],
      ${instants(all.map((group) => soonest(group, (plan) => plan.latestFlushAt)))}::timestamptz[],
      ${plain(first.map(({ plan }) => plan.maxSize))}::int[],
      ${plain(all.map((group) => (leaderOf === undefined ? group.length : 0)))}::int[],
      ${plain(all.map((group) => leaderOf?.(group)))}::uuid[]
    ) as t (id, user_id, kind, key, type, category, priority, flush_at, latest_flush_at, max_size, joined, leader_id)
    order by user_id, key
    on conflict (tenant_id, user_id, key) where state = 1 do update set
      joined = batches.joined + excluded.joined,
      -- A window that slides moves with each that joins; one that does not ends when the first of them wants it to.
      flush_at = case
        when excluded.joined = 0 then batches.flush_at
        when excluded.latest_flush_at > excluded.flush_at
          then least(batches.latest_flush_at, greatest(batches.flush_at, excluded.flush_at))
        else least(batches.flush_at, excluded.flush_at) end
    returning id, user_id as "userId", key, kind, flush_at as "flushAt", max_size as "maxSize", joined,
      leader_id as "leaderId"`;
  return rows.map((row) => ({ ...row, opened: made.has(row.id) }));
}

/**
 * Takes those who no longer wait out of the groups and of the rows' counts again; a batch that only they had opened goes.
 */
async function withdraw(
  tx: Tx,
  tenantId: string,
  rows: readonly Row[],
  groups: Map<string, Joining[]>,
): Promise<Map<string, Joining[]>> {
  const all = [...groups.values()].flat().sort((a, b) => (a.id < b.id ? -1 : 1));
  const ids = plain(all.map(({ id }) => id));
  const waiting = await tx<{ id: string }[]>`
    select n.id from unnest(${ids}::uuid[], ${plain(all.map(({ version }) => version))}::xid[]) as asked (id, version)
    join notifications n on n.id = asked.id
    where n.tenant_id = ${tenantId} and n.id = any(${ids}::uuid[])
      and n.id between ${all[0]?.id ?? ""} and ${all.at(-1)?.id ?? ""} and n.status + 0 = 1 and n.xmin = asked.version`;
  if (waiting.length === all.length) return groups;
  const there = new Set(waiting.map(({ id }) => id));
  const left = new Map([...groups].map(([key, group]) => [key, group.filter(({ id }) => there.has(id))]));
  const changes = rows.flatMap((row) => {
    const key = groupOf(row.userId, row.key);
    const gone = (groups.get(key)?.length ?? 0) - (left.get(key)?.length ?? 0);
    row.joined -= gone;
    return gone > 0 ? [{ id: row.id, gone }] : [];
  });
  await tx`
    update batches b set joined = b.joined - t.gone
    from unnest(${plain(changes.map(({ id }) => id))}::uuid[], ${plain(changes.map(({ gone }) => gone))}::int[])
      as t (id, gone)
    where b.tenant_id = ${tenantId} and b.id = t.id`;
  await closeIfEmpty(
    tx,
    tenantId,
    changes.map(({ id }) => id),
  );
  return left;
}

/** Type and category of a digest. */
export const DIGEST = "digest";

/** Closes the doors. A batch is due at once; a digest keeps its time. */
async function fill(tx: Tx, tenantId: string, rows: readonly Row[], now: Date): Promise<void> {
  await tx`
    update batches set state = ${BatchState.FULL}, joined = max_size,
      flush_at = case when kind = ${BatchKind.BATCH} then least(flush_at, ${now}) else flush_at end
    where tenant_id = ${tenantId} and id = any(${plain(rows.map(({ id }) => id))}::uuid[])`;
}

function groups(joining: readonly Joining[]): Map<string, Joining[]> {
  return Map.groupBy(joining, ({ userId, plan }) => groupOf(userId, plan.key));
}

function groupOf(userId: string, key: string): string {
  return `${userId}\0${key}`;
}
