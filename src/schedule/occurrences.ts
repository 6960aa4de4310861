import { breathe, type Steps, takeSteps } from "#src/breathe.ts";
import type { Cancelled } from "#src/notifications/cancel.ts";
import { scheduleTag } from "#src/notifications/own-tags.ts";
import { type AcceptDeps, claims, queueStored } from "#src/pipeline/accept/accept.ts";
import { submissionByItself } from "#src/pipeline/accept/by-itself.ts";
import { commitGroup, type Stored } from "#src/pipeline/accept/commit.ts";
import type { TypeDefaults } from "#src/pipeline/accept/prepare.ts";
import type { Submission } from "#src/pipeline/accept/submission.ts";
import { laneOf } from "#src/pipeline/flow.ts";
import { presentRecipients } from "#src/preferences/present-zones.ts";
import { isDependencyDown } from "#src/rpc/dependency-errors.ts";
import { claimFirings, dueTenants, type Firing, type Move, moveOn, putAside, putOff } from "#src/schedules/due.ts";
import { requestOf, timingOf } from "#src/schedules/schedule.ts";
import { firesAt, GRACE_MS, type Step, skippedBefore, step, type Timing } from "#src/schedules/timing.ts";
import type { Tx } from "#src/store/store.ts";
import { scheduled } from "#src/telemetry/conventions.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { withRootSpan } from "#src/telemetry/work-spans.ts";
import { UnusableContract } from "#src/types/payload/unusable.ts";
import { type Turn, turnsOf } from "./turns.ts";

export type OccurrenceDeps = { accept: AcceptDeps; slot: number; log: Logger };

/**
 * Turns taken at the same time: while one waits for Postgres, another looks for its next occurrences. Each holds one of the
 * connections that sends and deliveries need too, so no more than that.
 */
const SIDE_BY_SIDE = 2;
/**
 * Steps of looking for next occurrences that one transaction takes; the others of its turn are left for a later one. Most
 * rules need two or three, and one may need hundreds, in which nobody could change what is claimed.
 */
const STEPS = 300;

/**
 * Sends what schedules are due to send, the most urgent first, and of each tenant its share (see turns.ts). Each occurrence
 * once, however many schedulers run and whatever is killed: it is claimed, stored and moved on in one transaction. Answers
 * how many schedules were seen to, at most `limit`; none: no more are due, or others have them at hand.
 */
export async function sendOccurrences(deps: OccurrenceDeps, now: Date, limit: number): Promise<number> {
  const { store } = deps.accept;
  const due = await store.system((tx) => dueTenants(tx, now, limit));
  const { waiting = [], suspended = [] } = Object.groupBy(due, (each) => (each.suspended ? "suspended" : "waiting"));
  let count = 0;
  if (suspended.length > 0) {
    const tenantIds = suspended.map(({ tenantId }) => tenantId);
    count += await store.system((tx) => putAside(tx, tenantIds, now, limit));
  }
  let failure: unknown;
  for (const turns of Map.groupBy(turnsOf(waiting, limit), ({ lane }) => lane).values()) {
    await Promise.all(
      Array.from({ length: SIDE_BY_SIDE }, async () => {
        for (let turn = turns.shift(); turn !== undefined; turn = turns.shift()) {
          try {
            const mine = turn;
            const done = await withRootSpan(scheduled("send occurrences", turn.tenantId), () =>
              takeTurn(deps, mine, now),
            );
            count += done;
          } catch (error) {
            // One tenant's must not keep the others' from being sent.
            failure ??= error;
          }
        }
      }),
    );
  }
  if (failure !== undefined) throw failure;
  return count;
}

/** A schedule that is at fault itself keeps no other from being sent: it is put off. */
async function takeTurn(deps: OccurrenceDeps, turn: Turn & { key?: string }, now: Date): Promise<number> {
  const claimed: string[] = [];
  try {
    return await sendTogether(deps, turn, now, claimed);
  } catch (error) {
    if (!isUnstorable(error)) throw error;
    const [key] = claimed;
    if (claimed.length > 1) {
      let count = 0;
      for (const key of claimed) count += await takeTurn(deps, { ...turn, size: 1, key }, now);
      return count;
    }
    if (key === undefined) throw error;
    const { accept } = deps;
    await accept.store.tenant(turn.tenantId, (tx) => putOff(tx, turn.tenantId, [key], later(now), now));
    tellBroken(deps, turn.tenantId, key, error);
    accept.metrics.occurrences.inc({ outcome: "put_off" });
    return 1;
  }
}

/** Sends one turn's in one transaction; `claimed` are told before anything is stored. */
async function sendTogether(
  deps: OccurrenceDeps,
  { tenantId, lane, size, key }: Turn & { key?: string },
  now: Date,
  claimed: string[],
): Promise<number> {
  const { accept, slot, log } = deps;
  const { firings, broken, moves, submissions, stored, superseded } = await accept.store.tenant(
    tenantId,
    async (tx) => {
      const firings = await claimFirings(tx, { tenantId, lane, size, key }, now);
      claimed.splice(0, claimed.length, ...firings.map((firing) => firing.key));
      const broken: Broken[] = [];
      const planned = await plan(firings, now, broken);
      const { submissions, moves } = await drafted(tx, tenantId, planned, accept, now, broken);
      const stored: Stored[] = [];
      const superseded: Cancelled[] = [];
      for (const group of apart(submissions)) {
        const committed = await commitGroup(tx, tenantId, group, { now, slot, idempotencyTtlMs: 0 });
        stored.push(...committed.stored);
        superseded.push(...committed.superseded);
      }
      const keys = broken.map((each) => each.key);
      await Promise.all([moveOn(tx, tenantId, moves, now), putOff(tx, tenantId, keys, later(now), now)]);
      return { firings, broken, moves, submissions, stored, superseded };
    },
  );
  if (superseded.length > 0) accept.superseded(tenantId, superseded, now);
  for (const { key, error } of broken) tellBroken(deps, tenantId, key, error);
  measureTurn(accept.metrics, { firings, moves, broken: broken.length }, now);
  for (const { key, missed } of moves) {
    if (missed > 0)
      log.warn({ tenant: tenantId, schedule: key, missed }, "a schedule had occurrences nobody could get");
  }
  for (const { draft, rows } of submissions)
    accept.metrics.accepted.inc({ lane: laneOf(draft.priority).name }, rows.length);
  await queueStored(accept.queue, tenantId, submissions, stored, (trace) => trace);
  return moves.length + broken.length;
}

/** Counts what came of a turn; how late it was, of those that have moved on by it. */
function measureTurn(
  { schedulerLagSeconds, occurrences }: Pick<Metrics, "schedulerLagSeconds" | "occurrences">,
  { firings, moves, broken }: { firings: readonly Firing[]; moves: readonly Move[]; broken: number },
  now: Date,
): void {
  const moved = new Set(moves.map(({ key }) => key));
  for (const { key, firesAt } of firings)
    if (moved.has(key))
      schedulerLagSeconds.observe({ kind: "occurrence" }, Math.max(0, now.getTime() - firesAt.getTime()) / 1000);
  const missed = moves.reduce((sum, move) => sum + move.missed, 0);
  const sent = moves.filter((move) => move.sent !== undefined).length;
  if (missed > 0) occurrences.inc({ outcome: "missed" }, missed);
  if (sent > 0) occurrences.inc({ outcome: "sent" }, sent);
  if (broken > 0) occurrences.inc({ outcome: "put_off" }, broken);
}

/** A schedule that cannot be sent as it is: what failed would fail again. */
type Broken = { key: string; error: unknown };

type Planned = { firing: Firing; timing: Timing; step: Step & { firesAt: Date | undefined } };

/** What becomes of each occurrence, as far as there are steps to take for it. */
async function plan(firings: readonly Firing[], now: Date, broken: Broken[]): Promise<Planned[]> {
  const planned: Planned[] = [];
  // Everybody chooses nine o'clock: for thousands of schedules there is then one step to take.
  const common = new Map<string, Step & { firesAt: Date | undefined }>();
  let steps = 0;
  function* counted<T>(work: Steps<T>): Steps<T> {
    for (;;) {
      const next = work.next();
      if (next.done) return next.value;
      steps++;
      yield;
    }
  }
  for (const firing of firings) {
    if (steps >= STEPS) break;
    try {
      const { rule, timeZone, occurrence, notBefore } = firing;
      const timing = timingOf(firing);
      const name = timing.recurrence.isCommon
        ? [rule, timeZone, occurrence, skippedBefore(notBefore, now).getTime()].join(" ")
        : undefined;
      const known = name === undefined ? undefined : common.get(name);
      const taken = known ?? (await takeSteps(counted(step(timing, occurrence, notBefore, now))));
      const { next } = taken;
      const moved = known ?? { ...taken, firesAt: next === undefined ? undefined : firesAt(timing, next) };
      if (name !== undefined) common.set(name, moved);
      planned.push({ firing, timing, step: moved });
    } catch (error) {
      broken.push({ key: firing.key, error });
    }
  }
  return planned;
}

/** What is to be stored for each: its Send, and how it goes on. */
async function drafted(
  tx: Tx,
  tenantId: string,
  planned: readonly Planned[],
  { newId, dedupWindowMs, payloadsOf }: AcceptDeps,
  now: Date,
  broken: Broken[],
): Promise<{ submissions: Submission[]; moves: Move[] }> {
  const types = await typesOf(tx, tenantId, planned, payloadsOf);
  const sent = planned.filter(({ step }) => step.send !== undefined);
  const dependent = sent.filter(
    ({ timing, firing }) => timing.zone === "" || wordsIn(types.get(firing.type?.key ?? "")),
  );
  const userIds = new Set(dependent.flatMap(({ firing }) => firing.userIds));
  const recipients = userIds.size === 0 ? undefined : await presentRecipients(tx, tenantId, [...userIds]);
  const submissions: Submission[] = [];
  const moves: Move[] = [];
  for (const { firing, timing, step } of planned) {
    const pause = breathe();
    if (pause !== undefined) await pause;
    const { send, skipBefore, missed, next } = step;
    const { key, notBefore, firesAt: dueAt, type } = firing;
    try {
      const request = requestOf(firing);
      // With a zone of its own it is due now; else every recipient's clock says when.
      if (send !== undefined && timing.zone === "") request.schedule = { case: "localScheduleTime", value: send };
      const how = { tag: scheduleTag(key), skipBefore, notBefore, dueAt, now, newId, dedupWindowMs, known: recipients };
      const known = types.get(type?.key ?? "");
      if (known instanceof UnusableContract) throw known;
      const outcome = send === undefined ? undefined : submissionByItself(request, known, how);
      const submission = typeof outcome === "object" ? outcome : undefined;
      moves.push({
        key,
        next,
        firesAt: step.firesAt,
        sent: submission && send,
        missed: missed + (outcome === "nothing" ? 1 : 0),
        lane: request.priority || (type?.defaultPriority ?? firing.lane),
      });
      if (submission !== undefined) submissions.push(submission);
    } catch (error) {
      broken.push({ key, error });
    }
  }
  return { submissions, moves };
}

/** Whether it words notifications in several languages. */
function wordsIn(type: TypeDefaults | UnusableContract | undefined): boolean {
  return type !== undefined && !(type instanceof UnusableContract) && type.words?.wordsIn !== undefined;
}

/**
 * What the types of what is due give it, by their keys: read in the transaction, which waits for no other connection. One
 * whose contract cannot be used puts off its own schedules.
 */
async function typesOf(
  tx: Tx,
  tenantId: string,
  planned: readonly Planned[],
  payloadsOf: AcceptDeps["payloadsOf"],
): Promise<Map<string, TypeDefaults | UnusableContract>> {
  const types = new Map<string, TypeDefaults | UnusableContract>();
  for (const { firing } of planned) {
    const { type } = firing;
    if (type === null || types.has(type.key)) continue;
    const wording = type.wording === null ? null : Buffer.from(type.wording, "hex");
    try {
      types.set(type.key, { ...type, ...(await payloadsOf(tx, tenantId, { ...type, wording })) });
    } catch (error) {
      if (!(error instanceof UnusableContract)) throw error;
      types.set(type.key, error);
    }
  }
  return types;
}

/** In groups of which none holds two that claim the same, as commitGroup asks for; earlier ones first. */
function apart(submissions: readonly Submission[]): Submission[][] {
  const groups: { members: Submission[]; claimed: Set<string> }[] = [];
  for (const submission of submissions) {
    const wanted = claims(submission);
    const last = groups.at(-1);
    if (last === undefined || wanted.some((claim) => last.claimed.has(claim)))
      groups.push({ members: [submission], claimed: new Set(wanted) });
    else {
      last.members.push(submission);
      for (const claim of wanted) last.claimed.add(claim);
    }
  }
  return groups.map(({ members }) => members);
}

/**
 * SQLSTATE classes of what Postgres will never store: data exceptions, broken constraints, limits. A month that has no
 * partition yet is a broken constraint as well, but no fault of a schedule's.
 */
function isUnstorable(error: unknown): boolean {
  if (isDependencyDown(error)) return false;
  return error instanceof Error && "code" in error && /^(22|23|54)...$/.test(String(error.code));
}

/** Until it is too late for the occurrence: then it is missed, like any other, and the next one is tried. */
function later(now: Date): Date {
  return new Date(now.getTime() + GRACE_MS + 1);
}

function tellBroken({ log }: OccurrenceDeps, tenant: string, schedule: string, err: unknown): void {
  log.error({ err, tenant, schedule }, "a schedule cannot be sent as it is; it is tried again in an hour");
}
