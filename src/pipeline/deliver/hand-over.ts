import { fromBinary } from "@bufbuild/protobuf";
import { type SpanContext, SpanStatusCode } from "@opentelemetry/api";
import { type Channel, ContentSchema, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { Message, Outcome } from "#src/channels/channel.ts";
import { channelsFor } from "#src/notifications/channel-bits.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import { ATTR } from "#src/telemetry/conventions.ts";
import { wordless } from "#src/telemetry/wordless.ts";
import { withSpanIn } from "#src/telemetry/work-spans.ts";
import { type Claimed, give } from "./claim.ts";
import type { DeliverDeps } from "./deliver.ts";
import type { Stored } from "./load.ts";
import { type HandedOver, handOverFields, handOverSpan, hasFailed, measureHandOver } from "./measure.ts";
import type { CameOf } from "./record.ts";
import { heldOrExpired } from "./within-limits.ts";

/** How long a channel may take. */
const ANSWER_MS = 10_000;
const ATTEMPTS = 6;

/** When it was claimed, what stops it since, and what aborts when this process can wait for no channel any more. */
export type Turn = { now: Date; stop: HandedOver | undefined; cut: AbortSignal };

/** What stops a hand-over before its channel is asked, but for the channel's limit; undefined: nothing. */
export function stopOf(
  { channels, askChannel }: Pick<DeliverDeps, "channels" | "askChannel">,
  claimed: Claimed,
  stored: Stored | undefined,
  preferences: CompiledPreferences | undefined,
  now: Date,
): HandedOver | undefined {
  if (claimed.cancelledBy !== null)
    return claimed.inDoubt ? { kind: "unknown", outcome: "unknown" } : { kind: "cancelled", outcome: "cancelled" };
  if (stored === undefined || !isWanted(claimed, stored)) return { kind: "drop", outcome: "dropped" };
  if (claimed.atMostOnce && claimed.inDoubt) return { kind: "unknown", outcome: "unknown" };
  if (stored.expiresAt !== null && stored.expiresAt <= now) return { kind: "expired", outcome: "expired" };
  if (!channels.has(claimed.channel)) return { kind: "failed", outcome: "unavailable" };
  // It may have waited, here or to be tried again, since it was decided. Only a refusal counts: what holds was asked then.
  // But one that was held back itself comes at a time about which nobody was asked.
  const verdict = preferences && askChannel(stored, claimed.channel, preferences, now);
  if (verdict?.kind === "suppress") return { kind: "unwanted", reason: verdict.reason, outcome: "unwanted" };
  if (preferences !== undefined && !isAskedFor(claimed, stored, preferences))
    return { kind: "unwanted", reason: Reason.CHANNEL_DISABLED, outcome: "unwanted" };
  if (verdict?.kind === "hold" && claimed.heldBy !== Reason.UNSPECIFIED) {
    const { reason, until } = verdict;
    return heldOrExpired({ reason, until, rules: preferences?.version }, stored.expiresAt);
  }
  return undefined;
}

/** Hands one over as a part of its trace, and counts what came of it. */
export function followed(
  deps: DeliverDeps,
  claimed: Claimed,
  stored: Stored | undefined,
  trace: SpanContext | undefined,
  turn: Turn,
): Promise<CameOf> {
  return withSpanIn(trace, handOverSpan(claimed), async (span) => {
    const { outcome, ...cameOf } = await handOver(deps, claimed, stored, turn);
    measureHandOver(deps.metrics, claimed, outcome, deps.clock());
    span.setAttribute(ATTR.outcome, outcome);
    if (hasFailed(outcome)) span.setStatus({ code: SpanStatusCode.ERROR }).setAttribute(ATTR.errorType, outcome);
    return cameOf;
  });
}

async function handOver(
  { store, channels, log }: DeliverDeps,
  claimed: Claimed,
  stored: Stored | undefined,
  { now, stop, cut }: Turn,
): Promise<HandedOver> {
  const tell = (handed: HandedOver): HandedOver => {
    log.debug(handOverFields(claimed, stored, handed), handed.kind === "held" ? "held back" : "handed over");
    return handed;
  };
  if (stop?.kind === "unknown") {
    log.warn(handOverFields(claimed, stored, stop), "nobody noted what came of a hand-over; it is not repeated");
    return stop;
  }
  if (stop !== undefined) return tell(stop);
  const { tenantId, notificationId, userId, step } = claimed;
  const channel = channels.get(claimed.channel as Channel);
  if (stored === undefined || channel === undefined) return tell({ kind: "failed", outcome: "unavailable" });
  const message: Message = {
    idempotencyKey: `${notificationId}:${step}:${claimed.channel}`,
    ...{ tenantId, notificationId, userId, step },
    channel: claimed.channel as Channel,
    type: stored.type,
    priority: stored.priority,
    content: fromBinary(ContentSchema, stored.content),
    at: now,
  };
  if (claimed.atMostOnce && !(await store.tenant(tenantId, (tx) => give(tx, claimed))))
    return tell({ kind: "drop", outcome: "dropped" });
  const outcome = await inTime((signal) => channel.deliver(message, signal), cut);
  if (outcome.kind === "sent") return tell({ kind: "sent", outcome: "sent" });
  const handed = failing(outcome.kind, claimed, cut.aborted);
  if (handed.kind === "back") return tell(handed);
  log.warn({ err: wordless(outcome.cause), ...handOverFields(claimed, stored, handed) }, TOLD[handed.kind]);
  return handed;
}

type Failing = HandedOver & { kind: keyof typeof TOLD | "back" };

function failing(kind: Exclude<Outcome["kind"], "sent">, claimed: Claimed, isCut: boolean): Failing {
  if (kind === "rejected") return { kind: "failed", outcome: "refused" };
  if (kind === "unknown" && claimed.atMostOnce) return { kind: "unknown", outcome: "unknown" };
  const inDoubt = claimed.inDoubt || kind === "unknown";
  if (isCut) return { kind: "back", outcome: "given_back", inDoubt };
  if (claimed.attempts >= ATTEMPTS) return { kind: "failed", outcome: "given_up" };
  return { kind: "retry", outcome: "retry", inDoubt };
}

const TOLD = {
  failed: "a channel does not take a notification",
  retry: "a channel did not take a notification; it is tried again",
  unknown: "nobody knows whether a channel took a notification; it is not tried again",
} as const;

/** What fails, or does not answer in time, may have been sent. */
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
    return { kind: "unknown", cause };
  } finally {
    clearTimeout(timer);
    cut.removeEventListener("abort", onCut);
  }
}

/**
 * Not only because its recipient wanted there what goes to the inbox (Preferences.delivery.method), and does so no more. What
 * a step asks for stands in its escalation.
 */
function isAskedFor({ step, channel }: Claimed, { channels }: Stored, preferences: CompiledPreferences): boolean {
  return step > 0 || channelsFor(channels, preferences).includes(channel);
}

/** Not ended meanwhile; nor, if it is a step, answered. */
function isWanted({ step }: Claimed, { status, goesOn }: Stored): boolean {
  const reached = status === Status.PROCESSING || status === Status.DELIVERED || status === Status.READ;
  return reached && (step === 0 || goesOn);
}
