import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  Channel,
  Reason,
  Status,
  type TimelineEntry,
  TimelineEntrySchema,
  VerdictKind,
} from "#gen/posthorn/v1/notification_pb.ts";
import type { Reservation } from "#src/limits/notification-limits.ts";
import type { Conclusion, Refusal } from "./conclusion.ts";
import type { ChannelVerdict } from "./gates/decide.ts";
import type { Recorded } from "./record.ts";

/**
 * Draws the notification's next status from its channels' verdicts and what the limits said. Where the hourly cap refused
 * it, they say so already (cap.ts). `recorded`: what is kept besides. Pure.
 *
 *     a channel delivers, limits allow ──▶ DELIVERED if the inbox is among those that do, else PROCESSING
 *     a channel delivers, limits do not ─▶ HELD until the window allows; EXPIRED if it expires before
 *     no channel delivers, one holds ────▶ HELD until the first hold ends
 *     none of these, one batches ────────▶ BATCHED; EXPIRED if it expires before the batch is due
 *     every channel suppresses ──────────▶ EXPIRED if expired, else SUPPRESSED with the first reason
 */
export function conclude(
  id: string,
  verdicts: readonly ChannelVerdict[],
  reservation: Reservation | undefined,
  expiresAt: Date | null,
  recorded?: Recorded,
): Conclusion {
  if (verdicts.some((verdict) => verdict.kind === "deliver")) {
    if (reservation === undefined || reservation.allowed) return delivered(id, verdicts, recorded, reservation);
    const limited = verdicts.map(
      (verdict): ChannelVerdict =>
        verdict.kind === "deliver"
          ? { channel: verdict.channel, kind: "hold", reason: reservation.reason, until: reservation.until }
          : verdict,
    );
    return heldOrExpired(id, limited, reservation, expiresAt, recorded);
  }
  if (verdicts.some((verdict) => verdict.kind === "hold"))
    return heldOrExpired(id, verdicts, undefined, expiresAt, recorded);
  const batched = verdicts.find((verdict) => verdict.kind === "batch");
  if (batched !== undefined) {
    const { reason, plan } = batched;
    if (expiresAt !== null && expiresAt <= plan.flushAt) {
      const detail = detailOf(verdicts, recorded, reservation);
      return { id, status: Status.EXPIRED, reason, dueAt: undefined, detail };
    }
    return { id, status: Status.BATCHED, reason, dueAt: undefined, plan, recorded, detail: undefined };
  }
  const [first] = verdicts;
  const reason = first?.kind === "suppress" ? first.reason : Reason.NO_CHANNEL;
  const status = reason === Reason.EXPIRED ? Status.EXPIRED : Status.SUPPRESSED;
  return { id, status, reason, dueAt: undefined, detail: detailOf(verdicts, recorded) };
}

/** In the inbox it is delivered with the commit; outside channels are handed it after that. */
function delivered(
  id: string,
  verdicts: readonly ChannelVerdict[],
  recorded: Recorded | undefined,
  reservation: Reservation | undefined,
): Conclusion {
  const inApp = verdicts.some(({ channel, kind }) => channel === Channel.IN_APP && kind === "deliver");
  const outside = verdicts.filter(({ channel, kind }) => channel !== Channel.IN_APP && kind === "deliver");
  return {
    id,
    status: inApp ? Status.DELIVERED : Status.PROCESSING,
    reason: Reason.UNSPECIFIED,
    dueAt: undefined,
    detail: detailOf(verdicts, recorded, reservation),
    ...(outside.length === 0 ? {} : { handOver: outside.map(({ channel }) => channel) }),
  };
}

/** What is BATCHED, once its batch is known. */
export function concludeBatched(
  conclusion: Conclusion,
  verdicts: readonly ChannelVerdict[],
  reservation: Reservation | undefined,
  batch: { id: string; flushAt: Date },
): Conclusion {
  return { ...conclusion, batch, detail: detailOf(verdicts, conclusion.recorded, reservation, batch) };
}

function heldOrExpired(
  id: string,
  verdicts: readonly ChannelVerdict[],
  reservation: Refusal | undefined,
  expiresAt: Date | null,
  recorded: Recorded | undefined,
): Conclusion {
  const detail = detailOf(verdicts, recorded, reservation);
  const holds = verdicts.filter((verdict) => verdict.kind === "hold");
  const first = holds.reduce((a, b) => (b.until < a.until ? b : a), holds[0] as (typeof holds)[number]);
  // It cannot be delivered in time: what waits is told now, not after a wait that is in vain.
  if (expiresAt !== null && expiresAt <= first.until) {
    return { id, status: Status.EXPIRED, reason: first.reason, dueAt: undefined, detail };
  }
  return { id, status: Status.HELD, reason: first.reason, dueAt: first.until, detail };
}

/** The record alone when the inbox alone is asked for and delivers: the timeline's channel and status say the same. */
function detailOf(
  verdicts: readonly ChannelVerdict[],
  recorded: Recorded | undefined,
  reservation?: Reservation,
  batch?: { id: string; flushAt: Date },
): Uint8Array | undefined {
  const [first] = verdicts;
  const record = recorded?.(verdicts, reservation);
  if (verdicts.length === 1 && first?.kind === "deliver" && first.channel === Channel.IN_APP) return record;
  const entry = create(TimelineEntrySchema, {
    verdicts: verdicts.map((verdict) => ({
      channel: verdict.channel,
      kind: KINDS[verdict.kind],
      ...(verdict.kind === "deliver" ? {} : { reason: verdict.reason }),
      ...(verdict.kind === "hold" ? { until: timestampFromDate(verdict.until) } : {}),
      ...(verdict.kind === "batch"
        ? { batchId: batch?.id ?? "", until: timestampFromDate(batch?.flushAt ?? verdict.plan.flushAt) }
        : {}),
      ...(verdict.kind === "suppress" ? { filterFailed: verdict.filterFailed ?? false } : {}),
    })),
    ...(reservation === undefined || reservation.allowed ? {} : { rateLimit: rateLimitOf(reservation) }),
  });
  const told = toBinary(TimelineEntrySchema, entry);
  // Two messages one behind the other are one message, of which each reader reads what it knows.
  return record === undefined ? told : Buffer.concat([told, record]);
}

function rateLimitOf(reservation: Refusal): NonNullable<TimelineEntry["rateLimit"]> {
  return {
    $typeName: "posthorn.v1.RateLimitStatus",
    window: reservation.reason,
    usage: reservation.usage,
    limit: reservation.limit,
    resetTime: timestampFromDate(reservation.resetAt),
    maxPerHour: reservation.perHour ?? 0,
  };
}

const KINDS = {
  deliver: VerdictKind.DELIVER,
  hold: VerdictKind.HOLD,
  batch: VerdictKind.BATCH,
  suppress: VerdictKind.SUPPRESS,
} as const;
