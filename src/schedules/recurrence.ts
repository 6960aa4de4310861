import { RRuleTemporal } from "rrule-temporal";
import { Temporal } from "temporal-polyfill";
import type { Steps } from "#src/breathe.ts";
import { invalidField } from "#src/errors.ts";
import {
  byDays,
  checkDays,
  checkEffort,
  checkMonths,
  type Freq,
  invalidRule,
  onWeekday,
  type Rule,
  readRule,
  textOf,
  timesInPeriod,
} from "./rule.ts";

/**
 * A recurrence rule (RFC 5545 §3.3.10) on floating time: its occurrences are wall-clock times ("2026-03-29T09:00:00"), and
 * which instants they are is asked of a zone later. So one rule serves the recipients of all zones, and gaps and overlaps
 * are read as everywhere else (`instantOfLocal`), where RFC 5545 leaves out what falls into a gap.
 *
 * Looking for an occurrence is done in steps, each of which looks through no more than some hundred periods of the rule:
 * see SEARCH_STEPS for how many there are.
 */
export type Recurrence = {
  /** The first occurrence after a wall-clock time; undefined when there is none. Throws TooSeldom when that is not known. */
  after(local: string): Steps<string | undefined>;
  /** With a COUNT: the last occurrence. */
  readonly final: string | undefined;
  /** Whether what follows an occurrence is the same for all schedules with this rule, whenever they began. */
  readonly isCommon: boolean;
};

const FIRST_YEAR = 2000;
const LAST_YEAR = 9999;
/** Periods that one step looks through; fewer where each may cost much, because its BYSETPOS can name what is not there. */
const PERIODS = 300;
const FEWEST_PERIODS = 40;
/** What the library spends of its iterations on other things than going on: the next step looks at these periods again. */
const OVERLAP = 20;
const MAX_CANDIDATES = 50_000;
/** Steps of one search. Of days they reach from one 29 February on a Thursday to the next, which are 40 years. */
export const SEARCH_STEPS = 60;
/** Steps for finding the last occurrence of a rule with a COUNT: one for each of 366, and some for those in between. */
export const COUNT_STEPS = 500;

/** Whether there is a further occurrence was not found out within what may be spent on looking. */
export class TooSeldom extends Error {}

/**
 * A rule that was checked before, with its `final` occurrence if it has a COUNT. Throws INVALID_REQUEST naming the field
 * when it is no rule.
 */
export function recurrence(text: string, startTime: string, final: string | undefined): Recurrence {
  const rule = readRule(text);
  const { search } = openRule(rule, startOf(startTime));
  return limited(search, final, goesOnFromAny(rule));
}

/** Not where the library counts from where the rule began, nor where a year's first week begins in the year before. */
function goesOnFromAny({ interval, parts, count }: Rule): boolean {
  return interval === 1 && count === undefined && !parts.has("BYSETPOS") && !parts.has("BYWEEKNO");
}

/**
 * A rule that is new: checks it, and finds the last occurrence of one with a COUNT. Throws INVALID_REQUEST naming the
 * field when it is no rule, or one that is not allowed because of what it costs.
 */
export function* newRecurrence(text: string, startTime: string): Steps<Recurrence> {
  const start = startOf(startTime);
  if (start.year < FIRST_YEAR)
    throw invalidField("schedule.local_start_time", `must not lie before the year ${FIRST_YEAR}`);
  const rule = readRule(text);
  checkEffort(rule);
  checkDays(rule);
  checkMonths(rule);
  yield;
  checkSense(rule, start);
  const { search, before } = openRule(rule, start);
  return limited(search, yield* lastOf(rule.count, before, search), goesOnFromAny(rule));
}

type Search = (from: Temporal.PlainDateTime) => Steps<string | undefined>;

function limited(search: Search, final: string | undefined, isCommon: boolean): Recurrence {
  return {
    final,
    isCommon,
    *after(local) {
      const next = yield* search(Temporal.PlainDateTime.from(local));
      return next === undefined || (final !== undefined && next > final) ? undefined : next;
    },
  };
}

function openRule(asked: Rule, start: Temporal.PlainDateTime): { search: Search; before: Temporal.PlainDateTime } {
  const rule = onWeekday(byDays(asked, start), start);
  const periods = periodsOfStep(rule);
  let opened: ReturnType<typeof libraryRule> | undefined;
  const before = start.subtract({ seconds: 1 });
  const stride = { [UNITS[rule.freq]]: Math.min((periods - OVERLAP) * rule.interval, MAX_STRIDE) };
  function* search(from: Temporal.PlainDateTime): Steps<string | undefined> {
    let at = Temporal.PlainDateTime.compare(from, before) < 0 ? before : from;
    for (let n = 0; n < SEARCH_STEPS; n++) {
      yield;
      try {
        opened ??= libraryRule(rule, start, periods);
        const next = opened.next(dateOf(at), false);
        return next == null || next.year > LAST_YEAR ? undefined : canonical(next.toPlainDateTime());
      } catch (error) {
        // None that a calendar holds.
        if (!isCostly(error)) return undefined;
      }
      at = at.add(stride);
      if (at.year > LAST_YEAR) return undefined;
    }
    throw new TooSeldom(`no occurrence of ${textOf(rule)} found from ${canonical(from)} on`);
  }
  return { search, before };
}

const UNITS: Record<Freq, string> = {
  YEARLY: "years",
  MONTHLY: "months",
  WEEKLY: "weeks",
  DAILY: "days",
  HOURLY: "hours",
};
/** However long the unit, it leads beyond the last year, and stays within what Temporal holds. */
const MAX_STRIDE = 100_000;

function periodsOfStep(rule: Rule): number {
  if (!rule.parts.has("BYSETPOS")) return PERIODS;
  return Math.max(FEWEST_PERIODS, Math.min(PERIODS, Math.floor(1000 / timesInPeriod(rule))));
}

function libraryRule(rule: Rule, start: Temporal.PlainDateTime, maxIterations: number) {
  const rruleString = `DTSTART:${compact(start)}Z\nRRULE:${textOf(rule)}`;
  const cost = { maxIterations, maxCandidateEvaluations: MAX_CANDIDATES };
  return new RRuleTemporal({ rruleString, temporal: Temporal, cache: false, strict: true, ...cost });
}

/** Some contradictions only show when it is asked. */
function checkSense(rule: Rule, start: Temporal.PlainDateTime): void {
  try {
    libraryRule(rule, start, FEWEST_PERIODS).next(dateOf(start.subtract({ seconds: 1 })), false);
  } catch (error) {
    if (!isCostly(error)) throw invalidRule(error instanceof Error ? error.message.slice(0, 200) : "is not a rule");
  }
}

/**
 * The last of so many occurrences. Looked for one by one: the library would count from the start whenever it is asked, and
 * give up on a rule that has run for years.
 */
function* lastOf(count: number | undefined, before: Temporal.PlainDateTime, search: Search): Steps<string | undefined> {
  if (count === undefined) return undefined;
  let last = before;
  let left = COUNT_STEPS;
  for (let n = 0; n < count; n++) {
    const looking = search(last);
    let step = looking.next();
    for (; !step.done; step = looking.next()) {
      if (left-- === 0) throw invalidRule(`has a COUNT that takes too long to count; use a greater FREQ, or UNTIL`);
      yield;
    }
    if (step.value === undefined) break;
    last = Temporal.PlainDateTime.from(step.value);
  }
  return canonical(last);
}

/** A wall-clock time as it is stored and compared: with seconds. Throws INVALID_REQUEST when it is not one. */
export function wallTime(field: string, local: string): string {
  return canonical(plainTime(field, local));
}

function startOf(startTime: string): Temporal.PlainDateTime {
  return plainTime("schedule.local_start_time", startTime);
}

function plainTime(field: string, local: string): Temporal.PlainDateTime {
  try {
    return Temporal.PlainDateTime.from(local);
  } catch {
    throw invalidField(field, "is not a date and time, such as 2026-03-29T09:00");
  }
}

function isCostly(error: unknown): boolean {
  return error instanceof Error && /^Maximum /.test(error.message);
}

function canonical(time: Temporal.PlainDateTime): string {
  return time.toString({ smallestUnit: "second" });
}

function compact(time: Temporal.PlainDateTime): string {
  return canonical(time).replaceAll(/[-:]/g, "");
}

function dateOf(floating: Temporal.PlainDateTime): Date {
  return new Date(floating.toZonedDateTime("UTC").epochMilliseconds);
}
