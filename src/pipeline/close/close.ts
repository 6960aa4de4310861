import type { BatchKind } from "#gen/posthorn/v1/batch_service_pb.ts";
import type { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { dissolveForGood } from "#src/batches/dissolve.ts";
import type { NewId } from "#src/ids.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import { isDependencyDown } from "#src/rpc/dependency-errors.ts";
import type { Store } from "#src/store/store.ts";
import { readyFilters } from "#src/subscriptions/rules.ts";
import { requeueing } from "#src/telemetry/conventions.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import { withRootSpan } from "#src/telemetry/work-spans.ts";
import type { NotificationTypeRow } from "#src/types/type.ts";
import { enqueueByTenant, type Queue } from "../queue.ts";
import { type Closing, closing, type Ended } from "./closing.ts";
import { applyClosings, findDue, lockDue, lockMembers, type MemberRow, readMembers } from "./queries.ts";

export type CloseDeps = {
  store: Store;
  queue: Queue;
  newId: NewId;
  /** Counter slot of this process. */
  slot: number;
  findType(tenantId: string, key: string): Promise<NotificationTypeRow | undefined> | NotificationTypeRow | undefined;
  loadPreferences(tenantId: string, userIds: readonly string[]): Promise<ReadonlyMap<string, CompiledPreferences>>;
  /** What ends a member for good; undefined: it is still wanted. */
  endedBy(
    member: MemberRow,
    preferences: CompiledPreferences,
    now: Date,
  ): { status: Status; reason: Reason } | undefined;
  /** Tells the streams. Called after the commit. */
  closed(tenantId: string, batch: ClosedBatch, at: Date): void;
  log: Pick<Logger, "error">;
};

export type ClosedBatch = {
  id: string;
  userId: string;
  kind: BatchKind;
  size: number;
  /** What it became; undefined: nothing was left. */
  notificationId: string | undefined;
  ended: readonly Ended[];
};

/**
 * Closes what is due, of all tenants: each batch's live members become one notification, or the only one goes as itself.
 * Exactly once: a batch is closed, its members are taken and what they become is stored in one transaction that holds its
 * row; whoever comes second finds it closed, and whoever dies before the commit has done nothing. That they are queued
 * afterwards is a hint, as after every accept: the reconciler finds what it misses.
 *
 * Any number of processes may do this. It looks at `limit` batches, and closes in one transaction those of `limit` members
 * together, unless a single one has more. Answers how many it looked at; `limit`: there may be more.
 */
export async function closeDue(deps: CloseDeps, now: Date, limit: number): Promise<{ seen: number; closed: number }> {
  const due = await deps.store.system((tx) => findDue(tx, now, limit));
  let closed = 0;
  for (const [tenantId, batches] of Map.groupBy(due, (batch) => batch.tenantId)) {
    for (let rest = batches; rest.length > 0; ) {
      let members = 0;
      const some = rest.filter((batch, index) => {
        members += batch.joined;
        return index === 0 || members <= limit;
      });
      rest = rest.slice(some.length);
      closed += await closeOrGiveUp(deps, tenantId, some, now);
    }
  }
  return { seen: due.length, closed };
}

type Due = { id: string; userId: string; type: string };

/**
 * Closes them; where that fails, half by half, so that one that cannot be closed keeps no other waiting. That one is
 * dissolved for good: its members go as themselves, and what is wrong with one of them is that one's. While a dependency is
 * away nothing is given up.
 */
async function closeOrGiveUp(deps: CloseDeps, tenantId: string, due: readonly Due[], now: Date): Promise<number> {
  try {
    return await closeSome(deps, tenantId, due, now);
  } catch (err) {
    if (isDependencyDown(err)) throw err;
    const half = due.length >> 1;
    if (half > 0) {
      const closed = await closeOrGiveUp(deps, tenantId, due.slice(0, half), now);
      return closed + (await closeOrGiveUp(deps, tenantId, due.slice(half), now));
    }
    const [{ id }] = due as readonly [Due];
    deps.log.error({ err, tenant: tenantId, batch: id }, "a batch cannot be closed; its members go as themselves");
    await deps.store.tenantDb(tenantId, (db) => dissolveForGood(db, tenantId, id, now));
    return 1;
  }
}

async function closeSome(deps: CloseDeps, tenantId: string, due: readonly Due[], now: Date): Promise<number> {
  // Everything that may have to be read is read before the locks are taken.
  const preferences = await deps.loadPreferences(tenantId, [...new Set(due.map(({ userId }) => userId))]);
  const types = new Map<string, NotificationTypeRow | undefined>();
  for (const type of new Set(due.map((batch) => batch.type))) types.set(type, await deps.findType(tenantId, type));
  const asked = await askFilters(deps, tenantId, due, preferences, now);
  const ids = due.map(({ id }) => id);
  const closings = await deps.store.tenant(tenantId, async (tx): Promise<Closing[]> => {
    const batches = await lockDue(tx, tenantId, ids, now);
    if (batches.length === 0) return [];
    const rows = await lockMembers(
      tx,
      tenantId,
      batches.map(({ id }) => id),
    );
    const members = Map.groupBy(rows, (row) => row.batchId);
    const endedBy = (member: MemberRow) => {
      const own = preferences.get(member.userId);
      if (own === undefined) throw new Error("preferences missing for a user of a batch");
      const known = asked.get(member.id);
      return known?.version === member.version ? known.end : deps.endedBy(member, own, now);
    };
    const found = batches.map((batch) =>
      closing(batch, members.get(batch.id) ?? [], types.get(batch.type), endedBy, deps.newId),
    );
    await applyClosings(tx, tenantId, found, { now, slot: deps.slot });
    return found;
  });
  const queued = closings.flatMap((each) => (each.next === undefined ? [] : [{ tenantId, ...each.next }]));
  if (queued.length > 0) await withRootSpan(requeueing("due"), () => enqueueByTenant(deps.queue, queued, now));
  for (const { batch, merged, next, ended } of closings) {
    const { id, userId, kind } = batch;
    deps.closed(tenantId, { id, userId, kind, size: merged.length, notificationId: next?.id, ended }, now);
  }
  return closings.length;
}

/**
 * What the members of users with filters are ended by: asked before the locks are taken, because filters take their time. Who
 * is updated in between is asked again.
 */
async function askFilters(
  deps: CloseDeps,
  tenantId: string,
  due: readonly Due[],
  preferences: ReadonlyMap<string, CompiledPreferences>,
  now: Date,
): Promise<Map<string, { version: string; end: ReturnType<CloseDeps["endedBy"]> }>> {
  const asked: Awaited<ReturnType<typeof askFilters>> = new Map();
  const filtered = due.flatMap(({ id, userId }) => (preferences.get(userId)?.wishes === undefined ? [] : [id]));
  if (filtered.length === 0) return asked;
  for (const member of await deps.store.tenant(tenantId, (tx) => readMembers(tx, tenantId, filtered))) {
    const own = preferences.get(member.userId);
    if (own === undefined) continue;
    await readyFilters(own.wishes, member);
    asked.set(member.id, { version: member.version, end: deps.endedBy(member, own, now) });
  }
  return asked;
}
