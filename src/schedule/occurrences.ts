import { takeSteps } from "#src/breathe.ts";
import { Code, Fault } from "#src/errors.ts";
import { scheduleTag } from "#src/notifications/own-tags.ts";
import type { AcceptDeps } from "#src/pipeline/accept/accept.ts";
import { sendByItself } from "#src/pipeline/accept/by-itself.ts";
import { laneOf } from "#src/pipeline/flow.ts";
import { claimFiring, type Due, dueSchedules, moveOn, putAside, putOff, readFiring } from "#src/schedules/queries.ts";
import { requestOf, timingOf } from "#src/schedules/schedule.ts";
import { firesAt, GRACE_MS, step } from "#src/schedules/timing.ts";
import { scheduled } from "#src/telemetry/conventions.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import { withRootSpan } from "#src/telemetry/work-spans.ts";

export type OccurrenceDeps = { accept: AcceptDeps; slot: number; log: Logger };

/** Schedules worked on at the same time: each is two short transactions. */
const SIDE_BY_SIDE = 4;

/**
 * Sends what schedules are due to send. Each occurrence once, however many schedulers run and whatever is killed: it is
 * stored in the transaction that moves its schedule on. Answers how many were due; fewer than `limit`: no more are.
 */
export async function sendOccurrences(deps: OccurrenceDeps, now: Date, limit: number): Promise<number> {
  const { store } = deps.accept;
  const due = await store.system((tx) => dueSchedules(tx, now, limit));
  const { waiting = [], suspended = [] } = Object.groupBy(due, (each) => (each.suspended ? "suspended" : "waiting"));
  if (suspended.length > 0) await store.system((tx) => putAside(tx, suspended, now));
  let failure: unknown;
  await Promise.all(
    Array.from({ length: SIDE_BY_SIDE }, async () => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
        // One that cannot be sent must not keep the others from it.
        try {
          const due = next;
          await withRootSpan(scheduled("send occurrence", due.tenantId), () => sendOccurrence(deps, due, now));
        } catch (error) {
          if (isLasting(error)) await putOffBroken(deps, next, now, error);
          else failure ??= error;
        }
      }
    }),
  );
  if (failure !== undefined) throw failure;
  return due.length;
}

/** Whether trying again at once would fail again: the schedule itself is at fault, not what it is sent with. */
function isLasting(error: unknown): boolean {
  const refused = error instanceof Fault && error.code === Code.INVALID_ARGUMENT;
  return refused || error instanceof RangeError;
}

/** Until it is too late for the occurrence: then it is missed, like any other, and the next one is tried. */
async function putOffBroken(
  { accept, log }: OccurrenceDeps,
  { tenantId, key }: Due,
  now: Date,
  err: unknown,
): Promise<void> {
  log.error(
    { err, tenant: tenantId, schedule: key },
    "a schedule cannot be sent as it is; it is tried again in an hour",
  );
  accept.metrics.occurrences.inc({ outcome: "put_off" });
  await accept.store.tenant(tenantId, (tx) => putOff(tx, tenantId, key, new Date(now.getTime() + GRACE_MS + 1), now));
}

async function sendOccurrence({ accept, slot, log }: OccurrenceDeps, { tenantId, key }: Due, now: Date): Promise<void> {
  const firing = await accept.store.tenant(tenantId, (tx) => readFiring(tx, tenantId, key, now));
  if (firing === undefined) return;
  const timing = timingOf(firing);
  const { occurrence, notBefore } = firing;
  const { send, skipBefore, missed, next } = await takeSteps(step(timing, occurrence, notBefore, now));
  const request = requestOf(firing);
  // With a zone of its own it is due now; else every recipient's clock says when.
  if (send !== undefined && timing.zone === "") request.schedule = { case: "localScheduleTime", value: send };
  const outcome =
    send === undefined
      ? undefined
      : await sendByItself(accept, tenantId, request, { tag: scheduleTag(key), skipBefore, notBefore, now });
  const sending = typeof outcome === "object" ? outcome : undefined;
  const leftOut = missed + (outcome === "nothing" ? 1 : 0);
  const stored = await accept.store.tenant(tenantId, async (tx) => {
    if (!(await claimFiring(tx, tenantId, firing))) return undefined;
    const stored = (await sending?.store(tx, slot)) ?? [];
    const moved = {
      next,
      firesAt: next === undefined ? null : firesAt(timing, next),
      missed: leftOut,
      sent: sending === undefined ? null : (send ?? null),
    };
    await moveOn(tx, tenantId, key, moved, now);
    return stored;
  });
  if (stored === undefined) return;
  const { metrics } = accept;
  metrics.schedulerLagSeconds.observe({ kind: "occurrence" }, (now.getTime() - firing.firesAt.getTime()) / 1000);
  if (leftOut > 0) metrics.occurrences.inc({ outcome: "missed" }, leftOut);
  if (sending !== undefined) metrics.occurrences.inc({ outcome: "sent" });
  if (leftOut > 0) {
    log.warn({ tenant: tenantId, schedule: key, missed: leftOut }, "a schedule had occurrences that nobody could get");
  }
  if (sending === undefined) return;
  const { draft, rows } = sending.submission;
  metrics.accepted.inc({ lane: laneOf(draft.priority).name }, rows.length);
  await sending.queue(stored);
}
