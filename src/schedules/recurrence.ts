import { RRuleTemporal } from "rrule-temporal";
import { Temporal } from "temporal-polyfill";
import { invalidField } from "#src/errors.ts";

/**
 * A recurrence rule (RFC 5545 §3.3.10) on floating time: its occurrences are wall-clock times ("2026-03-29T09:00:00"), and
 * which instants they are is asked of a zone later. So one rule serves the recipients of all zones, and gaps and overlaps
 * are read as everywhere else (`instantOfLocal`), where RFC 5545 leaves out what falls into a gap.
 */
export type Recurrence = {
  /** The first occurrence after a wall-clock time; undefined when there is none. Throws TooSeldom when that is not known. */
  after(local: string): string | undefined;
  /** With a COUNT: the last occurrence. */
  readonly final: string | undefined;
};

/** Rule parts that are lists of numbers: least, greatest, whether they count from the end too, and how many are allowed. */
const NUMBERS: Record<string, { min: number; max: number; signed?: boolean; most: number }> = {
  BYMONTH: { min: 1, max: 12, most: 12 },
  BYWEEKNO: { min: 1, max: 53, signed: true, most: 106 },
  BYYEARDAY: { min: 1, max: 366, signed: true, most: 366 },
  BYMONTHDAY: { min: 1, max: 31, signed: true, most: 62 },
  BYHOUR: { min: 0, max: 23, most: 24 },
  BYMINUTE: { min: 0, max: 59, most: 4 },
  BYSETPOS: { min: 1, max: 366, signed: true, most: 366 },
  INTERVAL: { min: 1, max: 1000, most: 1 },
  COUNT: { min: 1, max: 366, most: 1 },
};

const WORDS: Record<string, RegExp> = {
  FREQ: /^(YEARLY|MONTHLY|WEEKLY|DAILY|HOURLY)$/,
  BYDAY: /^([+-]?[1-9]\d?)?(MO|TU|WE|TH|FR|SA|SU)(,([+-]?[1-9]\d?)?(MO|TU|WE|TH|FR|SA|SU)){0,49}$/,
  WKST: /^(MO|TU|WE|TH|FR|SA|SU)$/,
  UNTIL: /^\d{8}(T\d{6})?$/,
};

const FIRST_YEAR = 2000;
const LAST_YEAR = 9999;
/** Bounds what looking for an occurrence costs: some tens of milliseconds for a rule that has none. */
const COST = { maxIterations: 1000, maxCandidateEvaluations: 50_000 };
/**
 * And where that did not do, in days or hours, once more: the 40 years from one 29 February on a Thursday to the next, and
 * more than a year of hours. Some tens of milliseconds for days, some hundreds for hours.
 */
const PATIENCE: Record<string, number> = { DAILY: 15_000, HOURLY: 10_000 };

/** Whether there is a further occurrence was not found out within what may be spent on looking. */
export class TooSeldom extends Error {}

/**
 * Throws INVALID_REQUEST naming the field when the rule is not one, or not one that is allowed. A COUNT is counted from the
 * start, once: give the `final` occurrence that was found where it is known.
 */
export function recurrence(rule: string, startTime: string, final?: string): Recurrence {
  const start = plainTime("schedule.local_start_time", startTime);
  if (start.year < FIRST_YEAR)
    throw invalidField("schedule.local_start_time", `must not lie before the year ${FIRST_YEAR}`);
  const { count, ...checked } = checkedRule(rule);
  const rruleString = `DTSTART:${compact(start)}Z\nRRULE:${checked.rule}`;
  const rulesAt = (cost: typeof COST) =>
    new RRuleTemporal({ rruleString, temporal: Temporal, cache: false, strict: true, ...cost });
  let rules: RRuleTemporal<Temporal.ZonedDateTime>;
  try {
    rules = rulesAt(COST);
    // Some contradictions only show when it is asked.
    rules.next(dateOf(start.subtract({ seconds: 1 })), false);
  } catch (error) {
    if (!isCostly(error)) throw invalidRule(error instanceof Error ? error.message.slice(0, 200) : "is not a rule");
  }
  const before = start.subtract({ seconds: 1 });
  const search = (by: typeof rules, from: Temporal.PlainDateTime): string | undefined => {
    const next = by.next(dateOf(Temporal.PlainDateTime.compare(from, before) < 0 ? before : from), false);
    return next == null || next.year > LAST_YEAR ? undefined : canonical(next.toPlainDateTime());
  };
  let patient: typeof rules | undefined;
  const nextOf = (from: Temporal.PlainDateTime): string | undefined => {
    try {
      return search(rules, from);
    } catch (error) {
      // None that a calendar holds.
      if (!isCostly(error)) return undefined;
    }
    try {
      patient ??= rulesAt({ ...COST, maxIterations: PATIENCE[checked.freq] ?? COST.maxIterations });
      return search(patient, from);
    } catch (error) {
      if (isCostly(error)) throw new TooSeldom(`no occurrence of ${checked.rule} found from ${canonical(from)} on`);
      return undefined;
    }
  };
  const last = final ?? lastOf(count, canonical(before), nextOf);
  return {
    final: last,
    after(local) {
      const next = nextOf(Temporal.PlainDateTime.from(local));
      return next === undefined || (last !== undefined && next > last) ? undefined : next;
    },
  };
}

/**
 * The last of so many occurrences. Looked for one by one: the library would count from the start whenever it is asked, and
 * give up on a rule that has run for years.
 */
function lastOf(
  count: number | undefined,
  before: string,
  nextOf: (from: Temporal.PlainDateTime) => string | undefined,
): string | undefined {
  if (count === undefined) return undefined;
  let last = before;
  for (let n = 0; n < count; n++) {
    const next = nextOf(Temporal.PlainDateTime.from(last));
    if (next === undefined) break;
    last = next;
  }
  return last;
}

/** A wall-clock time as it is stored and compared: with seconds. Throws INVALID_REQUEST when it is not one. */
export function wallTime(field: string, local: string): string {
  return canonical(plainTime(field, local));
}

/** The rule without its COUNT, which is kept apart. */
function checkedRule(rule: string): { rule: string; freq: string; count: number | undefined } {
  const parts = new Map<string, string>();
  for (const part of rule.toUpperCase().split(";")) {
    const [name = "", value = "", ...more] = part.split("=");
    const known = Object.hasOwn(NUMBERS, name) || Object.hasOwn(WORDS, name);
    if (!known)
      throw invalidRule(`has a part that is not one of ${[...Object.keys(WORDS), ...Object.keys(NUMBERS)].join(", ")}`);
    if (parts.has(name)) throw invalidRule(`says ${name} twice`);
    if (more.length > 0 || !isValue(name, value)) throw invalidRule(`has a ${name} that is not allowed`);
    parts.set(name, name === "UNTIL" ? until(value) : value);
  }
  if (!parts.has("FREQ")) throw invalidRule("needs a FREQ");
  if (parts.has("COUNT") && parts.has("UNTIL")) throw invalidRule("can have COUNT or UNTIL, not both");
  const count = parts.get("COUNT");
  parts.delete("COUNT");
  const text = [...parts].map(([name, value]) => `${name}=${value}`).join(";");
  return { rule: text, freq: parts.get("FREQ") ?? "", count: count === undefined ? undefined : Number(count) };
}

function isValue(name: string, value: string): boolean {
  const numbers = NUMBERS[name];
  if (numbers === undefined) return WORDS[name]?.test(value) === true;
  const items = value.split(",");
  return (
    items.length <= numbers.most &&
    items.every((item) => {
      if (!(numbers.signed === true ? /^[+-]?\d{1,4}$/ : /^\d{1,4}$/).test(item)) return false;
      const size = Math.abs(Number(item));
      return size >= numbers.min && size <= numbers.max;
    })
  );
}

/** A date includes its day. The Z makes it of the same, floating, kind as the start. */
function until(value: string): string {
  const [date = "", time = "235959"] = value.split("T");
  const iso = `${date.slice(0, 4)}-${date.slice(4, 6)}-${date.slice(6)}T${time.slice(0, 2)}:${time.slice(2, 4)}:${time.slice(4)}`;
  try {
    Temporal.PlainDateTime.from(iso, { overflow: "reject" });
  } catch {
    throw invalidRule("has an UNTIL that is not a date or a time");
  }
  return `${date}T${time}Z`;
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

function invalidRule(description: string) {
  return invalidField("schedule.recurrence", description);
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
