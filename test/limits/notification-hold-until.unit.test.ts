import fc from "fast-check";
import { expect, test } from "vitest";
import { jitter, sharedSlot, userSlot } from "#src/limits/hold-until.ts";
import { USER_WINDOWS } from "#src/limits/windows.ts";

const at = (time: string) => Date.parse(`2026-01-10T${time}Z`);
const LIMITS = [5, 10, 100, 500];

test.each([
  ["the burst is full: its end", [5, 5, 5, 5], 0, "10:00:10"],
  ["the second burst of a minute has no room in the minute", [5, 10, 10, 10], 0, "10:01:00"],
  ["five go with the next minute's first burst", [5, 10, 10, 10], 4, "10:01:00"],
  ["the sixth with its second", [5, 10, 10, 10], 5, "10:01:10"],
  ["the eleventh with the minute after", [5, 10, 10, 10], 10, "10:02:00"],
  ["what the hour has no room for goes into the next", [5, 10, 95, 95], 7, "11:00:00"],
  ["and there again by tens", [5, 10, 95, 95], 5 + 10 + 5, "11:01:10"],
  ["the day is full: the next", [0, 0, 0, 500], 0, "24:00:00"],
  ["a limit gone beyond by CRITICAL still ends with its window", [40, 40, 40, 40], 0, "10:01:00"],
])("%s", (_, usage, ahead, expected) => {
  const midnight = at("00:00:00");
  const [hours = 0, minutes = 0, seconds = 0] = expected.split(":").map(Number);
  expect(userSlot(usage, LIMITS, ahead, at("10:00:03.500"))).toBe(
    midnight + ((hours * 60 + minutes) * 60 + seconds) * 1000,
  );
});

test("those who wait get slots in their order, and no window overflows", () => {
  const limit = fc.integer({ min: 1, max: 30 });
  const four = <T>(each: fc.Arbitrary<T>) => fc.tuple(each, each, each, each);
  fc.assert(
    fc.property(four(limit), four(fc.nat({ max: 40 })), fc.nat({ max: 90_000_000 }), (limits, usage, nowMs) => {
      // One window is full, or nobody would wait.
      usage[usage[0] % 4] = 40;
      const slots = Array.from({ length: 200 }, (_, ahead) => userSlot(usage, limits, ahead, nowMs));
      expect(slots).toEqual(slots.toSorted((a, b) => a - b));
      expect(slots[0]).toBeGreaterThan(nowMs);
      USER_WINDOWS.forEach(({ ms }, w) => {
        const taken = new Map([[Math.floor(nowMs / ms), Math.min(usage[w] ?? 0, limits[w] ?? 0)]]);
        for (const slot of slots) taken.set(Math.floor(slot / ms), (taken.get(Math.floor(slot / ms)) ?? 0) + 1);
        expect(Math.max(...taken.values())).toBeLessThanOrEqual(limits[w] ?? 0);
      });
    }),
  );
});

test("what waits for a shared limit is spread over the next windows", () => {
  const now = at("10:00:30");
  expect(sharedSlot(60_000, 100, 0, now)).toBe(at("10:01:00"));
  expect(sharedSlot(60_000, 100, 50, now)).toBe(at("10:01:30"));
  expect(sharedSlot(60_000, 100, 250, now)).toBe(at("10:03:30"));
});

test("jitter grows with the attempts, up to its maximum", () => {
  const config = { backoffMultiplier: 2, maxBackoffMs: 300_000 };
  expect([0, 1, 3, 20, 2000].map((attempt) => jitter(attempt, config, 0.5))).toEqual([
    500, 1000, 4000, 150_000, 150_000,
  ]);
  expect(jitter(5, config, 0)).toBe(0);
});
