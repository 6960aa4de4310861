import fc from "fast-check";
import { expect, test } from "vitest";
import { Channel } from "#gen/posthorn/v1/notification_pb.ts";
import type { DoNotDisturbPeriod } from "#gen/posthorn/v1/preferences_service_pb.ts";
import {
  type Asking,
  dayOf,
  HORIZON_DAYS,
  lowest,
  type Places,
  startOf,
  takePlace,
  turnOf,
} from "#src/limits/channel-day.ts";
import { clockRules, closedDays } from "#src/preferences/clock-rules.ts";
import { nextAllowed } from "#src/preferences/next-allowed.ts";
import { zoneClock } from "#src/preferences/zone-clock.ts";

const TODAY = 20_000;
const asking = (tag: string, more: Partial<Asking> = {}): Asking => ({
  ...{ tag, userId: "ann", channel: Channel.SMS, limit: 2, exempt: false },
  ...{ today: TODAY, closedDays: 0, lastDay: undefined, ...more },
});
const days = (places: Places, tags: readonly string[], more: Partial<Asking> = {}) =>
  tags.map((tag) => takePlace(places, asking(tag, more)).day - (more.today ?? TODAY));

test("what finds its day full gets the next with room, and keeps it however often it asks", () => {
  const places: Places = new Map();
  expect(days(places, ["a", "b", "c", "d", "e"])).toEqual([0, 0, 1, 1, 2]);
  expect(days(places, ["a", "b", "c", "d", "e"])).toEqual([0, 0, 1, 1, 2]);
  expect(days(places, ["c", "e", "d"], { today: TODAY + 1 })).toEqual([0, 1, 0]);
});

test("with more room a day takes in who waits for another, who leaves that", () => {
  const places: Places = new Map();
  expect(days(places, ["a", "b", "c", "d", "e"])).toEqual([0, 0, 1, 1, 2]);
  expect(days(places, ["c"], { limit: 3 })).toEqual([0]);
  expect(days(places, ["e"])).toEqual([1]);
});

test("those that ask again keep their turns in their day, and none comes twice at the same", () => {
  const places: Places = new Map();
  const turns = (tags: readonly string[]) => tags.map((tag) => takePlace(places, asking(tag)).nth);
  days(places, ["a", "b", "c", "d"]);
  expect(turns(["c", "d"])).toEqual([0, 1]);
  // It leaves the day; who comes after it stays behind who was there.
  expect(days(places, ["c"], { limit: 3 })).toEqual([0]);
  expect(turns(["e", "d", "e"])).toEqual([1, 0, 1]);
});

test("a lower limit holds for those too that had been given more room", () => {
  const places: Places = new Map();
  expect(days(places, ["a", "b", "c", "d", "e", "f"], { limit: 3 })).toEqual([0, 0, 0, 1, 1, 1]);
  expect(days(places, ["d", "e", "f"], { limit: 1 })).toEqual([1, 2, 3]);
  // Nor may one go that has not asked since, once its day has come.
  days(places, ["g", "h"], { limit: 3 });
  expect(days(places, ["d", "g", "h"], { today: TODAY + 1, limit: 2 })).toEqual([0, 0, 1]);
});

test("what is CRITICAL goes and is counted", () => {
  const places: Places = new Map();
  expect(days(places, ["a", "b"], { exempt: true })).toEqual([0, 0]);
  expect(takePlace(places, asking("c"))).toEqual({ day: TODAY + 1, used: 2, nth: 0, taken: true });
  expect(days(places, ["d"], { exempt: true })).toEqual([0]);
});

test("nobody takes a place that comes too late, or too far ahead", () => {
  const places: Places = new Map();
  days(places, ["a"], { limit: 1 });
  expect(takePlace(places, asking("b", { limit: 1, lastDay: TODAY }))).toMatchObject({ day: TODAY + 1, taken: false });
  expect(days(places, ["c"], { limit: 1 })).toEqual([1]);
  for (let n = 2; n <= HORIZON_DAYS; n++) takePlace(places, asking(`more-${n}`, { limit: 1 }));
  expect(takePlace(places, asking("z", { limit: 1 })).taken).toBe(false);
});

test("what finds no place any more gives up the one that it had", () => {
  const places: Places = new Map();
  expect(days(places, ["a", "b", "c", "d", "e"])).toEqual([0, 0, 1, 1, 2]);
  expect(takePlace(places, asking("d", { limit: 1, lastDay: TODAY + 1 }))).toMatchObject({ taken: false });
  expect(days(places, ["f"])).toEqual([1]);
});

/** TODAY is a Friday. */
const WEEKEND = 0b1000001;

test("nothing has its place on a day that the clock rules close, but today", () => {
  const places: Places = new Map();
  const weekend = { limit: 1, closedDays: WEEKEND };
  expect(days(places, ["sent", "a", "b", "c"], weekend)).toEqual([0, 3, 4, 5]);
  expect(days(places, ["a", "b", "c"], { ...weekend, today: TODAY + 3 })).toEqual([0, 1, 2]);
  // One that was given a day which is closed since leaves it.
  expect(days(places, ["c"], { limit: 1, closedDays: 1 << 3, today: TODAY + 3 })).toEqual([3]);
  expect(days(new Map(), ["a", "b"], { limit: 1, closedDays: 127 })).toEqual([0, HORIZON_DAYS + 1]);
});

const time = fc.integer({ min: 0, max: 24 * 60 - 1 }).map((minute) => {
  const two = (n: number) => String(n).padStart(2, "0");
  return `${two(Math.floor(minute / 60))}:${two(minute % 60)}`;
});

test("turns of open days lie in them, so that who waited first comes first whatever the clock rules are", () => {
  const rules = fc.record({
    weekendsEnabled: fc.boolean(),
    quietHours: fc.record({ enabled: fc.boolean(), startTime: time, endTime: time }),
    periods: fc.array(
      fc.record({ dayOfWeek: fc.nat({ max: 6 }), startTime: time, endTime: time }).map((period) => ({
        ...period,
        inactive: false,
      })),
      { maxLength: 3 },
    ),
  });
  fc.assert(
    fc.property(rules, fc.nat({ max: 6 }), fc.nat({ max: 65_535 }), fc.nat({ max: 3 }), (made, weekday, phase, nth) => {
      const doNotDisturb = { enabled: true, periods: made.periods as DoNotDisturbPeriod[] };
      const emergencyContacts = { enabled: false, userIds: [] };
      const blocks = clockRules({ ...made, doNotDisturb, emergencyContacts }, () => zoneClock("UTC"))?.usual.all ?? [];
      const clock = zoneClock("UTC");
      const allowed = (from: number) => nextAllowed(blocks, clock, from) ?? from;
      const day = TODAY + weekday;
      const closed = (closedDays(blocks) >> new Date(startOf(clock, day)).getUTCDay()) & 1;
      const turn = turnOf({ day, used: 0, nth, taken: true }, { limit: 4, phase, clock, allowed });
      fc.pre(closedDays(blocks) !== 127);
      expect(dayOf(clock, turn) === day).toBe(closed === 0);
    }),
  );
});

const zone = fc.constantFrom(
  "UTC",
  "Europe/Berlin",
  "Asia/Kolkata",
  "America/Sao_Paulo",
  "Pacific/Apia",
  "Asia/Beirut",
);
const instant = fc.integer({ min: Date.parse("2010-01-01T00:00:00Z"), max: Date.parse("2030-01-01T00:00:00Z") });

test("a day begins with its first instant, whatever the clocks do then", () => {
  fc.assert(
    fc.property(zone, instant, (name, at) => {
      const clock = zoneClock(name);
      const day = dayOf(clock, at);
      const start = startOf(clock, day);
      expect(start).toBeLessThanOrEqual(at);
      expect(dayOf(clock, start)).toBe(day);
      expect(dayOf(clock, start - 1)).toBeLessThan(day);
    }),
  );
});

test("turns lie in the first hour that is allowed, in their order, and not all users' at once", () => {
  const clock = zoneClock("Europe/Berlin");
  const opens = startOf(clock, TODAY) + 8 * 3_600_000;
  const turn = (nth: number, phase: number) =>
    turnOf(
      { day: TODAY, used: 9, nth, taken: true },
      { limit: 4, phase, clock, allowed: (from) => Math.max(from, opens) },
    );
  const turns = [turn(0, 0), turn(0, 40_000), turn(1, 0), turn(3, 65_535)];
  expect(turns.toSorted((a, b) => a - b)).toEqual(turns);
  expect(turns[0]).toBe(opens);
  expect(new Set(turns).size).toBe(4);
  expect(turns.at(-1)).toBeLessThan(opens + 3_600_000);
});

test("of several limits the lowest holds, and none is none", () => {
  expect([lowest(), lowest(0, undefined), lowest(0, 3), lowest(5, 3)]).toEqual([0, 0, 3, 3]);
});
