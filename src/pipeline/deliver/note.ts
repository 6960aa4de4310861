import { endLost } from "#src/escalation/settle.ts";
import type { DeliverDeps } from "./deliver.ts";
import { failSteps } from "./fail-steps.ts";
import { byPresentRules } from "./outdated.ts";
import { type Result, record } from "./record.ts";

const FIRST_PAUSE_MS = 2_000;

/**
 * Notes what came of hand-overs, and tells the streams. Of a tenant one transaction at a time: what comes to an end
 * meanwhile shares the next. Where that fails nothing is noted, and whoever claims them next hands them over again.
 */
export function notes(deps: DeliverDeps): (result: Result) => Promise<void> {
  const gathering = new Map<string, { results: Result[]; noted: Promise<void> }>();
  const last = new Map<string, Promise<void>>();
  return (result) => {
    const { tenantId } = result.claimed;
    const open = gathering.get(tenantId);
    if (open !== undefined) {
      open.results.push(result);
      return open.noted;
    }
    const results = [result];
    const noted = (last.get(tenantId) ?? Promise.resolve()).then(async () => {
      gathering.delete(tenantId);
      await noteOrWarn(deps, tenantId, results);
      if (last.get(tenantId) === noted) last.delete(tenantId);
    });
    gathering.set(tenantId, { results, noted });
    last.set(tenantId, noted);
    return noted;
  };
}

async function noteOrWarn(deps: DeliverDeps, tenantId: string, results: readonly Result[]): Promise<void> {
  try {
    await note(deps, tenantId, results);
  } catch (err) {
    deps.metrics.jobFailures.inc({ task: "hand-over" });
    const about = { err, tenant: tenantId, count: results.length };
    deps.log.warn(about, "could not note what came of hand-overs; they are handed over again");
  }
}

async function note(
  { store, slot, ...deps }: DeliverDeps,
  tenantId: string,
  results: readonly Result[],
): Promise<void> {
  const now = deps.clock();
  const { delivered, held, gone, lost, outdated } = await store.tenant(tenantId, async (tx) => {
    const { results: standing, outdated } = await byPresentRules(tx, tenantId, results);
    const context = { now, slot, retryAt: (attempts: number) => new Date(now.getTime() + pauseMs(attempts)) };
    const { delivered, held, gone, failed } = await record(tx, tenantId, standing, context);
    await failSteps(tx, tenantId, failed, now);
    const over = [...new Set(failed.map(({ notificationId }) => notificationId))];
    const reasons = (of: "unwanted" | "tooLate") =>
      new Map(
        failed.flatMap(({ notificationId, [of]: reason }) => (reason === undefined ? [] : [[notificationId, reason]])),
      );
    const cancelled = new Map(
      failed.flatMap(({ notificationId, cancelledBy: by }) => (by === undefined ? [] : [[notificationId, by]])),
    );
    const why = { unwanted: reasons("unwanted"), tooLate: reasons("tooLate"), cancelled };
    return { delivered, held, gone, outdated, lost: await endLost(tx, tenantId, over, { now, slot, ...why }) };
  });
  if (outdated.length > 0) await deps.reloadPreferences(tenantId, outdated);
  for (const each of delivered) deps.delivered(tenantId, each, now);
  for (const each of held) deps.held(tenantId, each, now);
  // What has ended is told so as a whole.
  const ended = new Set(lost.map(({ id }) => id));
  for (const each of gone) if (!ended.has(each.id)) deps.gone(tenantId, each, now);
  for (const each of lost) deps.ended(tenantId, each, now);
}

/** 2, 4, 8, 16, 32 seconds. */
function pauseMs(attempts: number): number {
  return FIRST_PAUSE_MS * 2 ** (attempts - 1);
}
