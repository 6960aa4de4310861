import fc from "fast-check";
import { expect, test } from "vitest";
import { Channel, Priority, Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { DigestRule } from "#gen/posthorn/v1/type_service_pb.ts";
import { budget } from "#src/limits/budget.ts";
import { localLimits } from "#src/limits/local-limits.ts";
import { CAP_WINDOW, type Cap, type NotificationLimitsConfig, type Slot } from "#src/limits/windows.ts";
import { capOf } from "#src/pipeline/route/cap.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import { zoneClock } from "#src/preferences/zone-clock.ts";

// The rules of the hourly cap, asked through the limits that one process keeps: Redis gives the same
// (notification-limits.test.ts).

const NOON = Date.parse("2026-01-10T12:00:00Z");
const HOUR = CAP_WINDOW.ms;
const uuid = (n: number) => `019a0000-0000-7000-8000-${String(n).padStart(12, "0")}`;

const UNLIMITED: NotificationLimitsConfig = {
  perUser: { burst: 1e6, perMinute: 1e6, perHour: 1e6, perDay: 1e6 },
  perTenantPerMinute: 0,
  globalPerMinute: 0,
  backoffMultiplier: 2,
  maxBackoffMs: 300_000,
  onRedisDown: { user: "open-local", tenant: "open-local", global: "open-local" },
};

/** Asks one by one, each a notification of its own. */
function asking(config: NotificationLimitsConfig = UNLIMITED) {
  const take = localLimits(config);
  let next = 0;
  return (nowMs: number, cap: Cap | undefined, more: { exempt?: boolean; capTurnMs?: number } = {}): Slot => {
    const item = { id: uuid(next++), userId: "ann", attempt: 0, exempt: false, cap, ...more };
    return take("t", [item], nowMs)[0] as Slot;
  };
}
const cap = (share: number, over: Cap["over"] = "digest", perHour = 10): Cap => ({ perHour, share, over });
const goes = ({ limit }: Slot) => limit === undefined;
const hourOf = (atMs: number) => Math.floor(atMs / HOUR);

test("a share is between one and the whole, and grows with the cap and with the worth", () => {
  const caps = fc.integer({ min: 1, max: 100 });
  const grades = fc.integer({ min: 1, max: 5 });
  fc.assert(
    fc.property(caps, grades, grades, (perHour, value, urgency) => {
      const share = budget(perHour, value * urgency);
      expect(share).toBeGreaterThanOrEqual(1);
      expect(share).toBeLessThanOrEqual(perHour);
      expect(budget(perHour + 1, value * urgency)).toBeGreaterThanOrEqual(share);
      expect(budget(perHour, (value + 1) * urgency)).toBeGreaterThanOrEqual(share);
      if (value >= 3 && urgency >= 3) expect(share).toBe(perHour);
    }),
  );
  expect([1, 4, 5, 8, 9, 25].map((worth) => budget(10, worth))).toEqual([5, 5, 8, 8, 10, 10]);
});

test("CRITICAL passes, and what is kept out of digests waits", () => {
  const of = (about: object, maxPerHour: number | undefined = 10) =>
    capOf(
      {
        notification: {
          id: uuid(1),
          type: "news",
          category: "news",
          priority: Priority.NORMAL,
          channels: [Channel.IN_APP],
          bypassLimits: true,
          ...about,
        },
        preferences: { maxPerHour, digest: { clock: () => zoneClock("UTC") } } as CompiledPreferences,
      },
      new Date(NOON + HOUR / 2),
    );
  const rules = { batching: undefined, digest: DigestRule.UNSPECIFIED, worth: 4 };
  expect(of({})).toEqual({ perHour: 10, share: 10, over: "digest" });
  expect(of({ rules })).toEqual({ perHour: 10, share: 5, over: "digest" });
  expect(of({ rules, batchedAlready: true })?.over).toBe("wait");
  expect(of({ rules: { ...rules, digest: DigestRule.NEVER } })?.over).toBe("wait");
  expect(of({ rules, priority: Priority.CRITICAL })).toEqual({ perHour: 10, share: 10, over: "pass" });
  // The next full hour is half an hour ahead: a reminder that has less than twice that left does not wait for it.
  const reminder = (leftMs: number) => ({ tags: ["deadline:a"], expiresAt: new Date(NOON + HOUR / 2 + leftMs) });
  for (const more of [{}, { batchedAlready: true }]) {
    const usual = of(more)?.over;
    expect([HOUR / 4, HOUR - 1, HOUR].map((left) => of({ ...more, ...reminder(left) })?.over)).toEqual([
      "pass",
      "pass",
      usual,
    ]);
    expect(of({ ...more, ...reminder(HOUR / 4), tags: ["other"] })?.over).toBe(usual);
  }
});

test("in an hour of the clock no more come than the cap allows, but for what passes it", () => {
  const step = fc.record({
    ms: fc.oneof(fc.nat({ max: 60_000 }), fc.nat({ max: 3 * HOUR })),
    share: fc.integer({ min: 1, max: 6 }),
    over: fc.constantFrom<Cap["over"]>("digest", "wait", "wait", "pass"),
    exempt: fc.boolean(),
  });
  const limits = fc.constantFrom(UNLIMITED.perUser, { burst: 2, perMinute: 4, perHour: 7, perDay: 40 });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), limits, (steps, perUser) => {
      const ask = asking({ ...UNLIMITED, perUser });
      const counted = new Map<number, number>();
      let nowMs = NOON;
      for (const { ms, share, over, exempt } of steps) {
        nowMs += ms;
        const slot = ask(nowMs, cap(share, over, 6), { exempt });
        if (!slot.counted) {
          // Only what shall go into the digest is refused, and only where its share is used up.
          expect(over).toBe("digest");
          expect(counted.get(hourOf(slot.atMs)) ?? 0).toBeGreaterThanOrEqual(share);
          continue;
        }
        const hour = hourOf(slot.atMs);
        if (over !== "pass") expect(counted.get(hour) ?? 0).toBeLessThan(share);
        counted.set(hour, (counted.get(hour) ?? 0) + 1);
      }
    }),
  );
});

test("what is worth more comes where what is worth less has used its share, and waits for nobody", () => {
  const ask = asking();
  for (let n = 0; n < 5; n++) expect(goes(ask(NOON, cap(5)))).toBe(true);
  expect(ask(NOON, cap(5))).toMatchObject({ counted: false, limit: { window: CAP_WINDOW, usage: 5, limit: 5 } });
  // They have their turns in hours to come, and are in nobody's way.
  for (let n = 0; n < 20; n++) expect(goes(ask(NOON, cap(5, "wait")))).toBe(false);
  for (let n = 0; n < 5; n++) expect(goes(ask(NOON, cap(10)))).toBe(true);
  expect(goes(ask(NOON, cap(10)))).toBe(false);
  expect(goes(ask(NOON, cap(10, "pass")))).toBe(true);
});

test("those that wait have their turns in their order, at the beginning of the next hours that have room", () => {
  const ask = asking();
  for (let n = 0; n < 3; n++) ask(NOON, cap(3));
  const turns = Array.from({ length: 9 }, () => ask(NOON, cap(3, "wait")).atMs);
  expect(turns).toEqual([...new Set(turns)].toSorted((a, b) => a - b));
  expect(turns.map((turn) => (hourOf(turn) * HOUR - NOON) / HOUR)).toEqual([1, 1, 1, 2, 2, 2, 3, 3, 3]);
  for (const turn of turns) expect(turn % HOUR).toBeLessThan(10_000);
  // Newcomers of these hours find them used.
  expect(goes(ask(NOON + HOUR, cap(3)))).toBe(false);
  expect(goes(ask(NOON + 4 * HOUR, cap(3)))).toBe(true);
});

test("with its turn one passes the cap, uncounted, and asks the other windows; before it, it takes what room there is", () => {
  const ask = asking({ ...UNLIMITED, perUser: { ...UNLIMITED.perUser, burst: 1 } });
  ask(NOON, cap(1));
  const { atMs } = ask(NOON, cap(1, "wait"));
  expect(hourOf(atMs)).toBe(hourOf(NOON) + 1);
  // There is no room yet: it keeps its turn, and is not counted a second time.
  expect(ask(NOON + 60_000, cap(1, "wait"), { capTurnMs: atMs })).toMatchObject({ atMs, counted: true });
  ask(atMs, undefined);
  const late = ask(atMs, cap(1, "wait"), { capTurnMs: atMs });
  expect(late.limit?.window.reason).toBe(Reason.USER_BURST_LIMIT);
  expect(goes(ask(atMs + 60_000, cap(1)))).toBe(false);
  // The cap was raised: it comes at once, and leaves the hour that it had.
  const another = ask(atMs + 60_000, cap(1, "wait"));
  expect(goes(ask(atMs + 120_000, cap(2, "wait"), { capTurnMs: another.atMs }))).toBe(true);
  expect(goes(ask(another.atMs, cap(1)))).toBe(true);
});

test("a turn is not given further ahead than a week, and what expires before it takes none", () => {
  const take = localLimits(UNLIMITED);
  const wanted = Array.from({ length: 200 }, (_, n) => ({
    id: uuid(n),
    userId: "ann",
    attempt: 0,
    exempt: false,
    cap: cap(1, "wait", 1),
  }));
  const slots = take("t", wanted, NOON);
  expect(slots.filter(({ counted }) => counted)).toHaveLength(168);
  expect(new Set(slots.slice(168).map(({ atMs }) => hourOf(atMs) - hourOf(NOON)))).toEqual(new Set([168]));
  const [vain] = localLimits(UNLIMITED)(
    "t",
    [wanted[0], { ...wanted[1], expiresAtMs: NOON + 1000 }] as never,
    NOON,
  ).slice(1);
  expect(vain).toMatchObject({ counted: false, limit: { window: CAP_WINDOW } });
});
