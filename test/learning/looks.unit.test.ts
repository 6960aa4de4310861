import fc from "fast-check";
import { Temporal } from "temporal-polyfill";
import { describe, expect, test } from "vitest";
import { isGoodMoment, nextGoodMoment, placeOf } from "#src/learning/good-moment.ts";
import {
  CELLS,
  countedAt,
  type DayHours,
  ENOUGH_LOOKS,
  ENOUGH_MS,
  goodHours,
  goodHoursLike,
  HALF_LIFE_MS,
  isGood,
  type Looks,
  localHour,
} from "#src/learning/looks.ts";
import { type Blocks, WEEK } from "#src/preferences/clock-rules.ts";
import { isBlocked } from "#src/preferences/next-allowed.ts";
import { zoneClocks } from "#src/preferences/zone-clock.ts";

const ZONES = Intl.supportedValuesOf("timeZone");
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const clocks = zoneClocks();
const NOW = new Date("2026-12-01T10:20:00Z");

const there = (zone: string, ms: number) => Temporal.Instant.fromEpochMilliseconds(ms).toZonedDateTimeISO(zone);

/** The cell of an instant, as a calendar has it. */
function cellOf(zone: string, ms: number): number {
  const { hour, dayOfWeek } = there(zone, ms);
  return (dayOfWeek >= 6 ? 24 : 0) + hour;
}

/** Some minutes about a change of the zone's offset, if there is one in the year. */
const moment = fc.record({
  day: fc.integer({ min: 0, max: 365 }),
  shift: fc.integer({ min: -3 * 24 * 60, max: 3 * 24 * 60 }),
});
function instantOf(zone: string, { day, shift }: { day: number; shift: number }): number {
  const begin = Date.UTC(2026, 0, 1) + day * DAY;
  const { until } = clocks(zone).stretchAt(begin);
  return (until < begin + 400 * DAY ? until : begin) + shift * MINUTE;
}

test("the hour of an instant is what the wall clock shows, in every zone and around its changes", () => {
  for (const zone of ZONES) {
    fc.assert(
      fc.property(moment, (chosen) => {
        const at = instantOf(zone, chosen);
        const { cell, beginsAt } = localHour(at, clocks(zone).stretchAt(at).offsetMs);
        expect(cell).toBe(cellOf(zone, at));
        const { minute, second, millisecond } = there(zone, at);
        expect(at - beginsAt).toBe(minute * MINUTE + second * 1000 + millisecond);
      }),
      { numRuns: 8 },
    );
  }
}, 120_000);

/** Looks of now, that count as they are. */
function looksOf(counts: Record<number, number>, { over = ENOUGH_MS, ago = 0 } = {}): Looks {
  const weights = Array.from({ length: CELLS }, (_, cell) => counts[cell] ?? 0);
  const lastHour = new Date(NOW.getTime() - ago);
  const since = new Date(lastHour.getTime() - over);
  const scale = 2 ** (over / HALF_LIFE_MS);
  return { userId: "ann", weights: weights.map((count) => count * scale), since, lastHour };
}
const SATURDAY = 24;
const hoursOf = (good: DayHours | undefined) =>
  good && { weekday: goodHoursLike(good, 0), weekend: goodHoursLike(good, SATURDAY) };

describe("good hours", () => {
  test("are those with half of the looks of the best", () => {
    expect(
      hoursOf(goodHours(looksOf({ 8: 10, 9: 20, 12: 9.9, 20: 10, [SATURDAY + 11]: 40, [SATURDAY + 9]: 1 }), NOW)),
    ).toEqual({
      weekday: [8, 9, 20],
      weekend: [11],
    });
  });
  test("are among those in which the user looks at all, with a tenth of the looks of the best", () => {
    const looks = looksOf({ 7: 1.9, 8: 2.1, 9: 20, 20: 19, [SATURDAY + 11]: 40, [SATURDAY + 9]: 3.9 });
    expect(hoursOf(goodHours(looks, NOW)?.awake)).toEqual({ weekday: [8, 9, 20], weekend: [11] });
  });
  test("are the same on all days where one kind of them is little known", () => {
    expect(hoursOf(goodHours(looksOf({ 9: 20.5, [SATURDAY + 11]: 10.5 }), NOW))).toEqual({
      weekday: [9],
      weekend: [9, 11],
    });
  });
  test("need enough looks, over long enough, that still count", () => {
    expect(goodHours(looksOf({ 9: ENOUGH_LOOKS + 0.1 }), NOW)).toBeDefined();
    expect(goodHours(looksOf({ 9: ENOUGH_LOOKS - 0.1 }), NOW)).toBeUndefined();
    expect(goodHours(looksOf({ 9: 50 }, { over: ENOUGH_MS - 1 }), NOW)).toBeUndefined();
    expect(goodHours(looksOf({ 9: 50 }, { ago: 3 * HALF_LIFE_MS }), NOW)).toBeUndefined();
  });
  test("a look counts half after each half-life", () => {
    const looks: Looks = { userId: "ann", weights: [1, 2, 0], since: NOW, lastHour: NOW };
    const later = countedAt(looks, new Date(NOW.getTime() + HALF_LIFE_MS));
    expect(later.slice(0, 3)).toEqual([0.5, 1, 0]);
  });
  test("there is at least one, and a better hour is never worse", () => {
    const count = fc.double({ min: 0, max: 100, noNaN: true });
    fc.assert(
      fc.property(fc.array(count, { minLength: CELLS, maxLength: CELLS }), (counts) => {
        const good = goodHours(looksOf({ ...counts }), NOW);
        fc.pre(good !== undefined);
        for (const of of [0, SATURDAY]) {
          const hours = goodHoursLike(good, of);
          expect(hours.length).toBeGreaterThan(0);
          const own = counts.slice(of, of + 24);
          const both = own.map((each, hour) => each + (counts[(of + 24 + hour) % CELLS] ?? 0));
          const asked = own.reduce((a, b) => a + b, 0) < ENOUGH_LOOKS ? both : own;
          for (const hour of hours)
            for (let other = 0; other < 24; other++)
              if ((asked[other] ?? 0) > (asked[hour] ?? 0) * 1.000001) expect(hours).toContain(other);
        }
      }),
    );
  });
});

describe("the next good moment", () => {
  const mask = fc.integer({ min: 0, max: 2 ** 24 - 1 });
  const block = fc.tuple(fc.nat({ max: WEEK - 1 }), fc.integer({ min: 1, max: 2000 }));
  const blocksOf = fc.array(block, { maxLength: 3 }).map((all): Blocks => {
    const sorted = all
      .map(([start, length]): [number, number] => [start, Math.min(start + length, WEEK)])
      .sort((a, b) => a[0] - b[0]);
    return sorted.filter(([start], index) => start > (sorted[index - 1]?.[1] ?? -1));
  });
  const place = fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true });

  test("is in the first good hour that the rules leave some of, as a scan finds it, in every zone", () => {
    const few = fc.constantFrom(...ZONES);
    fc.assert(
      fc.property(few, moment, mask, mask, blocksOf, place, fc.nat({ max: 4000 }), (zone, chosen, ...rest) => {
        const [weekday, weekend, blocks, place, minutes] = rest;
        const clock = clocks(zone);
        const good = { weekday, weekend };
        const from = instantOf(zone, chosen);
        const until = from + minutes * MINUTE;
        const found = nextGoodMoment({ good, clock, blocks, place }, from, until);
        const fits = (ms: number) => isGood(good, cellOf(zone, ms)) && !isBlocked(blocks, clock, ms);
        let first = from;
        while (first <= until && !fits(first)) first += MINUTE;
        if (found === undefined) {
          // The spread goes as far as half an hour beyond the first that fits: what is too late then is not waited for.
          expect(first > until - 30 * MINUTE).toBe(true);
          return;
        }
        expect(fits(found)).toBe(true);
        expect(found).toBeLessThanOrEqual(until);
        expect(found).toBeGreaterThanOrEqual(first);
        expect(found - first).toBeLessThan(30 * MINUTE);
      }),
      { numRuns: 1500 },
    );
  }, 120_000);

  test("leaves out the rest of an hour that is blocked, and an hour that the clock leaves out", () => {
    const clock = clocks("Europe/Lisbon");
    const good = { weekday: 0, weekend: 1 << 1 };
    // On the last Sunday of March 2026 there is no hour that begins at 1 in Lisbon.
    const saturday = Date.parse("2026-03-28T12:00:00Z");
    expect(nextGoodMoment({ good, clock, blocks: [], place: 0 }, saturday, saturday + 5 * DAY)).toBeUndefined();
    const next = nextGoodMoment({ good, clock, blocks: [], place: 0 }, saturday, saturday + 8 * DAY);
    expect(next).toBe(Date.parse("2026-04-04T00:00:00Z"));
    const blocks: Blocks = [[6 * 1440 + 60, 6 * 1440 + 90]];
    expect(nextGoodMoment({ good, clock, blocks, place: 0.5 }, saturday, saturday + 8 * DAY)).toBe(
      Date.parse("2026-04-04T00:45:00Z"),
    );
  });

  test("is spread over half of the hour, the same for one user each time", () => {
    const places = Array.from({ length: 4000 }, (_, n) => placeOf(`user-${n}`));
    const parts = [0, 0, 0, 0];
    for (const each of places) parts[Math.floor(each * 4)] = (parts[Math.floor(each * 4)] ?? 0) + 1;
    for (const part of parts) expect(part).toBeGreaterThan(800);
    expect(placeOf("user-1")).toBe(places[1]);
    const clock = clocks("Asia/Kolkata");
    const good = { weekday: 1 << 9, weekend: 0 };
    const from = Date.parse("2026-12-01T00:00:00Z");
    for (const place of places) {
      const at = nextGoodMoment({ good, clock, blocks: [], place }, from, from + DAY) ?? 0;
      expect(isGoodMoment(good, clock, at)).toBe(true);
      expect(at - Date.parse("2026-12-01T03:30:00Z")).toBeLessThan(30 * MINUTE);
    }
  });
});
