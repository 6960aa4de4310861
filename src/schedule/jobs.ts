import type { Broker } from "#src/broker/broker.ts";
import type { Clock } from "#src/clock.ts";
import { toCounts } from "#src/inbox/entry.ts";
import { entriesByIds } from "#src/inbox/queries.ts";
import { expireEntries, type Returned, releaseSnoozed } from "#src/inbox/release.ts";
import { forgetLooks } from "#src/learning/queries.ts";
import { adaptiveSize } from "#src/pipeline/adaptive.ts";
import type { CloseDeps } from "#src/pipeline/close/close.ts";
import { type DeliverDeps, startDelivering } from "#src/pipeline/deliver/deliver.ts";
import { restoreQueues } from "#src/pipeline/ensure-queues.ts";
import { type EscalateDeps, escalateDue } from "#src/pipeline/escalate/escalate.ts";
import { measureQueues } from "#src/pipeline/measure-queues.ts";
import type { MemoryGuard } from "#src/pipeline/memory.ts";
import type { Queue } from "#src/pipeline/queue.ts";
import { reconcile } from "#src/pipeline/reconcile/reconcile.ts";
import { type ReconsiderDeps, reconsiderRest } from "#src/pipeline/reconsider/reconsider.ts";
import { maintainPartitions } from "#src/store/migrate.ts";
import { dropExpired } from "#src/store/retention.ts";
import type { Store } from "#src/store/store.ts";
import { arrivedAgain } from "#src/stream/arrival.ts";
import type { Live } from "#src/stream/live.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { flush } from "./flush.ts";
import {
  forgetBatches,
  forgetEscalations,
  forgetFanouts,
  forgetGroups,
  forgetKeys,
  forgetPreferences,
  forgetSchedules,
} from "./forget.ts";
import { type Next, startLoop } from "./loop.ts";
import { measureDue } from "./measure-due.ts";
import { type OccurrenceDeps, sendOccurrences } from "./occurrences.ts";
import { releaseDue } from "./release.ts";

export type JobDeps = {
  store: Store;
  close: CloseDeps;
  broker: Broker;
  queue: Queue;
  live: Live;
  clock: Clock;
  random: () => number;
  metrics: Metrics;
  log: Logger;
  databaseUrl: string;
  reconsider: ReconsiderDeps;
  occurrences: OccurrenceDeps;
  memory: Pick<MemoryGuard, "pressure" | "holder">;
  escalate: EscalateDeps;
  deliver: DeliverDeps;
};

export type JobConfig = {
  schedule: { tickMs: number; batchMinSize: number; batchSize: number; batchTargetMs: number };
  reconcile: { afterMs: number; intervalMs: number };
  retention: { days: number };
  inbox: { persistDays: number };
};

/** Schedules seen to in one go, before it is looked whether more urgent ones have come. */
const OCCURRENCES = 500;
const SNOOZE_MS = 1000;
/** What is younger may still be on its way to the queue. */
const JUST_ACCEPTED_MS = 1000;
const QUEUES_MS = 5000;
const SWEEP_MS = 30_000;
const PARTITIONS_MS = 6 * 3_600_000;
/** How soon a clock that was set, or a process that stood still for weeks, has its months. */
const MONTH_MS = 1000;

/** What has to happen by itself, at its time. Any number of processes may run it: every job claims what it works on. */
export function startJobs(deps: JobDeps, config: JobConfig): AsyncDisposable {
  const { store, clock, log, metrics, random } = deps;
  const { tickMs, batchMinSize: min, batchSize: batch, batchTargetMs: targetMs } = config.schedule;
  const sizeOf = (kind: string) =>
    adaptiveSize({ min, max: batch, targetMs }, deps.memory.pressure, (size) =>
      metrics.schedulerBatchSize.set({ kind }, size),
    );
  const [releasing, closing] = [sizeOf("notification"), sizeOf("batch")];
  const stack = new AsyncDisposableStack();
  const loops: AsyncDisposable[] = [];
  const every = (name: string, ms: number, job: (now: Date, stopping: AbortSignal) => Promise<Next>) =>
    loops.push(startLoop(name, ms, (stopping) => measured(metrics, name, () => job(clock(), stopping)), log, random));

  every("release", tickMs, async (now) => {
    const limit = releasing.now();
    const began = performance.now();
    const released = await releaseDue(deps, now, limit);
    const more = released.length === limit;
    const backlog = more ? Number.POSITIVE_INFINITY : 0;
    releasing.done({ items: released.length, backlog, tookMs: performance.now() - began });
    for (const { dueAt } of released)
      metrics.schedulerLagSeconds.observe({ kind: "notification" }, (now.getTime() - dueAt.getTime()) / 1000);
    metrics.schedulerReleased.inc({ kind: "notification" }, released.length);
    return { more };
  });
  every("reconsider", tickMs, async (now) => reconsiderRest({ store, log, ...deps.reconsider }, now));
  every("occurrences", tickMs, async (now) => {
    const count = await sendOccurrences(deps.occurrences, now, OCCURRENCES);
    metrics.schedulerReleased.inc({ kind: "occurrence" }, count);
    return { more: count > 0 };
  });
  let isClosing = false;
  deps.memory.holder(() => isClosing);
  every("close", tickMs, async (now) => {
    isClosing = true;
    return flush(deps, now, closing).finally(() => {
      isClosing = false;
    });
  });
  every("escalate", tickMs, async (now) => {
    const { seen, moved } = await escalateDue(deps.escalate, now, batch);
    metrics.schedulerReleased.inc({ kind: "step" }, moved);
    return { more: seen === batch && moved > 0 };
  });
  const delivering = stack.use(startDelivering(deps.deliver));
  every("hand-over", tickMs, async (now, stopping) => {
    const { count, sooner } = await delivering.claim(now, stopping);
    metrics.schedulerReleased.inc({ kind: "hand-over" }, count);
    return { more: false, sooner };
  });
  every("unsnooze", SNOOZE_MS, async (now) => {
    const returned = await releaseSnoozed(deps, now, batch);
    await announce(deps, returned, now);
    metrics.schedulerReleased.inc({ kind: "snooze" }, returned.length);
    return { more: returned.length === batch };
  });
  every("reconcile", config.reconcile.intervalMs, async (now) => {
    await restoreQueues(deps.broker);
    const count = await reconcile(deps, now, config.reconcile.afterMs);
    if (count > 0) log.warn({ count }, "queued again what had been lost on the way");
    return { more: false };
  });
  // What was accepted while NATS was away is looked for at once, not only when it has waited long; and once more, when the
  // last of it is no longer too young to be missed.
  let again: NodeJS.Timeout | undefined;
  const look = () =>
    void reconcile(deps, clock(), JUST_ACCEPTED_MS).catch((err) =>
      log.warn({ err }, "could not queue what NATS missed"),
    );
  const back = deps.broker.onInterruption((state) => {
    clearTimeout(again);
    if (state !== "back") return;
    look();
    again = setTimeout(look, 2 * JUST_ACCEPTED_MS);
  });
  stack.defer(() => {
    back[Symbol.dispose]();
    clearTimeout(again);
  });
  every("queues", QUEUES_MS, async (now) => {
    await Promise.all([measureQueues(deps.broker, metrics, now), measureDue(store, metrics, now)]);
    return { more: false };
  });
  every("sweep", SWEEP_MS, async (now) => {
    const swept = await store.system((tx) => expireEntries(tx, now, batch));
    for (const { tenantId, userId, head } of swept.inboxes) {
      deps.live.inboxChanged(tenantId, userId, { all: true, counts: toCounts(head) });
    }
    const forgotten = Math.max(await forgetKeys(store, now, batch), await forgetGroups(store, now, batch));
    return { more: swept.removed === batch || forgotten === batch };
  });
  let month = monthOf(clock());
  async function createMonths(now: Date): Promise<void> {
    const created = await maintainPartitions(deps.databaseUrl, now);
    if (created.length > 0) log.info({ created }, "created the coming months' partitions");
    month = monthOf(now);
  }
  every("month", MONTH_MS, async (now) => {
    if (monthOf(now) !== month) await createMonths(now);
    return { more: false };
  });
  every("partitions", PARTITIONS_MS, async (now) => {
    await createMonths(now);
    const dropped = await dropExpired(deps.databaseUrl, now, {
      days: config.retention.days,
      inboxDays: config.inbox.persistDays,
    });
    while ((await forgetFanouts(store, now, config.retention.days, batch)) === batch);
    while ((await forgetSchedules(store, now, config.retention.days, batch)) === batch);
    while ((await forgetBatches(store, now, config.retention.days, batch)) === batch);
    while ((await forgetPreferences(store, now, config.retention.days, batch)) === batch);
    while ((await forgetEscalations(store, now, config.retention.days, batch)) === batch);
    while ((await forgetLooks(store, now, config.retention.days, batch)) === batch);
    if (dropped.length > 0) log.info({ dropped }, "dropped months that were older than the retention");
    return { more: false };
  });
  // Before what they work with. Each waits for its run at hand, and none for the others to do so.
  stack.defer(() => Promise.all(loops.map((loop) => loop[Symbol.asyncDispose]())).then(() => undefined));
  return stack;
}

function monthOf(at: Date): string {
  return at.toISOString().slice(0, 7);
}

async function measured<T>(metrics: Metrics, task: string, run: () => Promise<T>): Promise<T> {
  const began = performance.now();
  try {
    return await run();
  } catch (error) {
    metrics.jobFailures.inc({ task });
    throw error;
  } finally {
    metrics.jobSeconds.observe({ task }, (performance.now() - began) / 1000);
  }
}

/** Snoozed entries come back as arrivals. */
async function announce(deps: JobDeps, returned: readonly Returned[], now: Date): Promise<void> {
  for (const [tenantId, entries] of Map.groupBy(returned, (entry) => entry.tenantId)) {
    const rows = await deps.store.tenant(tenantId, (tx) => entriesByIds(tx, tenantId, entries));
    const places = new Map(rows.map((row) => [`${row.userId}\0${row.seq}`, row]));
    deps.live.arrived(
      tenantId,
      entries.flatMap(({ userId, seq, head }) => {
        const row = places.get(`${userId}\0${seq}`);
        if (row === undefined) return [];
        return [{ ...arrivedAgain(row, head), arrivedAt: now }];
      }),
      false,
    );
  }
}
