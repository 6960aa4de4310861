import fc from "fast-check";
import { Temporal } from "temporal-polyfill";
import { describe, expect, test } from "vitest";
import { Digest_Mode as Mode } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { type DigestTime, nextDigest } from "#src/preferences/next-digest.ts";
import { zoneClock } from "#src/preferences/zone-clock.ts";

const MINUTE = 60_000;
const ms = (text: string) => Temporal.Instant.from(text).epochMilliseconds;
const text = (instant: number) => Temporal.Instant.fromEpochMilliseconds(instant).toString();
const daily = (time: string): DigestTime => ({ mode: Mode.DAILY, time, days: [] });
const weekly = (time: string, ...days: number[]): DigestTime => ({ mode: Mode.WEEKLY, time, days });
const hourly: DigestTime = { mode: Mode.HOURLY, time: "09:00", days: [] };
const next = (rule: DigestTime, zone: string, from: string) => text(nextDigest(rule, zoneClock(zone), ms(from)));

describe("the next digest", () => {
  test.each([
    [
      "is today if its time is still to come",
      daily("09:00"),
      "Europe/Berlin",
      "2026-07-01T06:59:59Z",
      "2026-07-01T07:00:00Z",
    ],
    [
      "is tomorrow at the very instant",
      daily("09:00"),
      "Europe/Berlin",
      "2026-07-01T07:00:00Z",
      "2026-07-02T07:00:00Z",
    ],
    [
      "keeps the wall clock over a change",
      daily("09:00"),
      "Europe/Berlin",
      "2026-10-24T08:00:00Z",
      "2026-10-25T08:00:00Z",
    ],
    ["is at the end of a gap", daily("02:30"), "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"],
    ["is the first of two", daily("02:30"), "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"],
    ["is not the second of two", daily("02:30"), "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
    [
      "goes by the user's weekday",
      weekly("08:00", 1),
      "Pacific/Auckland",
      "2026-11-26T00:00:00Z",
      "2026-11-29T19:00:00Z",
    ],
    ["takes the nearest of several days", weekly("08:00", 5, 2), "UTC", "2026-11-27T08:00:00Z", "2026-12-01T08:00:00Z"],
    ["is at the next full hour", hourly, "Asia/Kolkata", "2026-11-27T10:00:00Z", "2026-11-27T10:30:00Z"],
    ["comes at both of two equal hours", hourly, "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z"],
    [
      "comes at the end of a gap of half an hour",
      hourly,
      "Australia/Lord_Howe",
      "2026-10-03T15:15:00Z",
      "2026-10-03T15:30:00Z",
    ],
    [
      "is found on a day that a zone left out",
      weekly("09:00", 5),
      "Pacific/Apia",
      "2011-12-29T22:00:00Z",
      "2011-12-30T10:00:00Z",
    ],
  ])("%s", (_, rule, zone, from, due) => {
    expect(next(rule, zone, from)).toBe(due);
  });
});

/**
 * What a clock on the wall shows, in ms since 1970 as if the zone were UTC. Temporal is asked every quarter of an hour, and
 * every minute where the offset changes within it (St. John's did at one minute past midnight).
 */
function wall(zone: string): (instant: number) => number {
  const offsetAt = (instant: number) =>
    Temporal.Instant.fromEpochMilliseconds(instant).toZonedDateTimeISO(zone).offsetNanoseconds / 1e6;
  let quarter = Number.NaN;
  let offset: number | undefined;
  return (instant) => {
    const asked = Math.floor(instant / (15 * MINUTE));
    if (asked !== quarter) {
      quarter = asked;
      const [first, last] = [offsetAt(asked * 15 * MINUTE), offsetAt((asked + 1) * 15 * MINUTE - MINUTE)];
      offset = first === last ? first : undefined;
    }
    return instant + (offset ?? offsetAt(instant));
  };
}

/** Minute by minute: due where the clock shows the time for the first time, or has gone past it in a leap. */
function scanned(rule: DigestTime, zone: string, from: number): number {
  const DAY = 1440 * MINUTE;
  // The furthest the clock has been, so that what it shows again does not count again.
  const shown = wall(zone);
  let furthest = Math.max(...Array.from({ length: 1800 }, (_, minutes) => shown(from - minutes * MINUTE)));
  let before = shown(from);
  for (let at = from + MINUTE; ; at += MINUTE) {
    const now = shown(at);
    const since = rule.mode === Mode.HOURLY ? before : furthest;
    if (rule.mode === Mode.HOURLY) {
      if (now % (60 * MINUTE) === 0 || Math.floor(now / (60 * MINUTE)) > Math.floor(since / (60 * MINUTE))) return at;
    } else {
      for (let day = Math.floor(since / DAY); day <= Math.floor(now / DAY); day++) {
        const due = day * DAY + (Number(rule.time.slice(0, 2)) * 60 + Number(rule.time.slice(3))) * MINUTE;
        const wanted = rule.mode === Mode.DAILY || rule.days.includes((day + 4) % 7);
        if (wanted && since < due && due <= now) return at;
      }
    }
    furthest = Math.max(furthest, now);
    before = now;
  }
}

test("the next digest is where a scan of the wall clock finds it, in every zone and around its changes", () => {
  const zones = Intl.supportedValuesOf("timeZone");
  const rules = fc.record({
    mode: fc.constantFrom(Mode.HOURLY, Mode.DAILY, Mode.WEEKLY),
    time: fc
      .tuple(fc.integer({ min: 0, max: 23 }), fc.integer({ min: 0, max: 59 }))
      .map((parts) => parts.map((part) => String(part).padStart(2, "0")).join(":")),
    days: fc.uniqueArray(fc.integer({ min: 0, max: 6 }), { minLength: 1 }),
  });
  const start = ms("2000-01-01T00:00:00Z");
  const span = ms("2035-01-01T00:00:00Z") - start;
  fc.assert(
    fc.property(
      rules,
      fc.constantFrom(...zones),
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.integer({ min: -2000, max: 200 }),
      (rule, zone, part, minutes) => {
        const somewhen = start + Math.floor((part * span) / MINUTE) * MINUTE;
        // Half of them near a change of the zone's clocks, where there are such.
        const change = zoneClock(zone).stretchAt(somewhen).until;
        const from = minutes % 2 === 0 && Number.isFinite(change) ? change + minutes * MINUTE : somewhen;
        expect(text(nextDigest(rule, zoneClock(zone), from))).toBe(text(scanned(rule, zone, from)));
      },
    ),
    { numRuns: 1000 },
  );
}, 60_000);
