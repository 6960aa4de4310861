import { Temporal } from "temporal-polyfill";
import { invalidField } from "#src/errors.ts";

/**
 * The instant of a wall-clock time in a zone. In a DST gap it is later by the gap's length (02:30 is 03:30), in an overlap
 * it is the first of the two (Temporal's "compatible" disambiguation, as RFC 5545 §3.3.5 reads local times).
 */
export function instantOfLocal(local: string, zone: string): Date {
  let time: Temporal.PlainDateTime;
  try {
    time = Temporal.PlainDateTime.from(local);
  } catch {
    throw invalidField("local_schedule_time", "is not a date and time, such as 2026-03-29T09:00");
  }
  return new Date(time.toZonedDateTime(zone).epochMilliseconds);
}

/** When something is due at a wall-clock time in a zone, and when it expires if it does so a while after it is due. */
export function localTimes(
  local: string,
  ttlMs: number | undefined,
  zone: string,
  now: Date,
): { scheduledAt: Date; expiresAt: Date | undefined } {
  const scheduledAt = instantOfLocal(local, zone);
  const from = Math.max(scheduledAt.getTime(), now.getTime());
  return { scheduledAt, expiresAt: ttlMs === undefined ? undefined : new Date(from + ttlMs) };
}

/** What the wall clock of a zone shows at an instant, to the second. */
export function localTimeOf(instant: Date, zone: string): string {
  const time = Temporal.Instant.fromEpochMilliseconds(instant.getTime()).toZonedDateTimeISO(zone);
  return time.toPlainDateTime().toString({ smallestUnit: "second" });
}
