import { Digest_Mode as Mode } from "#gen/posthorn/v1/preferences_service_pb.ts";
import type { ZoneClock } from "./zone-clock.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** No zone's clocks were ever further from UTC. */
const FURTHEST_MS = 16 * HOUR_MS;

export type DigestTime = {
  mode: typeof Mode.HOURLY | typeof Mode.DAILY | typeof Mode.WEEKLY;
  /** HH:MM */
  time: string;
  /** 0 Sunday … 6 Saturday; at least one. */
  days: readonly number[];
};

/**
 * The first instant after `fromMs` at which the digest is due, by the wall clock of a zone. A time that the clock leaves
 * out is due at the end of the gap; a time it shows twice the first time, but for full hours, which are due both times:
 * so nobody waits longer than an hour for an hourly one.
 */
export function nextDigest({ mode, time, days }: DigestTime, clock: ZoneClock, fromMs: number): number {
  if (mode === Mode.HOURLY) return nextHour(clock, fromMs);
  const minutes = Number(time.slice(0, 2)) * 60 + Number(time.slice(3, 5));
  const wanted = mode === Mode.DAILY ? undefined : new Set(days);
  // From the day before: where the date line was crossed, it may be due only now.
  const today = Math.floor((fromMs + clock.stretchAt(fromMs).offsetMs) / DAY_MS) - 1;
  for (let day = today; ; day++) {
    // 1970-01-01 was a Thursday.
    if (wanted !== undefined && !wanted.has((((day + 4) % 7) + 7) % 7)) continue;
    const due = firstShown(clock, day * DAY_MS + minutes * 60_000);
    if (due > fromMs) return due;
  }
}

/** The first instant at which a zone's clock shows this time or a later one. */
function firstShown(clock: ZoneClock, localMs: number): number {
  for (let at = localMs - FURTHEST_MS; ; ) {
    const { offsetMs, until } = clock.stretchAt(at);
    const due = Math.max(at, localMs - offsetMs);
    if (due < until) return due;
    at = until;
  }
}

function nextHour(clock: ZoneClock, fromMs: number): number {
  let { offsetMs, until } = clock.stretchAt(fromMs);
  const due = (Math.floor((fromMs + offsetMs) / HOUR_MS) + 1) * HOUR_MS - offsetMs;
  if (due < until) return due;
  // The clock changes before: to a full hour, past one, or to a time before the next.
  const before = until + offsetMs;
  const changed = until;
  ({ offsetMs, until } = clock.stretchAt(changed));
  const after = changed + offsetMs;
  const passed = Math.floor(after / HOUR_MS) > Math.floor((before - 1) / HOUR_MS);
  return after % HOUR_MS === 0 || passed ? changed : nextHour(clock, changed);
}
