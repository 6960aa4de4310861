import { fromBinary } from "@bufbuild/protobuf";
import { type SpanContext, SpanStatusCode } from "@opentelemetry/api";
import { type Channel, ContentSchema, Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { Channels, Message, Outcome } from "#src/channels/channel.ts";
import type { Clock } from "#src/clock.ts";
import { endLost, type Lost } from "#src/escalation/settle.ts";
import type { Store } from "#src/store/store.ts";
import { ATTR } from "#src/telemetry/conventions.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import { storedTraces } from "#src/telemetry/message-traces.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { wordless } from "#src/telemetry/wordless.ts";
import { withSpanIn } from "#src/telemetry/work-spans.ts";
import {
  type HandedOver,
  handOverFields,
  handOverSpan,
  hasFailed,
  measureClaimed,
  measureHandOver,
} from "./measure.ts";
import {
  type Claimed,
  claimDue,
  type Delivered,
  failSteps,
  loadMessages,
  type Result,
  record,
  type Stored,
} from "./queries.ts";

export type DeliverDeps = {
  store: Store;
  clock: Clock;
  channels: Channels;
  /** Counter slot of this process. */
  slot: number;
  log: Pick<Logger, "debug" | "warn">;
  metrics: Pick<Metrics, "handOvers" | "handOverSeconds" | "schedulerLagSeconds">;
  /** Tell the streams. Called after the commit. */
  delivered(tenantId: string, delivered: Delivered, at: Date): void;
  ended(tenantId: string, lost: Lost, at: Date): void;
};

/** How long a channel may take. */
const ANSWER_MS = 10_000;
/** How long it still may once the process is to stop: most answer by then, and need not be handed it twice. */
const LAST_ANSWER_MS = 2_000;
/** How long whoever has claimed hand-overs is left alone with them: they take turns, each as long as it may. */
const LEASE_MS = 60_000;
const SIDE_BY_SIDE = 16;
/** Claimed together, at the most: so that the lease is enough. */
export const CLAIM = 64;
const ATTEMPTS = 6;
const FIRST_PAUSE_MS = 2_000;

/**
 * Hands outside channels what is due, of all tenants. At least once: a hand-over is claimed for a minute, and its outcome
 * noted afterwards; if this process is killed in between, whoever claims it next hands it over again, with the same
 * idempotency key. Who comes late with an outcome, because another has claimed it meanwhile, notes nothing.
 *
 * Once `stopping` aborts nothing more is begun, and what does not answer within two seconds is cut off. Both are given
 * back: due at once for whoever claims next, and not counted as an attempt.
 *
 * Answers how many were claimed; `limit`: there may be more.
 */
export async function deliverDue(deps: DeliverDeps, now: Date, limit: number, stopping: AbortSignal): Promise<number> {
  const { store } = deps;
  const claimed = await store.system((tx) => claimDue(tx, now, new Date(now.getTime() + LEASE_MS), limit));
  measureClaimed(deps.metrics, claimed, now);
  const traces = storedTraces(claimed);
  const stored = new Map<string, ReadonlyMap<string, Stored>>();
  for (const [tenantId, own] of Map.groupBy(claimed, (each) => each.tenantId))
    stored.set(tenantId, await store.tenant(tenantId, (tx) => loadMessages(tx, tenantId, own)));
  const waiting = [...claimed];
  const results: Result[] = [];
  using cut = cutAfter(stopping, LAST_ANSWER_MS);
  await Promise.all(
    Array.from({ length: SIDE_BY_SIDE }, async () => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
        const message = stored.get(next.tenantId)?.get(next.notificationId);
        const kind = stopping.aborted
          ? "back"
          : await followed(deps, next, message, traces.get(next.trace), { now, cut: cut.signal });
        results.push({ claimed: next, kind });
      }
    }),
  );
  for (const [tenantId, own] of Map.groupBy(results, (result) => result.claimed.tenantId))
    await note(deps, tenantId, own);
  return claimed.length;
}

async function note(
  { store, slot, ...deps }: DeliverDeps,
  tenantId: string,
  results: readonly Result[],
): Promise<void> {
  const now = deps.clock();
  const { delivered, lost } = await store.tenant(tenantId, async (tx) => {
    const context = { now, slot, retryAt: (attempts: number) => new Date(now.getTime() + pauseMs(attempts)) };
    const { delivered, failed } = await record(tx, tenantId, results, context);
    await failSteps(tx, tenantId, failed, now);
    const over = [...new Set(failed.map(({ notificationId }) => notificationId))];
    return { delivered, lost: await endLost(tx, tenantId, over, { now, slot }) };
  });
  for (const each of delivered) deps.delivered(tenantId, each, now);
  for (const each of lost) deps.ended(tenantId, each, now);
}

/** When what is due was claimed, and what aborts when this process can wait for no channel any more. */
type Turn = { now: Date; cut: AbortSignal };

/** Hands one over as a part of its trace, and counts what came of it. */
function followed(
  deps: DeliverDeps,
  claimed: Claimed,
  stored: Stored | undefined,
  trace: SpanContext | undefined,
  turn: Turn,
): Promise<Result["kind"]> {
  return withSpanIn(trace, handOverSpan(claimed), async (span) => {
    const { kind, outcome } = await handOver(deps, claimed, stored, turn);
    measureHandOver(deps.metrics, claimed, outcome, deps.clock());
    span.setAttribute(ATTR.outcome, outcome);
    if (hasFailed(outcome)) span.setStatus({ code: SpanStatusCode.ERROR }).setAttribute(ATTR.errorType, outcome);
    return kind;
  });
}

async function handOver(
  { channels, log }: DeliverDeps,
  claimed: Claimed,
  stored: Stored | undefined,
  { now, cut }: Turn,
): Promise<HandedOver> {
  const tell = (handed: HandedOver): HandedOver => {
    log.debug(handOverFields(claimed, stored, handed.outcome), "handed over");
    return handed;
  };
  if (stored === undefined || !isWanted(claimed, stored)) return tell({ kind: "drop", outcome: "dropped" });
  if (stored.expiresAt !== null && stored.expiresAt <= now) return tell({ kind: "expired", outcome: "expired" });
  const { tenantId, notificationId, userId, step, attempts } = claimed;
  const channel = channels.get(claimed.channel as Channel);
  if (channel === undefined) return tell({ kind: "failed", outcome: "unavailable" });
  const message: Message = {
    idempotencyKey: `${notificationId}:${step}:${claimed.channel}`,
    ...{ tenantId, notificationId, userId, step },
    channel: claimed.channel as Channel,
    type: stored.type,
    priority: stored.priority,
    content: fromBinary(ContentSchema, stored.content),
    at: now,
  };
  const outcome = await inTime((signal) => channel.deliver(message, signal), cut);
  if (outcome.kind === "sent") return tell({ kind: "sent", outcome: "sent" });
  if (outcome.kind === "retry" && cut.aborted) return tell({ kind: "back", outcome: "given_back" });
  const handed = failing(outcome.kind, attempts);
  log.warn(
    { err: wordless(outcome.cause), ...handOverFields(claimed, stored, handed.outcome) },
    handed.kind === "failed"
      ? "a channel does not take a notification"
      : "a channel did not take a notification; it is tried again",
  );
  return handed;
}

function failing(kind: "retry" | "rejected", attempts: number): HandedOver {
  if (kind === "rejected") return { kind: "failed", outcome: "refused" };
  return attempts >= ATTEMPTS ? { kind: "failed", outcome: "given_up" } : { kind: "retry", outcome: "retry" };
}

/** What fails, or does not answer in time, may be tried again: whether it was sent nobody knows. */
async function inTime(deliver: (signal: AbortSignal) => Promise<Outcome>, cut: AbortSignal): Promise<Outcome> {
  const over = new AbortController();
  const { signal } = over;
  const timer = setTimeout(() => over.abort(new Error(`no answer within ${ANSWER_MS} ms`)), ANSWER_MS);
  const onCut = () => over.abort(cut.reason);
  cut.addEventListener("abort", onCut, { once: true });
  const late = Promise.withResolvers<never>();
  signal.addEventListener("abort", () => late.reject(signal.reason), { once: true });
  try {
    return await Promise.race([deliver(signal), late.promise]);
  } catch (cause) {
    return { kind: "retry", cause };
  } finally {
    clearTimeout(timer);
    cut.removeEventListener("abort", onCut);
  }
}

/** A signal that aborts so long after another has. */
function cutAfter(stopping: AbortSignal, ms: number): Disposable & { signal: AbortSignal } {
  const cut = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const begin = () => {
    timer = setTimeout(() => cut.abort(stopping.reason), ms);
  };
  if (stopping.aborted) begin();
  else stopping.addEventListener("abort", begin, { once: true });
  return {
    signal: cut.signal,
    [Symbol.dispose]() {
      clearTimeout(timer);
      stopping.removeEventListener("abort", begin);
    },
  };
}

/** Not ended meanwhile; nor, if it is a step, answered. */
function isWanted({ step }: Claimed, { status, goesOn }: Stored): boolean {
  const reached = status === Status.PROCESSING || status === Status.DELIVERED || status === Status.READ;
  return reached && (step === 0 || goesOn);
}

/** 2, 4, 8, 16, 32 seconds. */
function pauseMs(attempts: number): number {
  return FIRST_PAUSE_MS * 2 ** (attempts - 1);
}
