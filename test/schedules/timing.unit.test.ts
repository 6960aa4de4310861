import fc from "fast-check";
import { Temporal } from "temporal-polyfill";
import { describe, expect, test } from "vitest";
import { instantOfLocal } from "#src/notifications/local-time.ts";
import { recurrence, TooSeldom } from "#src/schedules/recurrence.ts";
import { firesAt, firstAfter, step, type Timing } from "#src/schedules/timing.ts";

const HOUR = 3_600_000;
const ZONES = Intl.supportedValuesOf("timeZone");
const DAYS = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"] as const;

/** Rules that a calendar can be asked about minute by minute, and what it says to a wall-clock time. */
const simple = fc
  .record({
    hours: fc.uniqueArray(fc.integer({ min: 0, max: 23 }), { minLength: 1, maxLength: 4 }),
    minute: fc.integer({ min: 0, max: 59 }),
    days: fc.uniqueArray(fc.constantFrom(...DAYS), { minLength: 1, maxLength: 7 }),
    months: fc.option(fc.uniqueArray(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 6 }), {
      nil: undefined,
    }),
  })
  .map(({ hours, minute, days, months }) => ({
    rule: `FREQ=DAILY;BYDAY=${days};BYHOUR=${hours};BYMINUTE=${minute}${months === undefined ? "" : `;BYMONTH=${months}`}`,
    matches: (time: Temporal.PlainDateTime) =>
      hours.includes(time.hour) &&
      time.minute === minute &&
      days.includes(DAYS[time.dayOfWeek - 1] as (typeof DAYS)[number]) &&
      (months === undefined || months.includes(time.month)),
  }));
const START = "2026-01-01T00:00:00";
const when = fc.integer({ min: Date.UTC(2026, 0, 3), max: Date.UTC(2027, 11, 1) });

/** The next wall-clock minute that matches, found by looking at each. */
function scan(matches: (time: Temporal.PlainDateTime) => boolean, after: string, days: number): string | undefined {
  let time = Temporal.PlainDateTime.from(after).round({ smallestUnit: "minute", roundingMode: "floor" });
  for (let minute = 0; minute < days * 1440; minute++) {
    time = time.add({ minutes: 1 });
    if (matches(time)) return time.toString({ smallestUnit: "second" });
  }
  return undefined;
}

describe("occurrences", () => {
  test("are what a calendar finds minute by minute", () => {
    fc.assert(
      fc.property(simple, when, ({ rule, matches }, ms) => {
        const from = new Date(ms).toISOString().slice(0, 19);
        const found = recurrence(rule, START).after(from);
        const expected = scan(matches, from, 8);
        if (expected !== undefined) expect(found).toBe(expected);
        else expect(found === undefined || matches(Temporal.PlainDateTime.from(found))).toBe(true);
      }),
      { numRuns: 30 },
    );
  });

  test("of a zone come in the order of time, the next of every instant, over all zones and their changes of clock", () => {
    fc.assert(
      fc.property(simple, when, fc.constantFrom(...ZONES), ({ rule, matches }, ms, zone) => {
        const timing: Timing = { recurrence: recurrence(rule, START), zone };
        const now = new Date(ms);
        const first = firstAfter(timing, now);
        if (first === undefined) return;
        expect(matches(Temporal.PlainDateTime.from(first))).toBe(true);
        const instant = firesAt(timing, first).getTime();
        expect(instant).toBeGreaterThan(ms);
        // Nothing lies between: every wall-clock minute of the two days before it was looked at by its instant.
        const from = Temporal.PlainDateTime.from(first).subtract({ days: 2 }).toString();
        for (let at = scan(matches, from, 2); at !== undefined && at < first; at = scan(matches, at, 2)) {
          expect(instantOfLocal(at, zone).getTime()).toBeLessThanOrEqual(ms);
        }
      }),
      { numRuns: 30 },
    );
  });
});

describe("a schedule that is walked", () => {
  const walk = (timing: Timing, begin: number, ticks: readonly number[]) => {
    const sent: string[] = [];
    let missed = 0;
    let now = begin;
    let at = firstAfter(timing, new Date(begin));
    for (const tick of ticks) {
      now += tick;
      while (at !== undefined && firesAt(timing, at).getTime() <= now) {
        const result = step(timing, at, new Date(begin), new Date(now));
        if (result.send !== undefined) sent.push(result.send);
        missed += result.missed;
        at = result.next;
      }
    }
    return { sent, missed };
  };

  test("sends or misses every occurrence once, and never one that is over an hour late", () => {
    const ticks = fc.array(
      fc.integer({ min: 1, max: 6 * 60 }).map((minutes) => minutes * 60_000),
      { maxLength: 60 },
    );
    fc.assert(
      fc.property(simple, when, fc.constantFrom("", ...ZONES), ticks, ({ rule }, begin, zone, steps) => {
        const timing: Timing = { recurrence: recurrence(rule, START), zone };
        const { sent, missed } = walk(timing, begin, steps);
        expect(new Set(sent).size).toBe(sent.length);
        const end = begin + steps.reduce((sum, ms) => sum + ms, 0);
        let due = 0;
        let last = Number.NEGATIVE_INFINITY;
        for (let at = firstAfter(timing, new Date(begin)); at !== undefined; at = timing.recurrence.after(at)) {
          const instant = firesAt(timing, at).getTime();
          if (instant > end) break;
          if (instant > last) due++;
          last = instant;
        }
        expect(sent.length + missed).toBeGreaterThanOrEqual(due);
        expect(sent.length).toBeLessThanOrEqual(due);
        // Somebody who looks every half hour misses nothing.
        const often = walk(
          timing,
          begin,
          steps.flatMap((ms) =>
            Array.from({ length: Math.ceil(ms / HOUR) * 2 }, () => ms / (Math.ceil(ms / HOUR) * 2)),
          ),
        );
        expect(often).toMatchObject({ missed: 0 });
        expect(often.sent).toHaveLength(due);
      }),
      { numRuns: 80 },
    );
  });

  test("comes after the gap when its clock leaves out its time, once, and first in an overlap", () => {
    const berlin = (rule: string): Timing => ({
      recurrence: recurrence(rule, "2026-03-01T02:30"),
      zone: "Europe/Berlin",
    });
    expect(firesAt(berlin("FREQ=DAILY"), "2026-03-29T02:30:00").toISOString()).toBe("2026-03-29T01:30:00.000Z");
    expect(firesAt(berlin("FREQ=DAILY"), "2026-10-25T02:30:00").toISOString()).toBe("2026-10-25T00:30:00.000Z");
    // 02:30 is moved onto 03:30, which then is not sent again.
    const hourly = berlin("FREQ=HOURLY");
    const now = new Date("2026-03-29T01:30:00Z");
    expect(step(hourly, "2026-03-29T02:30:00", new Date(0), now).next).toBe("2026-03-29T04:30:00");
  });
});

describe("a rule", () => {
  test.each([
    "",
    "FREQ=DAILY;FREQ=DAILY",
    "FREQ=MINUTELY",
    "INTERVAL=2",
    "FREQ=DAILY;INTERVAL=0",
    "FREQ=DAILY;COUNT=367",
    "FREQ=DAILY;COUNT=2;UNTIL=20270101",
    "FREQ=DAILY;UNTIL=20261331",
    "FREQ=DAILY;BYHOUR=24",
    "FREQ=DAILY;BYSECOND=1",
    "FREQ=HOURLY;BYMINUTE=0,1,2,3,4",
    "FREQ=DAILY;BYYEARDAY=3",
    "RRULE:FREQ=DAILY",
    "FREQ=DAILY\nRDATE:20260101",
    "FREQ=DAILY;RSCALE=GREGORIAN",
    "FREQ=DAILY;BYDAY=XX",
    "FREQ=DAILY;=",
    "__proto__=1;FREQ=DAILY",
  ])("is refused: %j", (rule) => {
    expect(() => recurrence(rule, START)).toThrow("schedule.recurrence");
  });

  test.each([
    ["FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1", "2026-01-30T00:00:00"],
    ["FREQ=MONTHLY;BYMONTHDAY=31", "2026-01-31T00:00:00"],
    ["FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29", "2028-02-29T00:00:00"],
    ["FREQ=WEEKLY;INTERVAL=2;BYDAY=MO;BYHOUR=9;BYMINUTE=15", "2026-01-12T09:15:00"],
    ["freq=daily;until=20260105", "2026-01-02T00:00:00"],
  ])("says when: %s", (rule, next) => {
    expect(recurrence(rule, START).after("2026-01-01T00:00:00")).toBe(next);
  });

  test.each([
    ["FREQ=DAILY;BYMONTH=2;BYMONTHDAY=29", "2028-02-29T00:00:00", "2032-02-29T00:00:00"],
    ["FREQ=DAILY;BYMONTH=12;BYMONTHDAY=24;BYDAY=TH", "2026-12-24T00:00:00", "2037-12-24T00:00:00"],
    ["FREQ=DAILY;BYMONTH=2;BYMONTHDAY=29;BYDAY=TH", "2080-02-29T00:00:00", "2120-02-29T00:00:00"],
  ])("goes on however far apart its occurrences are: %s", (rule, from, next) => {
    expect(recurrence(rule, START).after(from)).toBe(next);
  });

  test("that never comes costs little", () => {
    const began = performance.now();
    expect(() => recurrence("FREQ=HOURLY;BYMONTH=2;BYMONTHDAY=30", START).after(START)).toThrow(TooSeldom);
    expect(performance.now() - began).toBeLessThan(5000);
  });

  test("with a count ends when it is reached, however seldom it comes", () => {
    const rule = "FREQ=HOURLY;BYHOUR=9;BYDAY=MO;COUNT=300";
    const { final, after } = recurrence(rule, START);
    expect(final).toBe("2031-09-29T09:00:00");
    expect(after("2031-09-22T09:00:00")).toBe(final);
    expect(recurrence(rule, START, final).after("2031-09-29T09:00:00")).toBeUndefined();
  });

  test("ends with its count, whoever asks", () => {
    const three = recurrence("FREQ=DAILY;COUNT=3", START);
    expect(three.after("2026-01-02T00:00:00")).toBe("2026-01-03T00:00:00");
    expect(three.after("2026-01-03T00:00:00")).toBeUndefined();
  });
});
