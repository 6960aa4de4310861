import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { type Dissolved, dissolveBatchesOf, endBatches } from "#src/batches/dissolve.ts";
import { measureDissolved } from "#src/batches/measure.ts";
import { endHandOverHolds, endHandOverHoldsOfAll, endHolds, endHoldsOfAll } from "#src/escalation/queries.ts";
import { findLooks } from "#src/learning/queries.ts";
import { type CompiledPreferences, compile } from "#src/preferences/compile.ts";
import { raiseFence } from "#src/preferences/fence.ts";
import { readLevels } from "#src/preferences/queries.ts";
import type { Counts, Reconcile } from "#src/preferences/reconciled.ts";
import {
  DECIDED,
  following,
  moveRuleChange,
  oldestRuleChanges,
  type Progress,
  postponeRuleChange,
  type RuleChange,
  recordRest,
  takeRuleChange,
} from "#src/preferences/rule-changes.ts";
import type { ZoneClock } from "#src/preferences/zone-clock.ts";
import type { Db, Store } from "#src/store/store.ts";
import type { Live } from "#src/stream/live.ts";
import type { FilterEvaluator } from "#src/subscriptions/evaluate.ts";
import { readyFilters, wishesOf } from "#src/subscriptions/rules.ts";
import { ATTR, scheduled } from "#src/telemetry/conventions.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { withRootSpan, withStepSpan } from "#src/telemetry/work-spans.ts";
import { findTypes } from "#src/types/queries.ts";
import { rulesOf as rulesOfType } from "#src/types/type.ts";
import { type DecideDeps, decideCounting } from "../route/decide-in-slices.ts";
import type { Facts } from "../route/gates/decide.ts";
import { recording } from "../route/record.ts";
import { goodHoursOf } from "../route/when-they-look.ts";
import { type Outcome, reconsidered, type WaitingRow } from "./outcome.ts";
import {
  type Decided,
  isTold,
  lockWaiting,
  lockWaitingOfUsers,
  lookAtWaiting,
  readContents,
  storeOutcomes,
} from "./queries.ts";

export type ReconsiderDeps = DecideDeps & {
  clockOf(zone: string): ZoneClock;
  filters: FilterEvaluator;
  live: Pick<Live, "statusChanged">;
  metrics: Pick<Metrics, "batchesClosed">;
};

/** Notifications that one transaction looks at: it holds their locks, and a call that changes rules waits for it. */
const PAGE = 1000;
/** Changes worked on by one look at what is to do, so that one with much to do does not keep the others waiting. */
const CHANGES = 16;
/** Contents held at a time, when users have filters about them. */
const CONTENTS = 50;
/** Steps that users' filters may take in one transaction, some tens of milliseconds: the rest waits for the next. */
const STEPS = 50_000;

const NONE: ReadonlySet<string> = new Set();
const FIRST = "00000000-0000-0000-0000-000000000000";

export type RestDeps = ReconsiderDeps & { store: Store; log: Pick<Logger, "warn"> };

/**
 * Decides anew, in the transaction of the change, what waits for the users whose rules it changes. Their open batches are
 * ended first, all of them: then members are decided about one by one, like everything else, and those beyond the page
 * with the pages that follow. Steps of escalations that the former rules held have their turn again at the next tick, and
 * so have hand-overs.
 */
export function reconciling(deps: ReconsiderDeps): Reconcile {
  return async (db, tenantId, userIds, now, fresh = NONE) => {
    await raiseFence(db, tenantId, userIds);
    const dissolved = await endBatches(db, tenantId, userIds, now);
    const rows = await lockWaitingOfUsers(db, tenantId, userIds, FIRST, PAGE + 1);
    const page = rows.slice(0, PAGE).filter(({ id }) => !fresh.has(id));
    const { decided, seen } = await withStepSpan(
      () => scheduled("reconsider", tenantId, { [ATTR.items]: page.length }),
      () => reconsiderPage(deps, db, tenantId, page, now),
    );
    await endHolds(db, tenantId, userIds);
    await endHandOverHolds(db, tenantId, userIds, now);
    const last = seen.length < page.length ? seen.at(-1) : rows.slice(0, PAGE).at(-1);
    const more = (rows.length > PAGE || seen.length < page.length) && last !== undefined;
    if (more) await recordRest(db, tenantId, userIds, last.id, now);
    return {
      counts: { ...countsOf(seen, decided), more },
      announce: () => {
        measureDissolved(deps.metrics, dissolved);
        announce(deps, tenantId, decided, now);
      },
    };
  };
}

/**
 * Goes on with changes whose notifications have not all been decided anew: by a page each, in a transaction that also
 * moves the cursor, so that a crash repeats nothing. Changes take turns; one that fails is logged and has its next turn
 * behind the others. Any number of processes may run it.
 */
export async function reconsiderRest(deps: RestDeps, now: Date): Promise<{ looked: number; more: boolean }> {
  const changes = await deps.store.system((tx) => oldestRuleChanges(tx, CHANGES));
  let looked = 0;
  let ended = 0;
  let unfinished = false;
  for (const change of changes) {
    const span = scheduled("reconsider", change.tenantId);
    const page = await withRootSpan(span, () => reconsiderNext(deps, change, now)).catch((err: unknown) =>
      postpone(deps, change, now, err),
    );
    // Somebody else is at it, or it failed.
    if (page === undefined) continue;
    looked += page.looked;
    if (page.done) ended++;
    else unfinished = true;
  }
  return { looked, more: unfinished || (changes.length === CHANGES && ended > 0) };
}

async function postpone({ store, log }: RestDeps, change: RuleChange, now: Date, err: unknown): Promise<undefined> {
  const { tenantId, type } = change;
  log.warn({ err, tenantId, type }, "could not decide anew what waits for a change of rules; it is tried again");
  try {
    await store.tenantDb(tenantId, (db) => postponeRuleChange(db, change, now));
  } catch (error) {
    log.warn({ err: error, tenantId, type }, "could not postpone a change of rules");
  }
}

async function reconsiderNext(
  deps: RestDeps,
  change: RuleChange,
  now: Date,
): Promise<{ looked: number; done: boolean } | undefined> {
  const { store } = deps;
  const { tenantId, userId } = change;
  // What concerns everybody was not fenced by its change, which would have stopped all holds of the tenant: what had begun
  // by the former rules is waited for here. For a user: as in the change, before the row that both may lock.
  if (userId === "") await store.tenantDb(tenantId, (db) => raiseFence(db, tenantId, [""]));
  const page = await store.tenantDb(tenantId, async (db) => {
    if (userId !== "") await raiseFence(db, tenantId, [userId]);
    const progress = await takeRuleChange(db, change);
    if (progress === undefined) return undefined;
    const { rows, looked, last, dissolved } = await (userId === ""
      ? takeWaiting(db, change, progress, now)
      : lockPageOfUser(db, tenantId, userId, progress.after));
    const { decided, seen } = await reconsiderPage(deps, db, tenantId, rows, now);
    const next = nextProgress(change, progress, seen.length < rows.length ? seen.at(-1)?.id : last);
    await moveRuleChange(db, change, next, now);
    return { looked, done: next === undefined, decided, dissolved };
  });
  if (page === undefined) return undefined;
  measureDissolved(deps.metrics, page.dissolved);
  announce(deps, tenantId, page.decided, now);
  return page;
}

type Taken = { rows: WaitingRow[]; looked: number; last: string | undefined; dissolved: Dissolved };

/**
 * A page of what waits for all users. The batches that its members are in are dissolved with it, a batch with all of its
 * members, wherever these are: no batch is ever half by the former rules. Of what has been decided only steps that
 * are held have their turn again.
 */
async function takeWaiting(db: Db, change: RuleChange, progress: Progress, now: Date): Promise<Taken> {
  const { tenantId, type } = change;
  if (progress.status === DECIDED) {
    const steps = await endHoldsOfAll(db, change, progress.after, PAGE);
    const others = await endHandOverHoldsOfAll(db, change, progress.after, { limit: PAGE, now });
    // Both go on after the nearer of the two ends.
    const last = [steps.last, others.last].filter((each) => each !== undefined).toSorted()[0];
    return { rows: [], dissolved: [], looked: steps.looked + others.looked, last };
  }
  const { ids, looked, last } = await lookAtWaiting(db, change, progress, PAGE);
  // Batches are locked before notifications.
  const dissolved =
    progress.status === Status.BATCHED && ids.length > 0
      ? await dissolveBatchesOf(db, tenantId, { notificationIds: ids, type }, now)
      : [];
  return { rows: await lockWaiting(db, tenantId, progress.status, ids), looked, last, dissolved };
}

async function lockPageOfUser(db: Db, tenantId: string, userId: string, after: string): Promise<Taken> {
  const rows = await lockWaitingOfUsers(db, tenantId, [userId], after, PAGE);
  return { rows, looked: rows.length, last: rows.length < PAGE ? undefined : rows.at(-1)?.id, dissolved: [] };
}

function nextProgress({ userId }: RuleChange, { status }: Progress, last: string | undefined): Progress | undefined {
  if (last !== undefined) return { status, after: last };
  return userId === "" ? following(status) : undefined;
}

/**
 * Decides about rows that the transaction has locked, by the rules as it sees them, and stores what changes. `seen`: the
 * first of them, at least one, where the users' filters take so long that the others have to wait.
 */
async function reconsiderPage(
  deps: ReconsiderDeps,
  db: Db,
  tenantId: string,
  rows: readonly WaitingRow[],
  now: Date,
): Promise<{ decided: Decided[]; seen: readonly WaitingRow[] }> {
  if (rows.length === 0) return { decided: [], seen: rows };
  const types = await findTypes(db, tenantId, [...new Set(rows.map((row) => row.type))]);
  const typeRules = new Map(types.map((type) => [type.key, rulesOfType(type)]));
  const typeRevisions = new Map(types.map(({ key, revision }) => [key, revision]));
  const userIds = [...new Set(rows.map((row) => row.userId))];
  const { levels, subscriptions, revisions, optIn } = await readLevels(db, tenantId, userIds);
  const recordOf = recording(now);
  const rules = new Map<string, CompiledPreferences>();
  const rulesOf = (userId: string) => {
    const known =
      rules.get(userId) ??
      compile(levels(userId), optIn, deps.clockOf, {
        revisions: revisions(userId),
        wishes: wishesOf(subscriptions(userId), deps.filters),
      });
    rules.set(userId, known);
    return known;
  };
  const good = await goodHoursOf(
    rows,
    { preferences: rulesOf, rules: (type) => typeRules.get(type) },
    (asked) => findLooks(db, tenantId, asked),
    now,
  );
  const decide = (facts: Facts, at: Date) => decideCounting(deps, facts, at);
  const decided: Decided[] = [];
  const most = deps.filters.spent() + STEPS;
  let seen = 0;
  for (let from = 0; from < rows.length && deps.filters.spent() <= most; from += CONTENTS) {
    const some = rows.slice(from, from + CONTENTS);
    const filtered = some.filter(({ userId }) => rulesOf(userId).wishes !== undefined).map(({ id }) => id);
    const contents = filtered.length === 0 ? undefined : await readContents(db, tenantId, filtered);
    for (const row of some) {
      const { wishes } = rulesOf(row.userId);
      const about = wishes === undefined ? row : { ...row, content: contents?.get(row.id) };
      if (wishes !== undefined) await readyFilters(wishes, about);
      const outcome = reconsidered(about, rulesOf(row.userId), typeRules.get(row.type), decide, now, {
        record: (facts) => recordOf(facts, typeRevisions.get(row.type) ?? 0),
        good: good.get(row.userId),
      });
      if (outcome.kind !== "unchanged") decided.push({ row, outcome });
      seen++;
      if (wishes !== undefined && deps.filters.spent() > most) break;
    }
  }
  await storeOutcomes(db, tenantId, decided, now);
  return { decided, seen: rows.slice(0, seen) };
}

function countsOf(rows: readonly WaitingRow[], decided: readonly Decided[]): Omit<Counts, "more"> {
  const many = (kind: Outcome["kind"]) => decided.filter(({ outcome }) => outcome.kind === kind).length;
  return {
    suppressed: many("suppressed"),
    moved: many("moved"),
    released: many("released"),
    rebatched: many("rebatched"),
    unchanged: rows.length - decided.length,
    added: 0,
  };
}

function announce({ live }: ReconsiderDeps, tenantId: string, decided: readonly Decided[], at: Date): void {
  for (const { row, outcome } of decided.filter(isTold)) {
    const { status, reason, dueAt } = outcome.conclusion;
    live.statusChanged(tenantId, row.userId, {
      notificationId: row.id,
      status: status as Status,
      reason: reason as Reason,
      time: timestampFromDate(at),
      ...(dueAt === undefined ? {} : { retryTime: timestampFromDate(dueAt) }),
    });
  }
}
