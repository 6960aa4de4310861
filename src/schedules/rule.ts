import { Temporal } from "temporal-polyfill";
import { invalidField } from "#src/errors.ts";

/** A recurrence rule (RFC 5545 §3.3.10) that was read. */
export type Rule = {
  freq: Freq;
  interval: number;
  /** Kept apart: see `Recurrence.final`. */
  count: number | undefined;
  /** All its parts but COUNT, as they were written. */
  parts: ReadonlyMap<string, string>;
};

export type Freq = "YEARLY" | "MONTHLY" | "WEEKLY" | "DAILY" | "HOURLY";

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

/** Times that a rule may name within one period of its FREQ: all of a period are looked through to find one. */
const MOST_TIMES = 1000;
/** The same with BYSETPOS, which looks through them whether it finds one or not: the days of a year. */
const MOST_TIMES_TO_CHOOSE_FROM = 366;
/** Positions that BYSETPOS may name: for each one the period is gone through again. */
const MOST_POSITIONS = 12;

/** Throws INVALID_REQUEST naming the field when it is no rule. */
export function readRule(rule: string): Rule {
  const parts = new Map<string, string>();
  for (const part of rule.toUpperCase().split(";")) {
    const [name = "", value = "", ...more] = part.split("=");
    const known = Object.hasOwn(NUMBERS, name) || Object.hasOwn(WORDS, name);
    if (!known)
      throw invalidRule(`has a part that is not one of ${[...Object.keys(WORDS), ...Object.keys(NUMBERS)].join(", ")}`);
    if (parts.has(name)) throw invalidRule(`says ${name} twice`);
    if (more.length > 0 || !isValue(name, value))
      throw invalidRule(`has ${/^[IU]/.test(name) ? "an" : "a"} ${name} that is not allowed`);
    parts.set(name, name === "UNTIL" ? until(value) : value);
  }
  if (!parts.has("FREQ")) throw invalidRule("needs a FREQ");
  if (parts.has("COUNT") && parts.has("UNTIL")) throw invalidRule("can have COUNT or UNTIL, not both");
  const count = parts.get("COUNT");
  parts.delete("COUNT");
  return {
    freq: parts.get("FREQ") as Freq,
    interval: Number(parts.get("INTERVAL") ?? 1),
    count: count === undefined ? undefined : Number(count),
    parts,
  };
}

export function textOf({ parts }: Rule): string {
  return [...parts].map(([name, value]) => `${name}=${value}`).join(";");
}

/**
 * Refuses what would take too long to look through, before anything is looked for. Throws INVALID_REQUEST naming the field
 * and what to write instead.
 */
export function checkEffort(rule: Rule): void {
  const times = timesInPeriod(rule);
  const most = rule.parts.has("BYSETPOS") ? MOST_TIMES_TO_CHOOSE_FROM : MOST_TIMES;
  if (times > most)
    throw invalidRule(`names up to ${times} times in one period; more than ${most} need a smaller FREQ`);
  const positions = listed(rule, "BYSETPOS").map((position) => Math.abs(Number(position)));
  if (positions.length > MOST_POSITIONS) throw invalidRule(`has more than ${MOST_POSITIONS} positions in BYSETPOS`);
  if (positions.some((position) => position > times))
    throw invalidRule(`has a BYSETPOS beyond the ${times} times that it names in one period at most`);
  if (rule.freq !== "HOURLY") return;
  // What is left hourly by `byDays` would be looked for hour by hour, through years.
  const whole = 24 % rule.interval === 0;
  if (rule.parts.has("BYYEARDAY")) throw invalidRule("can have BYYEARDAY with FREQ=YEARLY and BYHOUR, not by the hour");
  if (!whole && (rule.parts.has("BYMONTH") || rule.parts.has("BYMONTHDAY")))
    throw invalidRule("can have BYMONTH and BYMONTHDAY by the hour only with an INTERVAL that divides 24");
}

/** Refuses days of a year of which the library finds others than those that all of the parts name. */
export function checkDays(rule: Rule): void {
  if (rule.freq !== "YEARLY") return;
  const has = (name: string) => rule.parts.has(name);
  const counted = listed(rule, "BYDAY").flatMap((day) => Math.abs(Number.parseInt(day, 10)) || []);
  if (has("BYYEARDAY") && ["BYWEEKNO", "BYMONTHDAY", "BYDAY"].some(has))
    throw invalidRule("can have BYYEARDAY, or BYWEEKNO, BYMONTHDAY and BYDAY, not both");
  if (has("BYWEEKNO") && has("BYMONTHDAY")) throw invalidRule("can have BYWEEKNO or BYMONTHDAY, not both");
  if (counted.length === 0) return;
  if (counted.length < listed(rule, "BYDAY").length)
    throw invalidRule("can have numbers for all days of BYDAY or for none");
  if (has("BYMONTH")) return;
  if (has("BYMONTHDAY")) throw invalidRule("can have a number in BYDAY beside BYMONTHDAY only with a BYMONTH");
  if (counted.some((number) => number > 52))
    throw invalidRule("has a BYDAY beyond the 52nd of a year; the last of a year is -1");
}

/** Refuses what would be looked for through all years: days that none of the months named has, however long it is. */
export function checkMonths(rule: Rule): void {
  const months = listed(rule, "BYMONTH").map(Number);
  const days = listed(rule, "BYMONTHDAY").map((day) => Math.abs(Number(day)));
  if (months.length === 0 || days.length === 0) return;
  const longest = Math.max(...months.map((month) => new Temporal.PlainDate(LEAP_YEAR, month, 1).daysInMonth));
  if (Math.min(...days) > longest) throw invalidRule("names no day that its months have");
}

const LEAP_YEAR = 2000;

/** Says the weekday where a rule names weeks alone: it is that of the start. */
export function onWeekday(rule: Rule, start: Temporal.PlainDateTime): Rule {
  const weeksAlone = rule.parts.has("BYWEEKNO") && !rule.parts.has("BYDAY");
  return weeksAlone
    ? { ...rule, parts: new Map(rule.parts).set("BYDAY", WEEKDAYS[start.dayOfWeek - 1] ?? "MO") }
    : rule;
}

const WEEKDAYS = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"];

/**
 * The same occurrences said by the day where a rule goes by the hour: days that have none are passed over as days. Only
 * where every day has the same hours; else the rule as it is.
 */
export function byDays(rule: Rule, start: Temporal.PlainDateTime): Rule {
  if (rule.freq !== "HOURLY" || 24 % rule.interval !== 0 || rule.parts.has("BYYEARDAY")) return rule;
  const asked = listed(rule, "BYHOUR").map(Number);
  const hours = Array.from({ length: 24 }, (_, hour) => hour).filter(
    (hour) => (hour - start.hour) % rule.interval === 0 && (asked.length === 0 || asked.includes(hour)),
  );
  const named = [...new Set(listed(rule, "BYMINUTE").map(Number))].sort((a, b) => a - b);
  const minutes = chosen(named.length === 0 ? [start.minute] : named, listed(rule, "BYSETPOS").map(Number));
  if (hours.length === 0 || minutes.length === 0) return rule;
  const parts = new Map(rule.parts).set("FREQ", "DAILY").set("BYHOUR", `${hours}`).set("BYMINUTE", `${minutes}`);
  parts.delete("INTERVAL");
  parts.delete("BYSETPOS");
  return { ...rule, freq: "DAILY", interval: 1, parts };
}

function chosen(minutes: readonly number[], positions: readonly number[]): readonly number[] {
  if (positions.length === 0) return minutes;
  return minutes.filter((_, n) => positions.includes(n + 1) || positions.includes(n - minutes.length));
}

/** How many times a period of the rule's FREQ has at most. */
export function timesInPeriod(rule: Rule): number {
  const many = (name: string) => Math.max(1, listed(rule, name).length);
  const hours = rule.freq === "HOURLY" ? 1 : many("BYHOUR");
  return daysInPeriod(rule, many) * hours * many("BYMINUTE");
}

function daysInPeriod(rule: Rule, many: (name: string) => number): number {
  const has = (name: string) => rule.parts.has(name);
  /** Of the days that BYDAY names, when each comes so often. */
  const weekdays = (each: number, ordinal: number) =>
    listed(rule, "BYDAY").reduce((sum, day) => sum + (/\d/.test(day) ? ordinal : each), 0);
  switch (rule.freq) {
    case "HOURLY":
    case "DAILY":
      return 1;
    case "WEEKLY":
      return many("BYDAY");
    case "MONTHLY":
      return Math.min(31, has("BYMONTHDAY") ? many("BYMONTHDAY") : has("BYDAY") ? weekdays(5, 1) : 1);
    case "YEARLY": {
      const months = has("BYMONTH") ? many("BYMONTH") : 12;
      if (has("BYYEARDAY")) return many("BYYEARDAY");
      if (has("BYWEEKNO")) return Math.min(366, many("BYWEEKNO") * Math.max(7, many("BYDAY")));
      if (has("BYMONTHDAY")) return Math.min(366, months * many("BYMONTHDAY"));
      if (has("BYDAY")) return Math.min(366, has("BYMONTH") ? months * weekdays(5, 1) : weekdays(53, 1));
      return many("BYMONTH");
    }
  }
}

function listed({ parts }: Rule, name: string): string[] {
  return parts.get(name)?.split(",") ?? [];
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

export function invalidRule(description: string) {
  return invalidField("schedule.recurrence", description);
}
