import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { channelsOf } from "#src/notifications/channel-bits.ts";
import { localTimes } from "#src/notifications/local-time.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import { conclude } from "../route/conclude.ts";
import type { Conclusion } from "../route/conclusion.ts";
import type { ChannelVerdict, Facts } from "../route/gates/decide.ts";

/** A notification that waits (SCHEDULED or HELD), as stored. */
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
  dueAt: Date;
  scheduledAt: Date | undefined;
  expiresAt: Date | undefined;
  localTime: string | undefined;
  localTtlMs: number | undefined;
  /** What filters ask about: only for users who have some. */
  tags?: readonly string[];
  content?: Uint8Array;
};

/** What becomes of it. With `times` where it follows its user to another zone. */
export type Outcome =
  | { kind: "unchanged" }
  | { kind: "released"; times: Times }
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
 * Decides anew about a notification that waits. Pure.
 *
 *     no channel wants it any more, or ──▶ SUPPRESSED or EXPIRED, now
 *     it would wait until it expires
 *     a rule holds it ───────────────────▶ waits until the rule allows: "moved" when that is another time or rule
 *     nothing holds it ──────────────────▶ due now; the limits are asked when it is released
 *     a limit holds it ──────────────────▶ keeps its place, unless a rule holds it longer
 *     its time has not come ─────────────▶ stays SCHEDULED
 */
export function reconsidered(
  row: WaitingRow,
  preferences: CompiledPreferences,
  typeDeleted: boolean,
  decide: (facts: Facts, now: Date) => ChannelVerdict[],
  now: Date,
): Outcome {
  const times = timesOf(row, preferences.timeZone, now);
  const { userId: _, channels, ...rest } = row;
  const verdicts = decide(
    { notification: { ...rest, ...times, channels: channelsOf(channels), typeDeleted }, preferences },
    now,
  );
  const conclusion = conclude(row.id, verdicts, undefined, times.expiresAt ?? null);
  switch (conclusion.status) {
    case Status.DELIVERED:
      return released(row, times, now);
    case Status.HELD:
      return waits(row, conclusion, times, now);
    default:
      return { kind: "suppressed", conclusion, times };
  }
}

function released(row: WaitingRow, times: Times, now: Date): Outcome {
  if (row.dueAt <= now || LIMITS.has(row.reason)) return { kind: "unchanged" };
  return { kind: "released", times };
}

function waits(row: WaitingRow, conclusion: Conclusion, times: Times, now: Date): Outcome {
  const { dueAt = now, reason } = conclusion;
  if (reason === Reason.SCHEDULED && row.status === Status.SCHEDULED) {
    if (dueAt.getTime() === row.dueAt.getTime()) return { kind: "unchanged" };
    return { kind: "moved", conclusion: { ...conclusion, status: Status.SCHEDULED }, times };
  }
  const limited = row.status === Status.HELD && LIMITS.has(row.reason);
  const same = limited ? dueAt <= row.dueAt : reason === row.reason && dueAt.getTime() === row.dueAt.getTime();
  // What is due already is about to be decided by the scheduler's release.
  if (same || row.dueAt <= now) return { kind: "unchanged" };
  return { kind: "moved", conclusion, times };
}

/** A wall-clock time that has not come is that of the zone its user is in now. */
function timesOf(row: WaitingRow, zone: string, now: Date): Times {
  const { scheduledAt, expiresAt, localTime, localTtlMs } = row;
  if (localTime === undefined || scheduledAt === undefined || scheduledAt <= now) return { scheduledAt, expiresAt };
  const there = localTimes(localTime, localTtlMs, zone, now);
  return { scheduledAt: there.scheduledAt, expiresAt: there.expiresAt ?? expiresAt };
}
