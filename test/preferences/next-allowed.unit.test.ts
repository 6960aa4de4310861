import { create } from "@bufbuild/protobuf";
import fc from "fast-check";
import { Temporal } from "temporal-polyfill";
import { expect, test } from "vitest";
import { DoNotDisturbPeriodSchema } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { type ClockSettings, clockRules, patternFor } from "#src/preferences/clock-rules.ts";
import { isBlocked, nextAllowed } from "#src/preferences/next-allowed.ts";
import { zoneClock, zoneClocks } from "#src/preferences/zone-clock.ts";

const MINUTE = 60_000;

function settings(changes: {
  quiet?: [string, string];
  quietAllowsCritical?: boolean;
  periods?: {
    day: number;
    start: string;
    end: string;
    inactive?: boolean;
    allowCritical?: boolean;
    contacts?: boolean;
  }[];
  weekendsEnabled?: boolean;
  contacts?: string[];
}): ClockSettings {
  return {
    quietHours: {
      enabled: changes.quiet !== undefined,
      startTime: changes.quiet?.[0] ?? "22:00",
      endTime: changes.quiet?.[1] ?? "08:00",
      allowCritical: changes.quietAllowsCritical ?? true,
    },
    doNotDisturb: {
      enabled: changes.periods !== undefined,
      periods: (changes.periods ?? []).map(
        ({ day, start, end, inactive = false, allowCritical = true, contacts = false }) =>
          create(DoNotDisturbPeriodSchema, {
            dayOfWeek: day,
            startTime: start,
            endTime: end,
            inactive,
            allowCritical,
            allowEmergencyContacts: contacts,
          }),
      ),
    },
    emergencyContacts: { enabled: changes.contacts !== undefined, userIds: changes.contacts ?? [] },
    weekendsEnabled: changes.weekendsEnabled ?? true,
  };
}

/** The local time from which it is allowed, or undefined for never. */
function next(zone: string, from: string, changes: Parameters<typeof settings>[0], critical = false) {
  const rules = clockRules(settings(changes), () => zoneClock(zone));
  if (rules === undefined) return from;
  const instant = Temporal.ZonedDateTime.from(`${from}[${zone}]`).epochMilliseconds;
  const found = nextAllowed((critical ? rules.critical : rules.usual).all, rules.clock, instant);
  return found === undefined
    ? undefined
    : Temporal.Instant.fromEpochMilliseconds(found)
        .toZonedDateTimeISO(zone)
        .toString({ timeZoneName: "never", fractionalSecondDigits: 0 });
}

test.each<[string, string, string, Parameters<typeof settings>[0], string | undefined]>([
  ["before they begin", "UTC", "2026-01-07T21:59:59+00:00", { quiet: ["22:00", "08:00"] }, "2026-01-07T21:59:59+00:00"],
  [
    "from their first second",
    "UTC",
    "2026-01-07T22:00:00+00:00",
    { quiet: ["22:00", "08:00"] },
    "2026-01-08T08:00:00+00:00",
  ],
  ["after midnight", "UTC", "2026-01-08T07:59:59+00:00", { quiet: ["22:00", "08:00"] }, "2026-01-08T08:00:00+00:00"],
  ["within a day", "UTC", "2026-01-08T12:30:00+00:00", { quiet: ["12:00", "13:00"] }, "2026-01-08T13:00:00+00:00"],
  ["the whole day", "UTC", "2026-01-08T12:30:00+00:00", { quiet: ["12:00", "12:00"] }, undefined],
  [
    "half-hour zones",
    "Asia/Kolkata",
    "2026-01-08T23:15:00+05:30",
    { quiet: ["22:00", "06:45"] },
    "2026-01-09T06:45:00+05:30",
  ],
  [
    "an end in a spring gap waits for the gap's end",
    "Europe/Lisbon",
    "2026-03-29T00:30:00+00:00",
    { quiet: ["22:00", "01:30"] },
    "2026-03-29T02:00:00+01:00",
  ],
  [
    "an end in an autumn overlap is the first of the two",
    "Europe/Lisbon",
    "2026-10-25T00:30:00+01:00",
    { quiet: ["22:00", "01:30"] },
    "2026-10-25T01:30:00+01:00",
  ],
  [
    "the clock set back into what is quiet is quiet again",
    "Europe/Lisbon",
    "2026-10-25T01:00:00+00:00",
    { quiet: ["22:00", "01:30"] },
    "2026-10-25T01:30:00+00:00",
  ],
  [
    "the clock set back out of what is quiet is allowed",
    "Europe/Lisbon",
    "2026-10-25T01:45:00+01:00",
    { quiet: ["01:30", "05:00"] },
    "2026-10-25T01:00:00+00:00",
  ],
  [
    "a DST change of half an hour",
    "Australia/Lord_Howe",
    "2026-10-04T01:00:00+10:30",
    { quiet: ["00:00", "02:15"] },
    "2026-10-04T02:30:00+11:00",
  ],
  [
    "into a day that a zone left out waits for the next that it has",
    "Pacific/Apia",
    "2011-12-29T23:00:00-10:00",
    { quiet: ["22:00", "08:00"] },
    "2011-12-31T08:00:00+14:00",
  ],
  [
    "the weekend begins and ends first east of the date line",
    "Pacific/Kiritimati",
    "2026-01-10T00:00:00+14:00",
    { weekendsEnabled: false },
    "2026-01-12T00:00:00+14:00",
  ],
  [
    "and last west of it",
    "Pacific/Pago_Pago",
    "2026-01-10T00:00:00-11:00",
    { weekendsEnabled: false },
    "2026-01-12T00:00:00-11:00",
  ],
  [
    "weekends end on Monday",
    "America/New_York",
    "2026-01-10T00:00:00-05:00",
    { weekendsEnabled: false },
    "2026-01-12T00:00:00-05:00",
  ],
  [
    "the weekend by the user's calendar: Friday in New York",
    "America/New_York",
    "2026-01-09T23:59:59-05:00",
    { weekendsEnabled: false },
    "2026-01-09T23:59:59-05:00",
  ],
  [
    "quiet hours into a weekend into quiet hours",
    "Europe/Berlin",
    "2026-01-09T23:00:00+01:00",
    { quiet: ["22:00", "08:00"], weekendsEnabled: false },
    "2026-01-12T08:00:00+01:00",
  ],
  [
    "a period over the end of the week",
    "Europe/Berlin",
    "2026-01-11T01:00:00+01:00",
    { periods: [{ day: 6, start: "20:00", end: "09:00" }] },
    "2026-01-11T09:00:00+01:00",
  ],
  [
    "a period of 24 hours",
    "Europe/Berlin",
    "2026-01-07T09:00:00+01:00",
    { periods: [{ day: 3, start: "09:00", end: "09:00" }] },
    "2026-01-08T09:00:00+01:00",
  ],
  [
    "an inactive period",
    "Europe/Berlin",
    "2026-01-07T09:00:00+01:00",
    { periods: [{ day: 3, start: "09:00", end: "10:00", inactive: true }] },
    "2026-01-07T09:00:00+01:00",
  ],
])("holds: %s", (_, zone, from, changes, expected) => {
  expect(next(zone, from, changes)).toBe(expected);
});

test("CRITICAL passes weekends, and quiet hours and periods unless they refuse it", () => {
  const at = "2026-01-10T23:00:00+00:00";
  const quiet: [string, string] = ["22:00", "08:00"];
  const periods = [{ day: 6, start: "20:00", end: "09:00", allowCritical: true }];
  expect(next("UTC", at, { quiet, periods, weekendsEnabled: false }, true)).toBe(at);
  expect(next("UTC", at, { quiet, quietAllowsCritical: false }, true)).toBe("2026-01-11T08:00:00+00:00");
  const strict = [{ day: 6, start: "20:00", end: "09:00", allowCritical: false }];
  expect(next("UTC", at, { periods: strict }, true)).toBe("2026-01-11T09:00:00+00:00");
});

test("an emergency contact passes the periods that allow it, and neither quiet hours nor weekends", () => {
  const periods = [
    { day: 6, start: "20:00", end: "23:00", contacts: true },
    { day: 6, start: "22:00", end: "23:30", allowCritical: false },
  ];
  const at = (hour: string, changes: Parameters<typeof settings>[0], senderId: string, critical = false) => {
    const rules = clockRules(settings({ contacts: ["mum"], ...changes }), () => zoneClock("UTC"));
    const instant = Date.parse(`2026-01-10T${hour}:00Z`);
    if (rules === undefined) throw new Error("no rules");
    return isBlocked(patternFor(rules, { critical, senderId }).all, rules.clock, instant);
  };
  expect(at("21:00", { periods }, "mum")).toBe(false);
  expect(at("21:00", { periods }, "boss")).toBe(true);
  expect(at("22:30", { periods }, "mum")).toBe(true);
  expect(at("22:30", { periods }, "mum", true)).toBe(true);
  expect(at("21:00", { periods, weekendsEnabled: false }, "mum")).toBe(true);
  expect(at("22:30", { periods: periods.slice(0, 1), quiet: ["22:00", "08:00"] }, "mum")).toBe(true);
});

test("no clock is made when no rule is switched on", () => {
  const rules = clockRules(settings({}), () => {
    throw new Error("not needed");
  });
  expect(rules).toBeUndefined();
});

// The oracle knows nothing of blocks, offsets or Temporal: it reads the wall clock minute by minute.

const ZONES = [...Intl.supportedValuesOf("timeZone"), "Asia/Calcutta", "EST5EDT"];
const clocks = zoneClocks();

function wallClock(zone: string): (instant: number) => { day: number; minute: number } {
  const format = new Intl.DateTimeFormat("en-US", {
    timeZone: zone,
    weekday: "short",
    hour: "2-digit",
    minute: "2-digit",
    hourCycle: "h23",
  });
  return (instant) => {
    const [, weekday = "", hour, minute] = /^(\w+)[^0-9]+(\d+):(\d+)/.exec(format.format(instant)) ?? [];
    return {
      day: ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"].indexOf(weekday),
      minute: Number(hour) * 60 + Number(minute),
    };
  };
}

type About = { critical: boolean; senderId: string | undefined };

function waits(rules: ClockSettings, { day, minute }: { day: number; minute: number }, about: About): boolean {
  const of = (time = "") => Number(time.split(":")[0]) * 60 + Number(time.split(":")[1]);
  const { enabled, startTime, endTime } = rules.quietHours;
  const [start, end] = [of(startTime), of(endTime)];
  const contact =
    rules.emergencyContacts.enabled && rules.emergencyContacts.userIds.some((userId) => userId === about.senderId);
  const quiet = enabled && !(about.critical && rules.quietHours.allowCritical);
  if (quiet && (start < end ? minute >= start && minute < end : minute >= start || minute < end)) return true;
  if (!rules.weekendsEnabled && !about.critical && (day === 0 || day === 6)) return true;
  return rules.doNotDisturb.periods.some((period) => {
    const [from, to] = [of(period.startTime), of(period.endTime)];
    if (period.inactive || (about.critical && period.allowCritical)) return false;
    if (contact && period.allowEmergencyContacts) return false;
    if (from < to) return day === period.dayOfWeek && minute >= from && minute < to;
    return (day === period.dayOfWeek && minute >= from) || (day === (period.dayOfWeek + 1) % 7 && minute < to);
  });
}

const time = fc
  .tuple(fc.integer({ min: 0, max: 23 }), fc.constantFrom(0, 0, 15, 30, 59))
  .map(([hour, minute]) => `${String(hour).padStart(2, "0")}:${String(minute).padStart(2, "0")}`);
/** Minutes around changes of the offset, where there are any: the first of the year, or of its second half. */
const moment = fc.record({
  year: fc.integer({ min: 2005, max: 2036 }),
  month: fc.constantFrom(0, 6),
  shift: fc.integer({ min: -3 * 24 * 60, max: 2 * 24 * 60 }),
});
const rules = fc
  .record({
    quiet: fc.option(fc.tuple(time, time), { nil: undefined }),
    periods: fc.option(
      fc.array(
        fc.record({
          day: fc.integer({ min: 0, max: 6 }),
          start: time,
          end: time,
          inactive: fc.boolean(),
          allowCritical: fc.boolean(),
          contacts: fc.boolean(),
        }),
        { maxLength: 4 },
      ),
      { nil: undefined },
    ),
    weekendsEnabled: fc.boolean(),
    quietAllowsCritical: fc.boolean(),
    contacts: fc.option(fc.subarray(["mum", "dad"]), { nil: undefined }),
  })
  .map(({ quiet, periods, contacts, ...rest }) =>
    settings({ ...rest, ...(quiet && { quiet }), ...(periods && { periods }), ...(contacts && { contacts }) }),
  );
const about = fc.record({ critical: fc.boolean(), senderId: fc.constantFrom(undefined, "mum", "dad", "boss") });

test("the next allowed instant is what a scan minute by minute finds, in every zone and around its changes", () => {
  for (const zone of ZONES) {
    const wall = wallClock(zone);
    fc.assert(
      fc.property(fc.constant(zone), moment, rules, about, (_, { year, month, shift }, chosen, asked) => {
        const compiled = clockRules(chosen, () => clocks(zone));
        if (compiled === undefined) return;
        const begin = Date.UTC(year, month, 1);
        const { until } = clocks(zone).stretchAt(begin);
        const change = until < begin + 400 * 24 * 60 * MINUTE ? until : begin;
        const from = change + shift * MINUTE;
        const limit = from + 16 * 24 * 60 * MINUTE;
        let scanned = from;
        while (scanned < limit && waits(chosen, wall(scanned), asked)) scanned += MINUTE;
        const pattern = patternFor(compiled, asked);
        expect(isBlocked(pattern.all, compiled.clock, from)).toBe(scanned > from);
        const found = nextAllowed(pattern.all, compiled.clock, from);
        if (scanned < limit) expect(found).toBe(scanned);
        else expect(found === undefined || found >= limit).toBe(true);
      }),
      { numRuns: 5 },
    );
  }
}, 120_000);

test("the search ends also where only a spring gap is allowed", () => {
  // Quiet but for 01:15–01:45, which on the last Sunday of March does not happen in Lisbon.
  expect(next("Europe/Lisbon", "2026-03-29T00:30:00+00:00", { quiet: ["01:45", "01:15"] })).toBe(
    "2026-03-30T01:15:00+01:00",
  );
});
