import fc from "fast-check";
import { Temporal } from "temporal-polyfill";
import { expect, test } from "vitest";
import type { Steps } from "#src/breathe.ts";
import { newRecurrence, type Recurrence, TooSeldom } from "#src/schedules/recurrence.ts";

// RFC 5545 §3.3.10 asked the other way round: not which days a rule names, but of each day of a calendar whether it lies in
// a period that counts and all parts of the rule name it.
type Day = Temporal.PlainDate;
type Parts = Readonly<Record<string, string | undefined>>;
type Freq = "YEARLY" | "MONTHLY" | "WEEKLY" | "DAILY";

const DAYS = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"] as const;
const YEARS = 9;
const numbers = (list: string) => list.split(",").map(Number);
/** Counted from the start or, with a minus, from the end. */
const counts = (list: readonly number[], at: number, of: number) => list.includes(at) || list.includes(at - of - 1);
const firstOfWeek = (day: Day, first: number) => day.subtract({ days: (day.dayOfWeek - first + 7) % 7 });

function countsOf(start: Day, day: Day, { FREQ, INTERVAL = "1", WKST = "MO" }: Parts): boolean {
  const first = DAYS.indexOf(WKST as (typeof DAYS)[number]) + 1;
  const daysBetween = (a: Day, b: Day) => a.until(b, { largestUnit: "day" }).days;
  const periods = {
    YEARLY: () => day.year - start.year,
    MONTHLY: () => (day.year - start.year) * 12 + day.month - start.month,
    WEEKLY: () => daysBetween(firstOfWeek(start, first), firstOfWeek(day, first)) / 7,
    DAILY: () => daysBetween(start, day),
  };
  return periods[FREQ as Freq]() % Number(INTERVAL) === 0;
}

function weekNamed(day: Day, { BYWEEKNO = "", WKST = "MO" }: Parts): boolean {
  const first = DAYS.indexOf(WKST as (typeof DAYS)[number]) + 1;
  // A week is of the year in which most of it lies, and so the 28 December of its last.
  const middle = (of: Day) => firstOfWeek(of, first).add({ days: 3 });
  const weekOf = (of: Day) => Math.ceil(middle(of).dayOfYear / 7);
  return counts(numbers(BYWEEKNO), weekOf(day), weekOf(new Temporal.PlainDate(middle(day).year, 12, 28)));
}

function weekdayNamed(day: Day, { FREQ, BYDAY = "", BYMONTH }: Parts): boolean {
  const ofMonth = FREQ === "MONTHLY" || BYMONTH !== undefined;
  const [at, length] = ofMonth ? [day.day, day.daysInMonth] : [day.dayOfYear, day.daysInYear];
  return BYDAY.split(",").some((named) => {
    if (named.slice(-2) !== DAYS[day.dayOfWeek - 1]) return false;
    const which = Number.parseInt(named, 10);
    if (Number.isNaN(which)) return true;
    return which > 0 ? Math.ceil(at / 7) === which : Math.ceil((length - at + 1) / 7) === -which;
  });
}

function names(rule: Parts, start: Day, day: Day): boolean {
  const { FREQ, BYMONTH, BYWEEKNO, BYYEARDAY, BYMONTHDAY, BYDAY } = rule;
  if (!countsOf(start, day, rule)) return false;
  if (BYMONTH !== undefined && !numbers(BYMONTH).includes(day.month)) return false;
  if (BYWEEKNO !== undefined && !weekNamed(day, rule)) return false;
  if (BYYEARDAY !== undefined && !counts(numbers(BYYEARDAY), day.dayOfYear, day.daysInYear)) return false;
  if (BYMONTHDAY !== undefined && !counts(numbers(BYMONTHDAY), day.day, day.daysInMonth)) return false;
  if (BYDAY !== undefined) return weekdayNamed(day, rule);
  // What no part says is as it was at the start.
  if (BYYEARDAY !== undefined || BYMONTHDAY !== undefined || FREQ === "DAILY") return true;
  if (BYWEEKNO !== undefined || FREQ === "WEEKLY") return day.dayOfWeek === start.dayOfWeek;
  return day.day === start.day && (FREQ === "MONTHLY" || BYMONTH !== undefined || day.month === start.month);
}

/** All of some years from the start on. */
function calendar(rule: Parts, start: Day): string[] {
  const named: string[] = [];
  const end = start.add({ years: YEARS });
  for (let day = start; Temporal.PlainDate.compare(day, end) < 0; day = day.add({ days: 1 }))
    if (names(rule, start, day)) named.push(`${day}T09:00:00`);
  return named;
}

const part = <T>(value: fc.Arbitrary<T>) => fc.option(value.map(String), { nil: undefined, freq: 2 });
const someOf = (max: number, most: number) =>
  fc.uniqueArray(
    fc.tuple(fc.integer({ min: 1, max }), fc.constantFrom(1, 1, 1, -1)).map(([number, sign]) => number * sign),
    { minLength: 1, maxLength: most },
  );
const weekdays = (max: number) =>
  fc.uniqueArray(
    fc
      .tuple(max === 0 ? fc.constant("") : fc.oneof(fc.constant(""), someOf(max, 1)), fc.constantFrom(...DAYS))
      .map(([which, day]) => `${which}${day}`),
    { minLength: 1, maxLength: 3 },
  );
const ruleOf = (freq: Freq) =>
  fc.record({
    FREQ: fc.constant(freq),
    INTERVAL: part(fc.integer({ min: 1, max: 4 })),
    BYMONTH: part(fc.uniqueArray(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 3 })),
    BYWEEKNO: freq === "YEARLY" ? part(someOf(53, 3)) : fc.constant(undefined),
    BYYEARDAY: freq === "YEARLY" ? part(someOf(366, 6)) : fc.constant(undefined),
    BYMONTHDAY: freq === "WEEKLY" ? fc.constant(undefined) : part(someOf(31, 4)),
    BYDAY: part(weekdays({ YEARLY: 53, MONTHLY: 5, WEEKLY: 0, DAILY: 0 }[freq])),
    WKST: part(fc.constantFrom(...DAYS)),
  });
/** Which year's a week is that lies in two, the standard leaves open; it matters where not every year counts. */
const isPlain = ({ INTERVAL = "1", BYWEEKNO }: Parts) => BYWEEKNO === undefined || INTERVAL === "1";

const all = <T>(steps: Steps<T>): T => {
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
};
function accepted(rule: Parts, start: Day): Recurrence | undefined {
  const text = Object.entries(rule).flatMap(([name, value]) => (value === undefined ? [] : `${name}=${value}`));
  try {
    return all(newRecurrence(text.join(";"), `${start}T09:00`));
  } catch {
    return undefined;
  }
}

/** What comes too seldom to be looked for comes in none of the years either. */
function nextOf({ after }: Recurrence, at: string): string | undefined {
  try {
    return all(after(at));
  } catch (error) {
    if (error instanceof TooSeldom) return undefined;
    throw error;
  }
}

test.each<[Freq, number]>([
  ["YEARLY", 150],
  ["MONTHLY", 60],
  ["WEEKLY", 30],
  ["DAILY", 30],
])("a rule with FREQ=%s that is accepted has the days of a calendar, whatever parts it has", (freq, numRuns) => {
  const first = fc.record({ month: fc.integer({ min: 1, max: 12 }), day: fc.integer({ min: 1, max: 28 }) });
  let seen = 0;
  fc.assert(
    fc.property(ruleOf(freq).filter(isPlain), first, (rule, { month, day }) => {
      const start = new Temporal.PlainDate(2026, month, day);
      const recurrence = accepted(rule, start);
      if (recurrence === undefined) return;
      seen++;
      const expected = calendar(rule, start).slice(0, 8);
      const end = start.add({ years: YEARS }).toString();
      const found: string[] = [];
      for (let at: string | undefined = `${start}T00:00:00`; found.length < 8; found.push(at)) {
        at = nextOf(recurrence, at);
        if (at === undefined || at >= end) break;
      }
      expect(found).toEqual(expected);
    }),
    { numRuns },
  );
  expect(seen).toBeGreaterThan(numRuns / 4);
});
