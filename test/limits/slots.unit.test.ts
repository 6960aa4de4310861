import fc from "fast-check";
import { expect, test } from "vitest";
import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { SLOT_KEPT_MS, slotNow, turnThatHasCome, waitForLimiter } from "#src/limits/hold.ts";
import { localLimits } from "#src/limits/local-limits.ts";
import { type NotificationLimitsConfig, USER_WINDOWS, windowEnd } from "#src/limits/windows.ts";
import { bookingAfter } from "#src/pipeline/route/booking.ts";

// The rules of slots, asked through the limits that one process keeps: Redis gives the same (notification-limits.test.ts).

const NOON = Date.parse("2026-01-10T12:00:00Z");
const uuid = (n: number) => `019a0000-0000-7000-8000-${String(n).padStart(12, "0")}`;

const item = fc.record({
  userId: fc.constantFrom("ann", "bob", "eve"),
  exempt: fc.nat({ max: 9 }).map((n) => n === 0),
  expiresInMs: fc.option(fc.nat({ max: 7_200_000 }), { nil: undefined, freq: 4 }),
});
const steps = fc.array(
  fc.record({
    ms: fc.oneof(fc.nat({ max: 3000 }), fc.nat({ max: 400_000 }), fc.nat({ max: 20_000_000 })),
    tenantId: fc.constantFrom("a", "b"),
    items: fc.array(item, { minLength: 1, maxLength: 20 }),
  }),
  { maxLength: 30 },
);
const ordered = fc
  .tuple(fc.nat({ max: 4 }), fc.nat({ max: 6 }), fc.nat({ max: 15 }), fc.nat({ max: 20 }))
  .map(([burst, minute, hour, day]) => ({
    burst: 1 + burst,
    perMinute: 1 + burst + minute,
    perHour: 1 + burst + minute + hour,
    perDay: 1 + burst + minute + hour + day,
  }));
const config = fc.record({
  perUser: ordered,
  perTenantPerMinute: fc.constantFrom(0, 1, 7),
  globalPerMinute: fc.constantFrom(0, 2, 9),
});

const LIMITS: NotificationLimitsConfig = {
  perUser: { burst: 5, perMinute: 10, perHour: 100, perDay: 500 },
  perTenantPerMinute: 0,
  globalPerMinute: 0,
  backoffMultiplier: 2,
  maxBackoffMs: 300_000,
  onRedisDown: { user: "open-local", tenant: "open-local", global: "open-local" },
};

type Given = { tenantId: string; userId: string; exempt: boolean; nowMs: number; atMs: number; counted: boolean };

function run(
  settings: Partial<NotificationLimitsConfig>,
  walk: typeof steps extends fc.Arbitrary<infer S> ? S : never,
) {
  const take = localLimits({ ...LIMITS, ...settings });
  const given: Given[] = [];
  const limits: { nowMs: number; usage: number; limit: number; endMs: number }[] = [];
  let nowMs = NOON;
  let next = 0;
  for (const { ms, tenantId, items } of walk) {
    nowMs += ms;
    const wanted = items.map(({ userId, exempt, expiresInMs }) => ({
      id: uuid(next++),
      userId,
      attempt: 0,
      exempt,
      expiresAtMs: expiresInMs === undefined ? undefined : nowMs + expiresInMs,
    }));
    take(tenantId, wanted, nowMs).forEach(({ atMs, counted, limit }, index) => {
      const { userId = "", exempt = false } = wanted[index] ?? {};
      given.push({ tenantId, userId, exempt, nowMs, atMs, counted });
      if (limit) limits.push({ nowMs, usage: limit.usage, limit: limit.limit, endMs: windowEnd(limit.window, nowMs) });
    });
  }
  return { counted: given.filter((each) => each.counted && !each.exempt), given, limits };
}

test("no window is given to more than it allows, whoever comes when", () => {
  fc.assert(
    fc.property(config, steps, (settings, walk) => {
      const { counted } = run(settings, walk);
      const { perUser, perTenantPerMinute, globalPerMinute } = settings;
      const limits = [perUser.burst, perUser.perMinute, perUser.perHour, perUser.perDay];
      const most = (ms: number, who: (each: Given) => string) =>
        Math.max(
          0,
          ...[...Map.groupBy(counted, (each) => `${who(each)} ${Math.floor(each.atMs / ms)}`).values()].map(
            ({ length }) => length,
          ),
        );
      USER_WINDOWS.forEach(({ ms }, w) => {
        expect(most(ms, ({ tenantId, userId }) => `${tenantId} ${userId}`)).toBeLessThanOrEqual(limits[w] ?? 0);
      });
      if (perTenantPerMinute > 0)
        expect(most(60_000, ({ tenantId }) => tenantId)).toBeLessThanOrEqual(perTenantPerMinute);
      if (globalPerMinute > 0) expect(most(60_000, () => "")).toBeLessThanOrEqual(globalPerMinute);
    }),
    { numRuns: 60 },
  );
});

test("a user's go in the order in which they came, and none overtakes those that wait", () => {
  fc.assert(
    fc.property(config, steps, (settings, walk) => {
      const { counted } = run(settings, walk);
      for (const own of Map.groupBy(counted, ({ tenantId, userId }) => `${tenantId} ${userId}`).values()) {
        const turns = own.map(({ atMs }) => atMs);
        expect(turns).toEqual(turns.toSorted((a, b) => a - b));
      }
    }),
    { numRuns: 60 },
  );
});

test("under a shared limit users go in the order in which they came, where their own limits let them", () => {
  fc.assert(
    fc.property(fc.constantFrom(1, 3, 7), steps, (perTenantPerMinute, walk) => {
      const perUser = { burst: 1e6, perMinute: 1e6, perHour: 1e6, perDay: 1e6 };
      const { counted } = run({ perUser, perTenantPerMinute }, walk);
      for (const own of Map.groupBy(counted, ({ tenantId }) => tenantId).values()) {
        const turns = own.map(({ atMs }) => atMs);
        expect(turns).toEqual(turns.toSorted((a, b) => a - b));
      }
    }),
    { numRuns: 60 },
  );
});

test("a caller whose clock was ahead has left nothing, once somebody comes at the right time", () => {
  const before = fc.array(fc.tuple(fc.integer({ min: -50, max: 100 }), fc.constantFrom("ann", "bob")), {
    maxLength: 60,
  });
  const capped = fc.option(
    fc.record({ share: fc.integer({ min: 1, max: 3 }), over: fc.constantFrom("digest", "wait") }),
    {
      nil: undefined,
    },
  );
  const unshared = { perUser: LIMITS.perUser, perTenantPerMinute: 0, globalPerMinute: 0 } as const;
  fc.assert(
    fc.property(config, before, fc.integer({ min: 2, max: 3000 }), capped, fc.nat({ max: 60 }), (...given) => {
      const [settings, asked, aheadMinutes, over, many] = given;
      const cap = over && { perHour: 3, ...(over as { share: number; over: "digest" | "wait" }) };
      const [used, fresh] = [localLimits({ ...LIMITS, ...settings }), localLimits({ ...LIMITS, ...settings })];
      const of = (userId: string, n: number) => ({ id: uuid(n), userId, attempt: 0, exempt: false, cap });
      for (const [n, [hours, userId]] of asked.entries()) used("a", [of(userId, n)], NOON + hours * 3_600_000);
      const aheadMs = NOON + (aheadMinutes + 1) * 60_000;
      // Whom the cap refuses leaves nothing, not even the time: so these are none of its business.
      const leaving = (userId: string, n: number) => ({ ...of(userId, n), exempt: true, cap: undefined });
      used("a", [leaving("ann", 100), leaving("bob", 101)], aheadMs);
      const asking = Array.from({ length: many }, (_, n) => of(n % 3 === 0 ? "bob" : "ann", 200 + n));
      expect(used("a", asking, NOON)).toEqual(fresh("a", asking, NOON));
    }),
    { numRuns: 60, examples: [[unshared, [[0, "bob"]], 2, { share: 1, over: "digest" }, 1]] },
  );
});

test("whatever clocks were before, the queue of a user goes on as fast as the limits allow", () => {
  const clocks = fc.array(
    fc.oneof(fc.integer({ min: -7200, max: 7200 }), fc.integer({ min: -172_800, max: 172_800 })),
    { maxLength: 20 },
  );
  fc.assert(
    fc.property(clocks, fc.integer({ min: 2, max: 5 }), (seconds, perMinute) => {
      const perUser = { burst: 2, perMinute, perHour: 1e6, perDay: 1e6 };
      const take = localLimits({ ...LIMITS, perUser });
      const ann = (n: number) => ({ id: uuid(n), userId: "ann", attempt: 0, exempt: false });
      for (const [n, at] of seconds.entries()) take("a", [ann(n)], NOON + at * 1000);
      const slots = take(
        "a",
        Array.from({ length: 100 }, (_, n) => ann(100 + n)),
        NOON,
      );
      const minutes = Map.groupBy(slots, ({ atMs }) => Math.floor((atMs - NOON) / 60_000));
      // Of the twenty some may stand before them, those of a clock up to a minute ahead as well.
      for (const minute of [13, 14, 15]) expect(minutes.get(minute)).toHaveLength(perMinute);
    }),
    { numRuns: 60 },
  );
});

test("a caller that only asks leaves no trace of its clock", () => {
  const take = localLimits({ ...LIMITS, perUser: { burst: 1, perMinute: 2, perHour: 3, perDay: 4 } });
  const ann = (n: number, nowMs: number) =>
    take("a", [{ id: uuid(n), userId: "ann", attempt: 0, exempt: false }], nowMs)[0];
  for (let n = 0; n < 4; n++) ann(n, NOON + n * 3_600_000);
  const last = NOON + 3 * 3_600_000;
  // The same again, by a clock that is ahead: it is known.
  expect(ann(3, last + 100_000)).toMatchObject({ counted: true, limit: undefined });
  expect(ann(5, last)).toMatchObject({ counted: true, limit: { usage: 4 } });
});

test("what is remembered of users is bounded: those longest unseen are forgotten first", () => {
  const perUser = { burst: 20, perMinute: 20, perHour: 20, perDay: 20 };
  const take = localLimits({ ...LIMITS, perUser }, 100, 60);
  const ten = (userId: string, from: number) =>
    take(
      "a",
      Array.from({ length: 10 }, (_, n) => ({ id: uuid(from + n), userId, attempt: 0, exempt: false })),
      NOON,
    ).filter(({ limit }) => limit === undefined).length;
  // Each takes up 14 of the 60: four have room.
  for (const [n, user] of ["ann", "bob", "eve", "joe", "kim"].entries()) expect(ten(user, n * 10)).toBe(10);
  expect([ten("kim", 100), ten("kim", 110)]).toEqual([10, 0]);
  expect([ten("ann", 120), ten("ann", 130)]).toEqual([10, 10]);
});

test("exempt ones never wait, and nobody has a turn in the past", () => {
  fc.assert(
    fc.property(config, steps, (settings, walk) => {
      const { given, limits } = run(settings, walk);
      for (const { atMs, nowMs, exempt, counted } of given) {
        expect(atMs).toBeGreaterThanOrEqual(nowMs);
        if (exempt) expect({ atMs, counted }).toEqual({ atMs: nowMs, counted: true });
      }
      for (const { nowMs, usage, endMs } of limits) {
        expect(usage).toBeGreaterThanOrEqual(0);
        expect(endMs).toBeGreaterThan(nowMs);
      }
    }),
    { numRuns: 60 },
  );
});

test("a limit is used up: nobody waits for a later window while an earlier one has room", () => {
  // All come at once, so that nothing goes stale: each window but the last is as full as the limits let it be.
  fc.assert(
    fc.property(ordered, fc.integer({ min: 1, max: 120 }), (perUser, size) => {
      const items = Array.from({ length: size }, () => ({
        userId: "ann" as const,
        exempt: false,
        expiresInMs: undefined,
      }));
      const { counted } = run({ perUser }, [{ ms: 0, tenantId: "a", items }]);
      const minutes = Map.groupBy(counted, ({ atMs }) => Math.floor(atMs / 60_000));
      const hours = Map.groupBy(counted, ({ atMs }) => Math.floor(atMs / 3_600_000));
      const perMinute = Math.min(perUser.perMinute, 6 * perUser.burst);
      for (const [minute, { length }] of minutes) {
        const inHour = hours.get(Math.floor(minute / 60))?.length ?? 0;
        const isLast = minute === Math.max(...minutes.keys());
        const isLastOfHour = !minutes.has(minute + 1) && inHour === perUser.perHour;
        const isLastOfDay =
          !minutes.has(minute + 1) && counted.filter(({ atMs }) => atMs < NOON + 43_200_000).length >= perUser.perDay;
        if (!isLast && !isLastOfHour && !isLastOfDay) expect(length).toBe(perMinute);
      }
    }),
  );
});

test("a slot is kept for a minute, and where only a limit held the notification until its hour ends", () => {
  const MINUTES_MS = 60_000;
  const late = (reason: Reason, slotMs: number) =>
    [-1, 0, SLOT_KEPT_MS, SLOT_KEPT_MS + 1, 30 * MINUTES_MS - 1, 30 * MINUTES_MS].map((ms) =>
      slotNow({ at: new Date(slotMs), reason }, slotMs + ms),
    );
  const halfPast = NOON + 30 * MINUTES_MS;
  expect(late(Reason.QUIET_HOURS, halfPast)).toEqual(["ahead", "here", "here", "missed", "missed", "missed"]);
  expect(late(Reason.USER_BURST_LIMIT, halfPast)).toEqual(["ahead", "here", "here", "here", "here", "missed"]);
  expect(late(Reason.TENANT_LIMIT, NOON - 1)).toEqual(["ahead", "here", "here", "missed", "missed", "missed"]);
});

test("a turn outlives a rule that holds until a minute after it, and none that holds for longer", () => {
  const bookedAt = new Date(NOON);
  const held = (ms: number) => ({ status: Status.HELD, dueAt: new Date(NOON + ms) });
  const limited = { bookedAt, reason: Reason.USER_MINUTE_LIMIT };
  expect(bookingAfter(limited, held(SLOT_KEPT_MS), undefined)).toEqual(bookedAt);
  expect(bookingAfter(limited, held(SLOT_KEPT_MS + 1), undefined)).toBeUndefined();
  // It has not asked the other limits yet.
  expect(bookingAfter({ bookedAt, reason: Reason.HOURLY_CAP }, held(0), undefined)).toBeUndefined();
});

test("the wait for a limiter that is away grows with the attempts, up to its maximum", () => {
  const settings = { backoffMultiplier: 2, maxBackoffMs: 300_000 };
  expect([0, 1, 3, 20, 2000].map((attempt) => waitForLimiter(attempt, settings, 0.5))).toEqual([
    5500, 6000, 9000, 155_000, 155_000,
  ]);
  expect(waitForLimiter(5, settings, 0)).toBe(5000);
});

test("the turn of one that was let through has come, by clocks that differ by up to half a minute", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 86_400_000 }), fc.integer({ min: -30_000, max: 30_000 }), (at, skew) => {
      const given = turnThatHasCome(new Date(NOON + at));
      expect(slotNow(given, NOON + at + skew)).toBe("here");
    }),
  );
});
