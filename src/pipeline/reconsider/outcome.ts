import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { DIGEST } from "#src/batches/join.ts";
import { BatchRole, isCollected } from "#src/batches/role.ts";
import { madeAtMs } from "#src/ids.ts";
import type { GoodHours } from "#src/learning/looks.ts";
import { channelsFor } from "#src/notifications/channel-bits.ts";
import { localTimes } from "#src/notifications/local-time.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import type { TypeRules } from "#src/types/type.ts";
import { conclude } from "../route/conclude.ts";
import type { Conclusion } from "../route/conclusion.ts";
import type { ChannelVerdict, Facts } from "../route/gates/decide.ts";
import { askingOnce } from "../route/gates/filtered.ts";
import type { Recorded } from "../route/record.ts";

/** A notification that waits (SCHEDULED, HELD, or BATCHED in a batch that has not closed), as stored. */
export type WaitingRow = {
  id: string;
  userId: string;
  type: string;
  category: string;
  priority: number;
  /** Bit n is set when channel n was asked for. */
  channels: number;
  status: number;
  reason: number;
  bypassLimits: boolean;
  senderId: string | undefined;
  /** Undefined: a member whose batch stands, or was ended by the change. */
  dueAt: Date | undefined;
  scheduledAt: Date | undefined;
  expiresAt: Date | undefined;
  localTime: string | undefined;
  localTtlMs: number | undefined;
  /** It is an occurrence of a schedule, at a wall-clock time: what is past where its user is now, they do not get. */
  ofSchedule: boolean;
  batchRole: number | undefined;
  batchedAt: Date | undefined;
  /** It was sent with an escalation. */
  escalates?: boolean;
  /** Of the batch it is in, while that stands. */
  batchKey: string | undefined;
  tags: readonly string[];
  /** Encoded posthorn.v1.Content: only for users who have filters. */
  content?: Uint8Array | undefined;
};

/** What becomes of it. With `times` where it follows its user to another zone. */
export type Outcome =
  | { kind: "unchanged" }
  | { kind: "released" | "rebatched"; times: Times }
  | { kind: "moved" | "suppressed"; conclusion: Moved; times: Times };

/** A conclusion may also be to stay SCHEDULED, at another time. */
export type Moved = Omit<Conclusion, "status"> & { status: number };

export type Times = { scheduledAt: Date | undefined; expiresAt: Date | undefined };

const LIMITS: ReadonlySet<number> = new Set([
  Reason.USER_BURST_LIMIT,
  Reason.USER_MINUTE_LIMIT,
  Reason.USER_HOUR_LIMIT,
  Reason.USER_DAY_LIMIT,
  Reason.TENANT_LIMIT,
  Reason.GLOBAL_LIMIT,
  Reason.LIMITER_UNAVAILABLE,
]);

/**
 * Decides anew about a notification that waits. `record`: what is kept of it besides the verdicts; `good`: when the user
 * usually looks, where that is asked. Pure.
 *
 *     no channel wants it any more, or ──▶ SUPPRESSED or EXPIRED, now
 *     it would wait until it expires,
 *     or it is an occurrence that is
 *     past where its user is now
 *     a rule holds it ───────────────────▶ waits until the rule allows: "moved" when that is another time or rule
 *     nothing holds it ──────────────────▶ due now; the limits are asked when it is released
 *     a limit holds it ──────────────────▶ keeps its place, unless a rule holds it longer
 *     the hourly cap does ───────────────▶ the same where a rule holds it; else due now, and asks the cap for a better turn
 *     it is to be collected ─────────────▶ due now, and joins its batch when it is released; stays where it is in one of
 *                                          that key, if that was not dissolved
 *     its time has not come ─────────────▶ stays SCHEDULED
 *
 * Members of batches are decided about like what is held; nobody joins a batch here, because that needs the locks of
 * batches (batches/join.ts), which come before those of notifications.
 */
export function reconsidered(
  row: WaitingRow,
  preferences: CompiledPreferences,
  rules: TypeRules | undefined,
  decide: (facts: Facts, now: Date) => ChannelVerdict[],
  now: Date,
  { record, good }: { record?: (facts: Facts) => Recorded; good?: GoodHours | undefined } = {},
): Outcome {
  const times = timesOf(row, preferences.timeZone, now);
  const { channels, batchRole, batchedAt, escalates, ...rest } = row;
  if (isPast(row, times, now)) {
    const past = channelsFor(channels, preferences).map((channel) => ({
      channel,
      kind: "suppress" as const,
      reason: Reason.EXPIRED,
    }));
    return { kind: "suppressed", conclusion: conclude(row.id, past, undefined, null), times };
  }
  const isWhole = batchRole === BatchRole.WHOLE;
  const facts: Facts = askingOnce({
    notification: {
      ...rest,
      ...times,
      acceptedAt: new Date(madeAtMs(row.id)),
      channels: channelsFor(channels, preferences),
      typeDeleted: rules === undefined && !(isWhole && row.type === DIGEST),
      rules,
      isWhole,
      collected: isCollected(batchRole, batchedAt),
      batchedAlready: isWhole || batchRole === BatchRole.ALONE || escalates || rules?.escalation !== undefined,
      batchedSince: batchedAt,
    },
    preferences,
    good,
  });
  const verdicts = decide(facts, now);
  const conclusion = conclude(row.id, verdicts, undefined, times.expiresAt ?? null, record?.(facts));
  switch (conclusion.status) {
    case Status.DELIVERED:
    case Status.PROCESSING:
      return released(row, times, now);
    case Status.HELD:
      return waits(row, conclusion, times, now);
    case Status.BATCHED:
      return batched(row, conclusion, times, now);
    default:
      return { kind: "suppressed", conclusion, times };
  }
}

function released(row: WaitingRow, times: Times, now: Date): Outcome {
  // A member has no turn to keep.
  const keeps = row.status !== Status.BATCHED && LIMITS.has(row.reason);
  return isDue(row, now) || keeps ? { kind: "unchanged" } : { kind: "released", times };
}

/** One that opens its batch goes at once, as far as the limits allow. */
function batched(row: WaitingRow, { plan }: Conclusion, times: Times, now: Date): Outcome {
  if (row.status !== Status.BATCHED && plan?.leading) return released(row, times, now);
  const stays = row.status === Status.BATCHED && row.dueAt === undefined && row.batchKey === plan?.key;
  return stays || isDue(row, now) ? { kind: "unchanged" } : { kind: "rebatched", times };
}

/** It is about to be decided by the scheduler's release. Not so a member whose batch the change itself has dissolved. */
function isDue({ status, dueAt }: WaitingRow, now: Date): boolean {
  return status !== Status.BATCHED && dueAt !== undefined && dueAt <= now;
}

function waits(row: WaitingRow, conclusion: Conclusion, times: Times, now: Date): Outcome {
  const { dueAt = now, reason } = conclusion;
  if (reason === Reason.SCHEDULED && row.status === Status.SCHEDULED) {
    if (dueAt.getTime() === row.dueAt?.getTime()) return { kind: "unchanged" };
    return { kind: "moved", conclusion: { ...conclusion, status: Status.SCHEDULED }, times };
  }
  const limited = row.status === Status.HELD && (LIMITS.has(row.reason) || row.reason === Reason.HOURLY_CAP);
  const same =
    limited && row.dueAt !== undefined
      ? dueAt <= row.dueAt
      : reason === row.reason && dueAt.getTime() === row.dueAt?.getTime();
  if (same || isDue(row, now)) return { kind: "unchanged" };
  return { kind: "moved", conclusion, times };
}

function isPast({ ofSchedule, scheduledAt }: WaitingRow, times: Times, now: Date): boolean {
  if (!ofSchedule || scheduledAt === undefined || times.scheduledAt === undefined) return false;
  return scheduledAt > now && times.scheduledAt < now;
}

/** A wall-clock time that has not come is that of the zone its user is in now. */
function timesOf(row: WaitingRow, zone: string, now: Date): Times {
  const { scheduledAt, expiresAt, localTime, localTtlMs } = row;
  if (localTime === undefined || scheduledAt === undefined || scheduledAt <= now) return { scheduledAt, expiresAt };
  const there = localTimes(localTime, localTtlMs, zone, now);
  return { scheduledAt: there.scheduledAt, expiresAt: there.expiresAt ?? expiresAt };
}
