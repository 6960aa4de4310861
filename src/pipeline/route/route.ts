import type { SpanContext } from "@opentelemetry/api";
import { BatchRole } from "#src/batches/role.ts";
import type { Clock } from "#src/clock.ts";
import { madeAtMs, type NewId } from "#src/ids.ts";
import { readLooks } from "#src/learning/queries.ts";
import type { Request, Reservation } from "#src/limits/notification-limits.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import type { Store } from "#src/store/store.ts";
import type { Arrival } from "#src/stream/arrival.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { type NotificationTypeRow, rulesOf, type TypeRules } from "#src/types/type.ts";
import { type BatchJoined, joinTheirBatches, mustHaveJoined, Outdated } from "./batching.ts";
import { commitDecisions, type Placed } from "./commit.ts";
import type { Conclusion } from "./conclusion.ts";
import { decideChunk } from "./decide-chunk.ts";
import type { ChannelVerdict, Facts } from "./gates/decide.ts";
import { handOver } from "./hand-over.ts";
import { followRefused, lead } from "./lead.ts";
import { loadWaiting, type Waiting } from "./load.ts";
import { logDecisions, measureChunk } from "./measure.ts";
import { goodHoursOf } from "./when-they-look.ts";

export type RouteDeps = {
  store: Store;
  clock: Clock;
  metrics: Metrics;
  log: Logger;
  newId: NewId;
  /** The type, or undefined when it was deleted; cached. */
  findType(tenantId: string, key: string): Promise<NotificationTypeRow | undefined> | NotificationTypeRow | undefined;
  /** The same past all caches. */
  reloadType(tenantId: string, key: string): Promise<NotificationTypeRow | undefined>;
  /** Preferences in force per user; cached, one round trip for the rest. */
  loadPreferences(tenantId: string, userIds: readonly string[]): Promise<ReadonlyMap<string, CompiledPreferences>>;
  /** The same past all caches, for what was found to be out of date. */
  reloadPreferences(tenantId: string, userIds: readonly string[]): Promise<ReadonlyMap<string, CompiledPreferences>>;
  decide(facts: Facts, now: Date): ChannelVerdict[];
  /** Finds the notifications their turns under the limits, in one round trip. Idempotent by id and attempt. */
  reserve(tenantId: string, requests: readonly Request[], now: Date): Promise<readonly Reservation[]>;
  /** Tells the streams. Called after the commit. */
  arrived(tenantId: string, arrivals: readonly Arrival[]): void;
  statusChanged(tenantId: string, userId: string, conclusion: Conclusion, at: Date): void;
  batchJoined(tenantId: string, joined: BatchJoined): void;
};

export type RouteContext = {
  /** Counter slot of this worker. */
  slot: number;
  /** Epoch for inboxes that begin. */
  epoch: number;
  /** Of the notifications that are followed to the stream. */
  traces?: ReadonlyMap<string, SpanContext>;
  /** It was decided before, by something that has changed since. */
  again?: boolean;
};

/**
 * Decides a chunk of one tenant's notifications and delivers in-app: facts → gates → verdicts → reservations → one
 * commit → streams. Idempotent: what has been decided, by whomever, is passed over.
 */
export async function route(
  deps: RouteDeps,
  tenantId: string,
  ids: readonly string[],
  context: RouteContext,
): Promise<void> {
  const started = performance.now();
  const waiting = await deps.store.tenantAtOnce(tenantId, (tx) => loadWaiting(tx, tenantId, ids));
  if (waiting.length === 0) return;
  const loaded = performance.now();
  const now = deps.clock();
  const load = context.again ? deps.reloadPreferences : deps.loadPreferences;
  const preferences = await load(tenantId, [...new Set(waiting.map((row) => row.userId))]);
  const types = await rulesOfTypes(context.again ? deps.reloadType : deps.findType, tenantId, waiting);
  const good = await goodHoursOf(
    waiting,
    { preferences: (userId) => preferences.get(userId), rules: (type) => types.get(type)?.rules },
    (userIds) => deps.store.tenantAtOnce(tenantId, (tx) => readLooks(tx, tenantId, userIds)),
    now,
  );
  const { verdicts, reservations, conclusions } = await decideChunk(
    {
      decide: deps.decide,
      metrics: deps.metrics,
      lead: (each) => lead(deps, tenantId, waiting, each, now),
      follow: (answered) => followRefused(deps, tenantId, waiting, answered, now),
      reserve: (requests) => deps.reserve(tenantId, requests, now),
    },
    waiting,
    { preferences, types, good },
    now,
  );
  const concluded = performance.now();
  const stored = await orOutdated(
    deps.store.tenant(tenantId, async (tx, last) => {
      const decisions = { waiting, verdicts, reservations, conclusions, types };
      if (nothingFollows(waiting, conclusions)) last();
      const { final, joined } = await joinTheirBatches(deps, tx, tenantId, decisions, now);
      const committing = { now, slot: context.slot, epoch: context.epoch };
      const committed = await commitDecisions(tx, tenantId, final, committing);
      mustHaveJoined(final, committed.decided);
      await handOver(tx, tenantId, waiting, final, committed.decided, { now, traces: context.traces, types });
      return { ...committed, final, joined };
    }),
  );
  if (stored === undefined) return route(deps, tenantId, ids, { ...context, again: true });
  const { decided, placed, final, joined } = stored;
  const committed = performance.now();
  const rows = new Map(waiting.map((row) => [row.id, row]));
  const asking = new Set(final.flatMap(({ id, escalation }) => (escalation?.confirmationRequired ? [id] : [])));
  deps.arrived(
    tenantId,
    placed.flatMap((place, index) => {
      const row = rows.get(place.id);
      if (row === undefined) return [];
      const arrival = arrivalOf(row, place, now, context.traces?.get(row.id));
      if (asking.has(row.id)) arrival.confirmationRequired = true;
      // One of each chunk is measured, if it did not have to wait.
      if (index === 0 && row.attempts === 0 && row.scheduledAt === null) arrival.acceptedMs = madeAtMs(row.id);
      return [arrival];
    }),
  );
  for (const batch of joined) deps.batchJoined(tenantId, batch);
  for (const conclusion of final) {
    const row = rows.get(conclusion.id);
    if (row === undefined || !decided.has(conclusion.id)) continue;
    deps.statusChanged(tenantId, row.userId, conclusion, now);
  }
  const steps = { started, loaded, concluded, committed };
  measureChunk(deps.metrics, { waiting, conclusions: final, decided }, steps, deps.clock());
  logDecisions(deps.log, tenantId, { waiting, conclusions: final, decided });
  // What was updated meanwhile, or whose rules were, is decided again as it is now: what is stored and told is never by
  // what is no longer so.
  const missed = waiting.filter((row) => !decided.has(row.id)).map((row) => row.id);
  if (missed.length > 0) await route(deps, tenantId, missed, { ...context, again: true });
}

/** Whether the commit of the decisions is all there is to store, whatever it answers: most chunks are so. */
function nothingFollows(waiting: readonly Waiting[], conclusions: readonly Conclusion[]): boolean {
  return (
    waiting.every(({ batchRole }) => batchRole !== BatchRole.WHOLE) &&
    conclusions.every(({ plan, handOver, escalation }) => (plan ?? handOver ?? escalation) === undefined)
  );
}

async function orOutdated<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof Outdated) return undefined;
    throw error;
  }
}

/** What the types of the chunk say; nothing for one that was deleted after it was accepted. */
async function rulesOfTypes(
  findType: RouteDeps["findType"],
  tenantId: string,
  waiting: readonly Waiting[],
): Promise<Map<string, { rules: TypeRules; revision: number }>> {
  const types = new Map<string, { rules: TypeRules; revision: number }>();
  for (const type of new Set(waiting.map((row) => row.type))) {
    const found = findType(tenantId, type);
    const row = found instanceof Promise ? await found : found;
    if (row !== undefined) types.set(type, { rules: rulesOf(row), revision: row.revision });
  }
  return types;
}

function arrivalOf(row: Waiting, place: Placed, now: Date, trace: SpanContext | undefined): Arrival {
  return {
    notificationId: row.id,
    userId: row.userId,
    seq: place.seq,
    epoch: place.epoch,
    type: row.type,
    category: row.category,
    priority: row.priority,
    content: row.content,
    tags: row.tags ?? [],
    senderId: row.senderId ?? "",
    arrivedAt: now,
    expiresAt: row.expiresAt ?? undefined,
    batch: place.batch,
    trace,
    counts: {
      unread: place.unread,
      unseen: place.headSeq - place.seenSeq,
      total: place.total,
      archived: place.archived,
      snoozed: place.snoozed,
    },
  };
}
