import fc from "fast-check";
import { Temporal } from "temporal-polyfill";
import { describe, expect, test } from "vitest";
import type { Steps } from "#src/breathe.ts";
import { instantOfLocal } from "#src/notifications/local-time.ts";
import {
  COUNT_STEPS,
  newRecurrence,
  type Recurrence,
  recurrence,
  SEARCH_STEPS,
  TooSeldom,
} from "#src/schedules/recurrence.ts";
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

/** The outcome, and how many steps it took. */
function walked<T>(steps: Steps<T>): { value: T; steps: number } {
  for (let n = 0; ; n++) {
    const { done, value } = steps.next();
    if (done) return { value, steps: n };
  }
}
const all = <T>(steps: Steps<T>) => walked(steps).value;
const made = (rule: string, start = START) => all(newRecurrence(rule, start));
const next = ({ after }: Recurrence, local: string) => all(after(local));
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
        const found = next(made(rule), from);
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
        const timing: Timing = { recurrence: made(rule), zone };
        const now = new Date(ms);
        const first = all(firstAfter(timing, now));
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
    let at = all(firstAfter(timing, new Date(begin)));
    for (const tick of ticks) {
      now += tick;
      while (at !== undefined && firesAt(timing, at).getTime() <= now) {
        const result = all(step(timing, at, new Date(begin), new Date(now)));
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
        const timing: Timing = { recurrence: made(rule), zone };
        const { sent, missed } = walk(timing, begin, steps);
        expect(new Set(sent).size).toBe(sent.length);
        const end = begin + steps.reduce((sum, ms) => sum + ms, 0);
        let due = 0;
        let last = Number.NEGATIVE_INFINITY;
        for (let at = all(firstAfter(timing, new Date(begin))); at !== undefined; at = next(timing.recurrence, at)) {
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
      recurrence: made(rule, "2026-03-01T02:30"),
      zone: "Europe/Berlin",
    });
    expect(firesAt(berlin("FREQ=DAILY"), "2026-03-29T02:30:00").toISOString()).toBe("2026-03-29T01:30:00.000Z");
    expect(firesAt(berlin("FREQ=DAILY"), "2026-10-25T02:30:00").toISOString()).toBe("2026-10-25T00:30:00.000Z");
    // 02:30 is moved onto 03:30, which then is not sent again.
    const hourly = berlin("FREQ=HOURLY");
    const now = new Date("2026-03-29T01:30:00Z");
    expect(all(step(hourly, "2026-03-29T02:30:00", new Date(0), now)).next).toBe("2026-03-29T04:30:00");
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
    expect(() => made(rule)).toThrow("schedule.recurrence");
  });

  test.each([
    ["FREQ=DAILY;INTERVAL=0", "has an INTERVAL that is not allowed"],
    ["FREQ=DAILY;UNTIL=soon", "has an UNTIL that is not allowed"],
    ["FREQ=DAILY;COUNT=0", "has a COUNT that is not allowed"],
  ])("is refused in words: %j", (rule, words) => {
    expect(() => made(rule)).toThrow(words);
  });

  test.each([
    ["YEARLY", "BYMONTH=2;BYMONTHDAY=30"],
    ["MONTHLY", "BYMONTH=2,4;BYMONTHDAY=31,-31"],
    ["DAILY", "BYMONTH=11;BYMONTHDAY=31"],
  ])("is refused without a search where no month has its days: %s, %s", (freq, days) => {
    const looking = newRecurrence(`FREQ=${freq};${days}`, START);
    expect(() => looking.next()).toThrow("names no day that its months have");
  });

  test.each([
    ["FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1", "2026-01-30T00:00:00"],
    ["FREQ=MONTHLY;BYMONTHDAY=31", "2026-01-31T00:00:00"],
    ["FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29", "2028-02-29T00:00:00"],
    ["FREQ=WEEKLY;INTERVAL=2;BYDAY=MO;BYHOUR=9;BYMINUTE=15", "2026-01-12T09:15:00"],
    ["freq=daily;until=20260105", "2026-01-02T00:00:00"],
  ])("says when: %s", (rule, time) => {
    expect(next(made(rule), "2026-01-01T00:00:00")).toBe(time);
  });

  test.each([
    ["FREQ=DAILY;BYMONTH=2;BYMONTHDAY=29", "2028-02-29T00:00:00", "2032-02-29T00:00:00"],
    ["FREQ=DAILY;BYMONTH=12;BYMONTHDAY=24;BYDAY=TH", "2026-12-24T00:00:00", "2037-12-24T00:00:00"],
    ["FREQ=DAILY;BYMONTH=2;BYMONTHDAY=29;BYDAY=TH", "2080-02-29T00:00:00", "2120-02-29T00:00:00"],
    ["FREQ=HOURLY;BYMONTH=2;BYMONTHDAY=29", "2028-02-29T22:00:00", "2028-02-29T23:00:00"],
    ["FREQ=HOURLY;BYMONTH=2;BYMONTHDAY=29", "2028-02-29T23:00:00", "2032-02-29T00:00:00"],
    ["FREQ=HOURLY;INTERVAL=6;BYMONTH=2;BYMONTHDAY=29;BYDAY=TH", "2080-02-29T18:00:00", "2120-02-29T00:00:00"],
  ])("goes on however far apart its occurrences are: %s after %s", (rule, from, time) => {
    expect(next(made(rule), from)).toBe(time);
  });

  test("by the hour has the hours from its start on, and those of its minutes that it chooses", () => {
    const odd = made("FREQ=HOURLY;INTERVAL=8;BYMINUTE=45,10,30;BYSETPOS=1,-1", "2026-01-01T05:20");
    const times: string[] = [];
    for (let at: string | undefined = START; times.length < 6; times.push(at)) at = next(odd, at) ?? "";
    expect(times.map((time) => time.slice(8, 16))).toEqual([
      "01T05:45",
      "01T13:10",
      "01T13:45",
      "01T21:10",
      "01T21:45",
      "02T05:10",
    ]);
  });

  test("with a count ends when it is reached, however seldom it comes", () => {
    const rule = "FREQ=HOURLY;BYHOUR=9;BYDAY=MO;COUNT=300";
    const counted = made(rule);
    expect(counted.final).toBe("2031-09-29T09:00:00");
    expect(next(counted, "2031-09-22T09:00:00")).toBe(counted.final);
    expect(next(recurrence(rule, START, counted.final), "2031-09-29T09:00:00")).toBeUndefined();
  });

  test("ends with its count, whoever asks", () => {
    const three = made("FREQ=DAILY;COUNT=3");
    expect(next(three, "2026-01-02T00:00:00")).toBe("2026-01-03T00:00:00");
    expect(next(three, "2026-01-03T00:00:00")).toBeUndefined();
  });
});

describe("what a rule costs", () => {
  const list = (min: number, max: number, most: number) =>
    fc.uniqueArray(fc.integer({ min, max }), { minLength: 1, maxLength: most });
  const signed = (max: number, most: number) =>
    fc.uniqueArray(
      fc.integer({ min: -max, max }).filter((n) => n !== 0),
      { minLength: 1, maxLength: most },
    );
  const part = (name: string, values: fc.Arbitrary<readonly (number | string)[]>) =>
    fc.option(
      values.map((found) => `;${name}=${found}`),
      { nil: "", freq: 1 },
    );
  /** Made to be searched in vain, or through many times: lists as long as they may be, and days that there are not. */
  const hostile = fc
    .tuple(
      fc.constantFrom("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY").map((freq) => `FREQ=${freq}`),
      fc.option(
        fc.constantFrom(1, 2, 5, 7, 24, 997, 1000).map((interval) => `;INTERVAL=${interval}`),
        { nil: "" },
      ),
      part("BYMONTH", list(1, 12, 12)),
      part("BYMONTHDAY", fc.oneof(signed(31, 31), fc.constant([30, 31]))),
      part("BYYEARDAY", signed(366, 80)),
      part("BYDAY", fc.uniqueArray(fc.constantFrom(...DAYS), { minLength: 1, maxLength: 7 })),
      part("BYHOUR", list(0, 23, 24)),
      part("BYMINUTE", list(0, 59, 4)),
      part("BYSETPOS", fc.oneof(signed(2, 2), signed(366, 20))),
      fc.constantFrom("", "", ";COUNT=366"),
    )
    .map((parts) => parts.join(""))
    .filter((rule) => rule.length <= 500);
  const accepted = (rule: string, start: string) => {
    try {
      return walked(newRecurrence(rule, start));
    } catch {
      return undefined;
    }
  };

  test("is bounded before it is looked for: no rule that is accepted, and no look at it, takes more than its steps", () => {
    let seen = 0;
    fc.assert(
      fc.property(hostile, fc.constantFrom(START, "2000-06-15T08:30:00"), when, (rule, start, ms) => {
        const counted = accepted(rule, start);
        if (counted === undefined) return;
        seen++;
        expect(counted.steps).toBeLessThanOrEqual(COUNT_STEPS + 1);
        let at: string | undefined = new Date(ms).toISOString().slice(0, 19);
        for (let n = 0; n < 3 && at !== undefined; n++) {
          const looking: Steps<string | undefined> = counted.value.after(at);
          try {
            const found: { value: string | undefined; steps: number } = walked(looking);
            expect(found.steps).toBeLessThanOrEqual(SEARCH_STEPS);
            at = found.value;
          } catch (error) {
            expect(error).toBeInstanceOf(TooSeldom);
            at = undefined;
          }
        }
      }),
      { numRuns: 80 },
    );
    expect(seen).toBeGreaterThan(3);
  });

  test("is what one look at a whole calendar would find, though it looks by parts", () => {
    fc.assert(
      fc.property(fc.constantFrom(1, 2, 3, 5, 40), fc.integer({ min: 1, max: 28 }), (interval, day) => {
        const seldom = next(made(`FREQ=DAILY;INTERVAL=${interval};BYMONTH=11;BYMONTHDAY=${day};BYDAY=MO`), START);
        if (seldom === undefined) return;
        let time = Temporal.PlainDateTime.from(START);
        const matches = () => time.month === 11 && time.day === day && time.dayOfWeek === 1;
        while (!matches()) time = time.add({ days: interval });
        expect(seldom).toBe(time.toString({ smallestUnit: "second" }));
      }),
      { numRuns: 20 },
    );
  });

  test.each([
    ["FREQ=YEARLY;BYDAY=MO,TU,WE,TH,FR,SA,SU;BYHOUR=8,12,18", "names up to 1098 times in one period"],
    ["FREQ=MONTHLY;BYDAY=MO,TU;BYSETPOS=11", "BYSETPOS beyond the 10 times"],
    ["FREQ=YEARLY;BYDAY=MO;BYSETPOS=1,2,3,4,5,6,7,8,9,10,11,12,13", "more than 12 positions"],
    ["FREQ=HOURLY;BYYEARDAY=1,2", "FREQ=YEARLY and BYHOUR"],
    ["FREQ=HOURLY;INTERVAL=5;BYMONTH=2", "an INTERVAL that divides 24"],
    ["FREQ=DAILY;BYMONTH=2;BYMONTHDAY=29;COUNT=366", "a greater FREQ, or UNTIL"],
    ["FREQ=HOURLY;BYMONTH=1;BYMONTHDAY=1;BYHOUR=0;INTERVAL=7;COUNT=366", "an INTERVAL that divides 24"],
    ["FREQ=YEARLY;BYYEARDAY=366;BYDAY=TU", "BYYEARDAY, or BYWEEKNO, BYMONTHDAY and BYDAY"],
    ["FREQ=YEARLY;BYWEEKNO=9;BYMONTHDAY=29", "BYWEEKNO or BYMONTHDAY"],
    ["FREQ=YEARLY;BYMONTHDAY=13;BYDAY=1FR", "only with a BYMONTH"],
    ["FREQ=YEARLY;BYDAY=MO,1MO", "for all days of BYDAY or for none"],
    ["FREQ=YEARLY;BYDAY=53MO", "the last of a year is -1"],
  ])("is refused with what to write instead: %s", (rule, description) => {
    expect(() => made(rule)).toThrow(description);
  });

  test("stays allowed where it is usual", () => {
    for (const rule of [
      "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYHOUR=8,9,10,11,12,13,14,15,16,17,18;BYMINUTE=0,30",
      "FREQ=YEARLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=1,-1",
      "FREQ=HOURLY;COUNT=366",
      "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;COUNT=366",
      "FREQ=YEARLY;BYMONTH=2,4;BYMONTHDAY=29,-30",
      "FREQ=YEARLY;BYMONTHDAY=13;BYDAY=FR",
      "FREQ=YEARLY;BYDAY=-1SU,20MO",
    ])
      expect(next(made(rule), START)).toBeDefined();
  });

  test("of one that never comes is that of one search", () => {
    const never = recurrence("FREQ=HOURLY;BYMONTH=2;BYMONTHDAY=30", START, undefined);
    const looking = never.after(START);
    let steps = 0;
    expect(() => {
      while (!looking.next().done) steps++;
    }).toThrow(TooSeldom);
    expect(steps).toBe(SEARCH_STEPS);
  });
});

test("what follows an occurrence of a common rule is the same wherever the rule began", () => {
  const days = ["", ";BYDAY=MO,TU,WE,TH,FR", ";BYMONTH=1,3,12", ";BYMONTH=3;BYDAY=SU", ";BYHOUR=9,17;BYMINUTE=0,30"];
  const rules = ["YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY"].flatMap((freq) =>
    days.map((day) => `FREQ=${freq}${day}`),
  );
  const others = ["FREQ=MONTHLY;BYDAY=-1FR", "FREQ=MONTHLY;BYMONTHDAY=-1,15", "FREQ=YEARLY;BYYEARDAY=60,-1"];
  const starts = fc.date({ min: new Date("2020-01-01"), max: new Date("2031-12-31"), noInvalidDate: true });
  fc.assert(
    fc.property(
      fc.constantFrom(...rules, ...others),
      starts,
      fc.integer({ min: 0, max: 6 }),
      (rule, start, further) => {
        const from = start.toISOString().slice(0, 19);
        const one = recurrence(rule, from, undefined);
        expect(one.isCommon).toBe(true);
        let at = next(one, from);
        for (let n = 0; n < further && at !== undefined; n++) at = next(one, at);
        if (at !== undefined) expect(next(recurrence(rule, at, undefined), at)).toBe(next(one, at));
      },
    ),
  );
  for (const rule of ["FREQ=DAILY;INTERVAL=2", "FREQ=MONTHLY;BYDAY=MO,TU;BYSETPOS=-1", "FREQ=YEARLY;BYWEEKNO=1,53"])
    expect(recurrence(rule, "2026-01-01T09:00:00", undefined).isCommon).toBe(false);
});
