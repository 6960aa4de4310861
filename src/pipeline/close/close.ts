import { BatchKind } from "#gen/posthorn/v1/batch_service_pb.ts";
import { type Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { dissolveForGood } from "#src/batches/dissolve.ts";
import { measureDissolved } from "#src/batches/measure.ts";
import type { NewId } from "#src/ids.ts";
import type { Given } from "#src/limits/hold.ts";
import type { Reservation } from "#src/limits/notification-limits.ts";
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
import { type Becoming, type ClosingRules, closing, type Ended, turnOf } from "./closing.ts";
import { measureClosings } from "./measure.ts";
import { openDigests, type PourDeps, type Poured, pour, type Refused } from "./pour.ts";
import {
  applyClosings,
  type DueBatch,
  findDue,
  lockDue,
  lockMembers,
  type MemberRow,
  readDue,
  readMembers,
} from "./queries.ts";

export type CloseDeps = PourDeps & {
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
  /**
   * Finds what batches would become their turns under the limits, by the batches' ids, or has the hourly cap send it into
   * the digest; nothing for what passes them all. Idempotent by id and attempt.
   */
  turnsOf(tenantId: string, wholes: readonly AskingWhole[], now: Date): Promise<ReadonlyMap<string, Reservation>>;
  /** Tells the streams that a batch stays open, until then. Called after the commit, as is `closed`. */
  waits(tenantId: string, batch: WaitingBatch, at: Date): void;
  closed(tenantId: string, batch: ClosedBatch, at: Date): void;
  /** Tells them that batches which the hourly cap has refused are no more, and where their members have gone. */
  poured(tenantId: string, batches: readonly RefusedBatch[], into: Poured, at: Date): void;
  log: Pick<Logger, "error">;
  metrics: Pick<Metrics, "batchesClosed" | "batchItems" | "schedulerLagSeconds">;
};

export type AskingWhole = {
  batchId: string;
  userId: string;
  becoming: Becoming & { tags: readonly string[] };
  preferences: CompiledPreferences;
  /** Of a batch; a digest has none. */
  type: NotificationTypeRow | undefined;
  /** Where the hourly cap has no room for it, its members may go into a digest: it is none itself. */
  mayBeDigested: boolean;
  attempts: number;
  slot: Given | undefined;
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

export type RefusedBatch = Pick<ClosedBatch, "id" | "userId" | "kind" | "ended">;

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
 * One whose notification would only wait, for a time of day or for its turn under a limit, stays open until then: what has
 * closed is as it is, what is open can lose the members that are cancelled, changed or no longer wanted before anybody is
 * told of them. The limits are asked before the locks are taken, and a notification that they let through is not asked
 * about again. What the hourly cap has no room for goes into the user's digest (pour.ts).
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
  let preferences = await currentPreferences(deps, tenantId, [...new Set(due.map(({ userId }) => userId))]);
  const types = new Map<string, NotificationTypeRow | undefined>();
  for (const type of new Set(due.map((batch) => batch.type))) types.set(type, await deps.findType(tenantId, type));
  const ids = due.map(({ id }) => id);
  const [seen, present] = await deps.store.tenant(tenantId, (tx) =>
    Promise.all([readDue(tx, tenantId, ids, now), readMembers(tx, tenantId, ids)]),
  );
  const asked = await askFilters(deps, present, preferences, now);
  const rulesFor = (userId: string, turn: Reservation | undefined): ClosingRules => {
    const own = preferences.get(userId);
    if (own === undefined) throw new Error("preferences missing for a user of a batch");
    return {
      language: own.language,
      endedBy(member) {
        const known = asked.get(member.id);
        return known?.version === member.version ? known.end : deps.endedBy(member, own, now);
      },
      heldBy: (next) => deps.heldBy(next, own, now),
      turn,
    };
  };
  const turns = await askLimits(deps, tenantId, { batches: seen, members: present, types, preferences, rulesFor }, now);
  const expected = refusedAmong(seen, present, turns);
  if (expected.length > 0) {
    const userIds = [...new Set(expected.map(({ batch }) => batch.userId))];
    preferences = new Map([...preferences, ...(await deps.reloadPreferences(tenantId, userIds))]);
  }
  const rules = { preferences, types };
  const { closings, poured } = await deps.store.tenant(tenantId, async (tx) => {
    const { outdated, opened } = await openDigests(deps, tx, tenantId, expected, rules, now);
    const lasting = expected.flatMap(({ batch }) => (outdated.has(batch.userId) ? [batch.id] : []));
    const closable = ids.filter((id) => !lasting.includes(id));
    const batches = await lockDue(tx, tenantId, closable, now);
    const locked = batches.map(({ id }) => id);
    const rows = locked.length === 0 ? [] : await lockMembers(tx, tenantId, locked);
    const members = Map.groupBy(rows, (row) => row.batchId);
    const found = batches.map((batch) => {
      const rules = rulesFor(batch.userId, turns.get(batch.id));
      return closing(batch, members.get(batch.id) ?? [], types.get(batch.type), rules, { newId: deps.newId, now });
    });
    if (found.length > 0) await applyClosings(tx, tenantId, found, { now, slot: deps.slot });
    // Only now: a digest that has closed with these takes nobody any more.
    const refused = found.flatMap(({ batch, refused }) => (refused === undefined ? [] : [{ batch, ...refused }]));
    return { closings: found, poured: await pour(deps, tx, tenantId, { refused, opened }, rules, now) };
  });
  const alone = poured.members.filter(({ status }) => status === Status.ACCEPTED);
  const going = [...closings.flatMap(({ next }) => next ?? []), ...alone];
  const queued = going.map(({ id, priority }) => ({ tenantId, id, priority }));
  if (queued.length > 0) await enqueueByTenant(deps.queue, queued);
  measureClosings(deps.metrics, closings, now);
  const gone = closings.filter(({ refused }) => refused !== undefined);
  const told = gone.map(({ batch: { id, userId, kind }, ended }) => ({ id, userId, kind, ended }));
  if (gone.length > 0) deps.poured(tenantId, told, poured, now);
  for (const { batch, merged, next, ended, heldUntil, refused } of closings) {
    const { id, userId, kind, state, joined } = batch;
    if (refused !== undefined) continue;
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

type Seen = {
  batches: readonly DueBatch[];
  members: readonly MemberRow[];
  types: ReadonlyMap<string, NotificationTypeRow | undefined>;
  preferences: ReadonlyMap<string, CompiledPreferences>;
  rulesFor(userId: string, turn: Reservation | undefined): ClosingRules;
};

/** What the limits say about the notifications that several would become, as these are now. */
async function askLimits(
  deps: CloseDeps,
  tenantId: string,
  { batches, members, types, preferences, rulesFor }: Seen,
  now: Date,
): Promise<ReadonlyMap<string, Reservation>> {
  const membersOf = Map.groupBy(members, (row) => row.batchId);
  const wholes = batches.flatMap((batch): AskingWhole[] => {
    const { id: batchId, userId, category, attempts } = batch;
    const type = types.get(batch.type);
    const own = preferences.get(userId);
    const rules = rulesFor(userId, undefined);
    const found = closing(batch, membersOf.get(batchId) ?? [], type, rules, { newId: () => batchId, now });
    const { whole, next } = found;
    const mayBeDigested = batch.kind === BatchKind.BATCH;
    // The only one of a digest asks as what it is.
    const [only] = mayBeDigested && next !== undefined ? found.merged : [];
    const becomes = whole ?? (only && { ...only, tags: only.tags ?? [] });
    if (becomes === undefined || own === undefined) return [];
    const becoming = { ...becomes, id: batchId, type: batch.type, category };
    return [{ batchId, userId, becoming, preferences: own, type, mayBeDigested, attempts, slot: turnOf(batch) }];
  });
  return wholes.length === 0 ? new Map() : deps.turnsOf(tenantId, wholes, now);
}

/** What the hourly cap has refused of these, as they are now. */
function refusedAmong(
  batches: readonly DueBatch[],
  members: readonly MemberRow[],
  turns: ReadonlyMap<string, Reservation>,
): Refused[] {
  return batches.flatMap((batch) => {
    const by = turns.get(batch.id);
    if (by === undefined || by.allowed || !by.digest) return [];
    return [{ batch, members: members.filter(({ batchId }) => batchId === batch.id), by }];
  });
}

/**
 * What the members of users with filters are ended by: asked before the locks are taken, because filters take their time. Who
 * is updated in between is asked again.
 */
async function askFilters(
  deps: CloseDeps,
  members: readonly MemberRow[],
  preferences: ReadonlyMap<string, CompiledPreferences>,
  now: Date,
): Promise<Map<string, { version: string; end: ReturnType<CloseDeps["endedBy"]> }>> {
  const asked: Awaited<ReturnType<typeof askFilters>> = new Map();
  for (const member of members) {
    const own = preferences.get(member.userId);
    if (own?.wishes === undefined) continue;
    await readyFilters(own.wishes, member);
    asked.set(member.id, { version: member.version, end: deps.endedBy(member, own, now) });
  }
  return asked;
}
