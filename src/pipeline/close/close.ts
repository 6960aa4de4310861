import type { BatchKind } from "#gen/posthorn/v1/batch_service_pb.ts";
import type { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { dissolveForGood } from "#src/batches/dissolve.ts";
import { measureDissolved } from "#src/batches/measure.ts";
import type { NewId } from "#src/ids.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import { isDependencyDown } from "#src/rpc/dependency-errors.ts";
import type { Store } from "#src/store/store.ts";
import { readyFilters } from "#src/subscriptions/rules.ts";
import { ATTR, scheduled } from "#src/telemetry/conventions.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { withRootSpan } from "#src/telemetry/work-spans.ts";
import type { NotificationTypeRow } from "#src/types/type.ts";
import { enqueueByTenant, type Queue } from "../queue.ts";
import { type Becoming, type Closing, type ClosingRules, closing, type Ended } from "./closing.ts";
import { measureClosings } from "./measure.ts";
import { applyClosings, type DueBatch, findDue, lockDue, lockMembers, type MemberRow, readMembers } from "./queries.ts";

export type CloseDeps = {
  store: Store;
  queue: Queue;
  newId: NewId;
  /** Counter slot of this process. */
  slot: number;
  findType(tenantId: string, key: string): Promise<NotificationTypeRow | undefined> | NotificationTypeRow | undefined;
  loadPreferences(tenantId: string, userIds: readonly string[]): Promise<ReadonlyMap<string, CompiledPreferences>>;
  /** The same past all caches. */
  reloadPreferences(tenantId: string, userIds: readonly string[]): Promise<ReadonlyMap<string, CompiledPreferences>>;
  /** What ends a member for good; undefined: it is still wanted. */
  endedBy(
    member: MemberRow,
    preferences: CompiledPreferences,
    now: Date,
  ): { status: Status; reason: Reason } | undefined;
  /** What of the clock would hold what it becomes; undefined: nothing. */
  heldBy(next: Becoming, preferences: CompiledPreferences, now: Date): { until: Date } | undefined;
  /** Tells the streams that a batch stays open, until then. Called after the commit, as is `closed`. */
  waits(tenantId: string, batch: WaitingBatch, at: Date): void;
  closed(tenantId: string, batch: ClosedBatch, at: Date): void;
  log: Pick<Logger, "error">;
  metrics: Pick<Metrics, "batchesClosed" | "batchItems" | "schedulerLagSeconds">;
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

export type WaitingBatch = Pick<DueBatch, "id" | "userId" | "kind" | "state"> & {
  /** How many have joined. */
  size: number;
  flushAt: Date;
  ended: readonly Ended[];
};

/**
 * Closes what is due, of all tenants: each batch's live members become one notification, or the only one goes as itself.
 * Exactly once: a batch is closed, its members are taken and what they become is stored in one transaction that holds its
 * row; whoever comes second finds it closed, and whoever dies before the commit has done nothing. That they are queued
 * afterwards is a hint, as after every accept: the reconciler finds what it misses.
 *
 * One whose notification would only wait for a time of day stays open until then: what has closed is as it is, what is
 * open can lose the members that are cancelled, changed or no longer wanted before anybody is told of them.
 *
 * Any number of processes may do this. It looks at `limit` batches, and closes in one transaction those of `limit` members
 * together, unless a single one has more. Answers how many it looked at (`limit`: there may be more), and of how many
 * of these something has become.
 */
export async function closeDue(deps: CloseDeps, now: Date, limit: number): Promise<{ seen: number; done: number }> {
  const due = await deps.store.system((tx) => findDue(tx, now, limit));
  let done = 0;
  for (const [tenantId, batches] of Map.groupBy(due, (batch) => batch.tenantId)) {
    for (let rest = batches; rest.length > 0; ) {
      let members = 0;
      const some = rest.filter((batch, index) => {
        members += batch.joined;
        return index === 0 || members <= limit;
      });
      rest = rest.slice(some.length);
      done += await withRootSpan(scheduled("close batches", tenantId, { [ATTR.batches]: some.length }), () =>
        closeOrGiveUp(deps, tenantId, some, now),
      );
    }
  }
  return { seen: due.length, done };
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
    const gone = await deps.store.tenantDb(tenantId, (db) => dissolveForGood(db, tenantId, id, now));
    measureDissolved(deps.metrics, gone);
    return 1;
  }
}

async function closeSome(deps: CloseDeps, tenantId: string, due: readonly Due[], now: Date): Promise<number> {
  // Everything that may have to be read is read before the locks are taken.
  const preferences = await currentPreferences(deps, tenantId, [...new Set(due.map(({ userId }) => userId))]);
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
    const found = batches.map((batch) => {
      const own = preferences.get(batch.userId);
      if (own === undefined) throw new Error("preferences missing for a user of a batch");
      const rules: ClosingRules = {
        endedBy(member) {
          const known = asked.get(member.id);
          return known?.version === member.version ? known.end : deps.endedBy(member, own, now);
        },
        heldBy: (next) => deps.heldBy(next, own, now),
      };
      return closing(batch, members.get(batch.id) ?? [], types.get(batch.type), rules, deps.newId);
    });
    await applyClosings(tx, tenantId, found, { now, slot: deps.slot });
    return found;
  });
  const queued = closings.flatMap((each) => (each.next === undefined ? [] : [{ tenantId, ...each.next }]));
  if (queued.length > 0) await enqueueByTenant(deps.queue, queued, now);
  measureClosings(deps.metrics, closings, now);
  for (const { batch, merged, next, ended, heldUntil } of closings) {
    const { id, userId, kind, state, joined } = batch;
    if (heldUntil !== undefined)
      deps.waits(tenantId, { id, userId, kind, state, size: joined, flushAt: heldUntil, ended }, now);
    else deps.closed(tenantId, { id, userId, kind, size: merged.length, notificationId: next?.id, ended }, now);
  }
  return closings.length;
}

/**
 * Past all caches for users with rules of the clock: a change of these dissolves the batches that are open when it commits,
 * but a batch that was opened after it would wait by the former rules, and nothing would ask again before they say.
 */
async function currentPreferences(
  deps: CloseDeps,
  tenantId: string,
  userIds: readonly string[],
): Promise<ReadonlyMap<string, CompiledPreferences>> {
  const cached = await deps.loadPreferences(tenantId, userIds);
  const clocked = userIds.filter((userId) => cached.get(userId)?.clock !== undefined);
  if (clocked.length === 0) return cached;
  return new Map([...cached, ...(await deps.reloadPreferences(tenantId, clocked))]);
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
