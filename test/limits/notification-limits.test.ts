import { randomUUID } from "node:crypto";
import fc from "fast-check";
import { Registry } from "prom-client";
import { afterAll, describe, expect, test, vi } from "vitest";
import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { connectCache } from "#src/cache/redis.ts";
import { localLimits } from "#src/limits/local-limits.ts";
import { notificationLimits, type Request, type Reservation } from "#src/limits/notification-limits.ts";
import { phaseOf } from "#src/limits/phase.ts";
import { redisLimits } from "#src/limits/redis-limits.ts";
import type { Cap, NotificationLimitsConfig } from "#src/limits/windows.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { createMetrics } from "#src/telemetry/metrics.ts";
import { startProxy } from "../fault/lab/proxy.ts";
import { testServices } from "../support/services.ts";

const { redisUrl, namespace } = await testServices();
const log = createLogger({ serviceName: "test", logLevel: "silent", logFormat: "json" });
const opened = new AsyncDisposableStack();
afterAll(() => opened.disposeAsync());
// On a busy machine an answer may take its time; only a Redis that is meant to be silent is given up soon.
const connected = async (url = redisUrl, commandTimeoutMs = 10_000) =>
  opened.use(await connectCache({ url, namespace, commandTimeoutMs }, log));
const cache = await connected();

const CONFIG: NotificationLimitsConfig = {
  perUser: { burst: 5, perMinute: 10, perHour: 100, perDay: 500 },
  perTenantPerMinute: 0,
  globalPerMinute: 0,
  backoffMultiplier: 2,
  maxBackoffMs: 300_000,
  onRedisDown: { user: "open-local", tenant: "open-local", global: "open-local" },
};
const NOON = Date.parse("2099-01-10T12:00:00Z");
const HOUR_MS = 3_600_000;
const noon = (seconds: number) => new Date(NOON + seconds * 1000);

/** Redis's clock goes by each caller's, unless it is said how. */
async function limiter(
  changes: Partial<NotificationLimitsConfig> = {},
  on = cache,
  { redisNow = (nowMs: number) => nowMs, asIs = false }: { redisNow?: (nowMs: number) => number; asIs?: boolean } = {},
) {
  const alerts: string[] = [];
  const state = { nowMs: 0 };
  const limits = notificationLimits({
    cache: on,
    config: { ...CONFIG, ...changes },
    clock: () => state.nowMs,
    metrics: createMetrics(new Registry()),
    onAlert: (alert) => alerts.push(alert),
    redisNow: asIs ? undefined : redisNow,
  });
  return { ...limits, alerts, state };
}
const wanted = (count: number, userId = "ann", changes: Partial<Request> = {}): Request[] =>
  Array.from({ length: count }, () => ({ id: randomUUID(), userId, attempt: 0, exempt: false, ...changes }));
/** Her turn number `place` (from 0) in the ten seconds from `seconds` on, which have room for five. */
const ANNS_PHASE = phaseOf("ann") / 65_536;
const annsTurn = (seconds: number, place = 0) =>
  new Date(NOON + seconds * 1000 + Math.floor((place + ANNS_PHASE) * 1600));
const allowed = (reservations: readonly Reservation[]) => reservations.filter((each) => each.allowed).length;

test("each window that is full names itself, its usage and its end", async () => {
  const { reserve } = await limiter();
  const expiresAtMs = NOON;
  // What expires before its turn takes none: these only ask.
  const asks = () => wanted(1, "ann", { expiresAtMs });
  const tenant = randomUUID();
  const first = await reserve(tenant, [...wanted(5), ...asks()], noon(1));
  expect(allowed(first)).toBe(5);
  expect(first[5]).toEqual({
    allowed: false,
    reason: Reason.USER_BURST_LIMIT,
    usage: 5,
    limit: 5,
    resetAt: noon(10),
    until: annsTurn(10),
    slot: false,
  });
  expect(allowed(await reserve(tenant, wanted(5), noon(10)))).toBe(5);
  expect(await reserve(tenant, asks(), noon(20))).toEqual([
    {
      allowed: false,
      reason: Reason.USER_MINUTE_LIMIT,
      usage: 10,
      limit: 10,
      resetAt: noon(60),
      until: annsTurn(60),
      slot: false,
    },
  ]);
  let counted = 10;
  for (let minute = 1; counted < 100; minute++) {
    for (const second of [0, 10]) counted += allowed(await reserve(tenant, wanted(5), noon(minute * 60 + second)));
  }
  expect(await reserve(tenant, asks(), noon(1300))).toMatchObject([
    { reason: Reason.USER_HOUR_LIMIT, resetAt: noon(3600), until: annsTurn(3600), usage: 100 },
  ]);
  for (let hour = 1; hour < 5; hour++) {
    for (let minute = 0; minute < 10; minute++) {
      for (const second of [0, 10])
        counted += allowed(await reserve(tenant, wanted(5), noon(hour * 3600 + minute * 60 + second)));
    }
  }
  expect(counted).toBe(500);
  expect(await reserve(tenant, asks(), noon(6 * 3600))).toMatchObject([
    { reason: Reason.USER_DAY_LIMIT, resetAt: noon(12 * 3600), until: annsTurn(12 * 3600), usage: 500 },
  ]);
});

test("who comes later stands behind those that wait, also in a window that still has room", async () => {
  const { reserve } = await limiter();
  const tenant = randomUUID();
  const first = await reserve(tenant, wanted(7), noon(9));
  expect(first.slice(5)).toMatchObject([{ until: annsTurn(10, 0) }, { until: annsTurn(10, 1) }]);
  const [third] = await reserve(tenant, wanted(1), noon(10));
  expect(third).toMatchObject({
    allowed: false,
    reason: Reason.USER_BURST_LIMIT,
    until: annsTurn(10, 2),
    usage: 2,
    resetAt: noon(20),
    slot: true,
  });
  // When all turns have been, the rest of the window is free.
  expect(allowed(await reserve(tenant, wanted(2), noon(16)))).toBe(2);
});

test("while later windows fill, the one that is full now is named as it is now", async () => {
  const { reserve } = await limiter();
  const tenant = randomUUID();
  await reserve(tenant, wanted(120), noon(1));
  // 100 are in this hour, 20 in the next.
  expect(await reserve(tenant, wanted(1), noon(125))).toMatchObject([
    { reason: Reason.USER_HOUR_LIMIT, usage: 100, limit: 100, resetAt: noon(3600), until: annsTurn(2 * 60 + 3600) },
  ]);
  await reserve(tenant, wanted(1, "ann", { exempt: true }), noon(130));
  expect(await reserve(tenant, wanted(1), noon(131))).toMatchObject([{ reason: Reason.USER_HOUR_LIMIT, usage: 101 }]);
});

test("users and tenants do not use up each other's", async () => {
  const { reserve } = await limiter();
  const [tenant, other] = [randomUUID(), randomUUID()];
  const chunk = [...wanted(6, "ann"), ...wanted(6, "bob"), ...wanted(1, "eve")];
  expect((await reserve(tenant, chunk, noon(0))).map((each) => each.allowed)).toEqual(
    chunk.map((_, n) => n !== 5 && n !== 11),
  );
  expect(allowed(await reserve(other, wanted(5), noon(0)))).toBe(5);
});

test("a turn is counted in the minute of the tenant in which it comes", async () => {
  const { reserve } = await limiter({ perTenantPerMinute: 7 });
  const tenant = randomUUID();
  const hers = await reserve(tenant, wanted(9), noon(0));
  expect(allowed(hers)).toBe(5);
  // Two in the next ten seconds; then the tenant's minute is full, and the next has room for two and five.
  expect(hers.slice(5)).toMatchObject([
    { until: annsTurn(10, 0), reason: Reason.USER_BURST_LIMIT },
    { until: annsTurn(10, 1) },
    { until: annsTurn(60, 0) },
    { until: annsTurn(60, 1) },
  ]);
  const rest = await reserve(tenant, [...wanted(3, "bob"), ...wanted(1, "eve")], noon(1));
  expect(allowed(rest)).toBe(0);
  expect(rest[0]).toMatchObject({ reason: Reason.TENANT_LIMIT, usage: 7, limit: 7, resetAt: noon(60), slot: true });
  const turns = rest.map((each) => (each.allowed ? 0 : each.until.getTime() - NOON));
  expect(turns).toEqual(turns.toSorted((a, b) => a - b));
  expect(turns.filter((turn) => turn >= 60_000 && turn < 120_000)).toHaveLength(4);
  // They wait in the first minute's queue: newcomers stand behind them even when the minute begins.
  const [late] = await reserve(tenant, wanted(1, "joe"), noon(60));
  expect(late).toMatchObject({ allowed: false, reason: Reason.TENANT_LIMIT });
  expect(late?.allowed === false && late.until.getTime() - NOON).toBeGreaterThanOrEqual(turns[3] ?? 0);
});

test("the same attempt is counted once and keeps its turn, a later attempt takes another", async () => {
  const { reserve } = await limiter();
  const tenant = randomUUID();
  const chunk = wanted(7);
  const first = await reserve(tenant, chunk, noon(0));
  expect(allowed(first)).toBe(5);
  const until = (each: Reservation | undefined) => (each?.allowed === false ? each.until : undefined);
  const repeated = await reserve(tenant, chunk, noon(5));
  expect(repeated.map(until)).toEqual(first.map(until));
  const again = chunk.slice(5).map((each) => ({ ...each, attempt: 1 }));
  expect((await reserve(tenant, again, noon(9))).map(until)).toEqual([annsTurn(10, 2), annsTurn(10, 3)]);
  expect(allowed(await reserve(tenant, chunk, noon(20)))).toBe(7);
});

test("with its slot one passes when its turn has come, uncounted and without asking, also late", async () => {
  const { reserve } = await limiter();
  const tenant = randomUUID();
  await reserve(tenant, wanted(10), noon(0));
  const held = { slot: { at: noon(10), reason: Reason.USER_BURST_LIMIT } };
  const mine = () => wanted(1, "ann", { attempt: 1, ...held });
  expect(await reserve(tenant, mine(), noon(9))).toEqual([
    {
      allowed: false,
      reason: Reason.USER_BURST_LIMIT,
      until: noon(10),
      slot: true,
      usage: 5,
      limit: 5,
      resetAt: noon(10),
    },
  ]);
  for (const seconds of [10, 30, 70]) expect(allowed(await reserve(tenant, mine(), noon(seconds)))).toBe(1);
  await cache.redis.del(await cache.redis.keys(`${namespace}:places:*`));
  expect(allowed(await reserve(tenant, [...wanted(5), ...mine()], noon(70)))).toBe(6);
  expect(allowed(await reserve(tenant, mine(), noon(3599)))).toBe(1);
  // Where something else held it, it asks again: the window is full.
  const quiet = { slot: { at: noon(10), reason: Reason.QUIET_HOURS } };
  expect(await reserve(tenant, wanted(1, "ann", { attempt: 1, ...quiet }), noon(70.001))).toMatchObject([
    { allowed: false, until: annsTurn(80) },
  ]);
});

test("what expires before its turn takes none", async () => {
  const { reserve } = await limiter();
  const tenant = randomUUID();
  await reserve(tenant, wanted(5), noon(0));
  const turn = annsTurn(10).getTime();
  const asked = await reserve(tenant, wanted(50, "ann", { expiresAtMs: turn }), noon(1));
  expect(new Set(asked.map((each) => !each.allowed && each.until.getTime()))).toEqual(new Set([turn]));
  expect(asked.every((each) => !each.allowed && !each.slot)).toBe(true);
  const [next] = await reserve(tenant, wanted(1, "ann", { expiresAtMs: turn + 1 }), noon(1));
  expect(next).toMatchObject({ until: new Date(turn), slot: true });
});

test("exempt ones are counted and never refused, and those that wait keep their turns", async () => {
  const { reserve } = await limiter({ perTenantPerMinute: 3, globalPerMinute: 1000 });
  const tenant = randomUUID();
  expect(allowed(await reserve(tenant, wanted(20, "ann", { exempt: true }), noon(0)))).toBe(20);
  const held = await reserve(tenant, [...wanted(1), ...wanted(1, "bob")], noon(0));
  expect(held).toMatchObject([
    { reason: Reason.USER_MINUTE_LIMIT, usage: 20, until: annsTurn(60) },
    { reason: Reason.TENANT_LIMIT, usage: 20 },
  ]);
  expect(allowed(await reserve(tenant, wanted(20, "ann", { exempt: true }), noon(1)))).toBe(20);
  // The tenant's third turn of three, in its own order, as if there had been no others.
  expect(await reserve(tenant, wanted(1), noon(1))).toMatchObject([{ usage: 40, until: noon(60 + 32) }]);
});

test("a thousand held for one user come back one after the other, in the order in which they came", async () => {
  const { reserve } = await limiter();
  const tenant = randomUUID();
  const turns: number[] = [];
  for (let chunk = 0; chunk < 4; chunk++) {
    for (const each of await reserve(tenant, wanted(250), noon(0))) if (!each.allowed) turns.push(each.until.getTime());
  }
  expect(turns).toHaveLength(995);
  expect(turns).toEqual([...new Set(turns)].toSorted((a, b) => a - b));
});

test("users whose first turn is in the same window do not all have it at its first instant", async () => {
  const { reserve } = await limiter({ perUser: { ...CONFIG.perUser, burst: 1 } });
  const tenant = randomUUID();
  const users = Array.from({ length: 200 }, (_, n) => `user-${n}`);
  const answers = await reserve(
    tenant,
    users.flatMap((userId) => wanted(2, userId)),
    noon(0),
  );
  const tenths = Map.groupBy(
    answers.flatMap((each) => (each.allowed ? [] : [each.until.getTime() - NOON - 10_000])),
    (ms) => Math.floor(ms / 800),
  );
  expect([...tenths.keys()].toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  expect(Math.max(...[...tenths.values()].map((turns) => turns.length))).toBeLessThan(50);
});

test("processes that race never go beyond a limit, nor stay below it", async () => {
  const tenant = randomUUID();
  const changes = { perTenantPerMinute: 30, globalPerMinute: 0 };
  const nodes = await Promise.all([connected(), connected()].map(async (on) => limiter(changes, await on)));
  const users = Array.from({ length: 10 }, (_, n) => `u${n}`);
  const results = await Promise.all(
    Array.from({ length: 40 }, async (_, n) => {
      const chunk = users.flatMap((user) => wanted(1, user));
      return { chunk, answers: await nodes[n % 2]!.reserve(tenant, chunk, noon(0)) };
    }),
  );
  const counts = new Map<string, number>();
  for (const { chunk, answers } of results) {
    chunk.forEach(({ userId }, index) => {
      if (answers[index]?.allowed) counts.set(userId, (counts.get(userId) ?? 0) + 1);
    });
  }
  expect(Math.max(...counts.values())).toBeLessThanOrEqual(5);
  expect([...counts.values()].reduce((a, b) => a + b)).toBe(30);
});

test("the limit of all tenants together is not passed, and what others refuse does not use it up", async () => {
  const changes = { globalPerMinute: 12 };
  // A minute of its own: the limit is everybody's.
  const start = 7200;
  const nodes = await Promise.all([connected(), connected()].map(async (on) => limiter(changes, await on)));
  const answers = await Promise.all(
    Array.from({ length: 10 }, (_, n) => nodes[n % 2]!.reserve(randomUUID(), wanted(2), noon(start))),
  );
  expect(allowed(answers.flat())).toBe(12);
  const held = answers.flat().filter((each) => !each.allowed);
  for (const each of held)
    expect(each).toMatchObject({ reason: Reason.GLOBAL_LIMIT, limit: 12, usage: 12, slot: true });
  const { reserve } = nodes[0]!;
  // Eight stand in the next minute; the others have gone.
  expect(allowed(await reserve(randomUUID(), wanted(3), noon(start + 60)))).toBe(0);
  expect(allowed(await reserve(randomUUID(), wanted(1), noon(start + 119)))).toBe(1);
  const tenant = randomUUID();
  expect(allowed(await reserve(tenant, wanted(500), noon(start + 1200)))).toBe(5);
  expect(allowed(await reserve(randomUUID(), wanted(5), noon(start + 1200)))).toBe(2);
});

test("a caller whose clock is behind does not open a window anew", async () => {
  const { reserve } = await limiter();
  const tenant = randomUUID();
  expect(allowed(await reserve(tenant, wanted(5), noon(0)))).toBe(5);
  expect(allowed(await reserve(tenant, wanted(5), noon(-1)))).toBe(0);
  expect(allowed(await reserve(tenant, wanted(5), noon(0)))).toBe(0);
});

test("what a caller whose clock ran ahead has left keeps nobody waiting who comes at the right time", async () => {
  const { reserve } = await limiter({ perTenantPerMinute: 12, globalPerMinute: 12 });
  const tenant = randomUUID();
  const cap: Cap = { perHour: 5, share: 5, over: "digest" };
  const tomorrow = noon(86_400);
  expect(allowed(await reserve(tenant, wanted(20, "ann", { cap }), tomorrow))).toBe(5);
  expect(allowed(await reserve(tenant, wanted(20, "bob"), tomorrow))).toBe(5);
  for (const hour of [3, 5]) {
    const answers = await reserve(tenant, [...wanted(6, "ann", { cap }), ...wanted(6, "bob")], noon(hour * 3600));
    expect(answers.map((each) => each.allowed)).toEqual(answers.map((_, n) => n % 6 < 5));
  }
  // With bob's sixth, who waits until the next ten seconds, there is room for one more in the tenant's minute.
  const late = await reserve(tenant, [...wanted(1, "eve"), ...wanted(1, "joe")], noon(5 * 3600 + 1));
  expect(late).toMatchObject([{ allowed: true }, { allowed: false, reason: Reason.TENANT_LIMIT, usage: 12 }]);
});

test.each([
  ["behind", -1],
  ["ahead", 1],
])("a caller whose clock is minutes or days %s counts with those whose clock is right", async (_, sign) => {
  // Right is by Redis's own clock. A day or an hour that ends meanwhile proves nothing: then once more.
  const within = async <T>(ms: number, ask: (tenant: string, right: Date) => Promise<T>): Promise<T> => {
    const right = new Date();
    const answer = await ask(randomUUID(), right);
    const over = Math.floor(Date.now() / ms) !== Math.floor(right.getTime() / ms);
    return over ? within(ms, ask) : answer;
  };
  const wrong = (right: Date, minutes: number) => new Date(right.getTime() + sign * minutes * 60_000);
  const day = { burst: 100, perMinute: 100, perHour: 100, perDay: 5 };
  const changes = { perUser: day, perTenantPerMinute: 100, globalPerMinute: 100 };
  const { reserve, alerts } = await limiter(changes, cache, { asIs: true });
  const counts = await within(86_400_000, async (tenant, right) => {
    alerts.length = 0;
    const counts = [];
    for (const minutes of [0, 2, 90, 3000, 0, 2, 0]) {
      counts.push(allowed(await reserve(tenant, wanted(4), wrong(right, minutes))));
    }
    return counts;
  });
  expect(counts).toEqual([4, 1, 0, 0, 0, 0, 0]);
  expect(alerts).toEqual(["clock-apart", "clock-agrees", "clock-apart", "clock-agrees"]);
  // Of whom nothing is known yet, too.
  const fresh = await within(86_400_000, async (tenant, right) => {
    const first = allowed(await reserve(tenant, wanted(4), wrong(right, 90)));
    return [first, allowed(await reserve(tenant, wanted(4), right)), allowed(await reserve(tenant, wanted(4), right))];
  });
  expect(fresh).toEqual([4, 1, 0]);

  const cap: Cap = { perHour: 1, share: 1, over: "wait" };
  await within(HOUR_MS, async (tenant, right) => {
    const now = wrong(right, 200);
    expect(allowed(await reserve(tenant, wanted(1, "ann", { cap }), right))).toBe(1);
    const [turn] = await reserve(tenant, wanted(1, "ann", { cap }), now);
    if (turn?.allowed !== false) throw new Error("it did not wait");
    return { turn, now };
  }).then(({ turn, now }) => {
    // A turn by Redis's clock would be hours away by this one's, or long gone: it has none, and asks again.
    expect(turn).toMatchObject({ reason: Reason.HOURLY_CAP, slot: false });
    expect(turn.until.getTime()).toBeGreaterThan(now.getTime());
    expect(turn.until.getTime()).toBeLessThanOrEqual(now.getTime() + CONFIG.maxBackoffMs);
  });
});

test.each([5, -5])(
  "while Redis's clock is %i hours off nobody gets more, nor waits for long, nor after that",
  async (hours) => {
    let off = 0;
    const redisNow = (nowMs: number) => nowMs + off * HOUR_MS;
    const { reserve } = await limiter({ perTenantPerMinute: 8 }, cache, { redisNow });
    const tenant = randomUUID();
    expect(allowed(await reserve(tenant, wanted(3), noon(0)))).toBe(3);
    off = hours;
    // Everyone begins anew once, by a clock on which all agree: with five in ten seconds, and eight in the tenant's minute.
    const chunk = [...wanted(7), ...wanted(7, "bob")];
    const first = await reserve(tenant, chunk, noon(20));
    expect(allowed(first)).toBe(8);
    let waiting = chunk.filter((_, index) => !first[index]?.allowed);
    for (let seconds = 30, attempt = 1; waiting.length > 0; seconds += 10, attempt++) {
      expect(seconds).toBeLessThan(90);
      const again = waiting.map((each) => ({ ...each, attempt }));
      const answers = await reserve(tenant, again, noon(seconds));
      for (const each of answers) {
        if (each.allowed) continue;
        expect(each.slot).toBe(false);
        expect(each.until.getTime() - noon(seconds).getTime()).toBeLessThanOrEqual(CONFIG.maxBackoffMs);
      }
      expect(allowed(answers)).toBe(seconds < 60 ? 0 : 6);
      waiting = waiting.filter((_, index) => !answers[index]?.allowed);
    }
    off = 0;
    const back = await reserve(tenant, [...wanted(6), ...wanted(2, "bob")], noon(130));
    expect(back.map((each) => each.allowed)).toEqual([true, true, true, true, true, false, true, true]);
  },
);

test("nothing stays in Redis for ever", async () => {
  const tenant = randomUUID();
  const { reserve } = await limiter({ perTenantPerMinute: 100, globalPerMinute: 100 });
  await reserve(tenant, wanted(7), noon(-43_200 + 86_390));
  const keys = await cache.redis.keys(`${namespace}:places:*`);
  expect(keys.filter((key) => key.includes(tenant))).toHaveLength(2);
  for (const key of keys) expect(await cache.redis.pttl(key)).toBeGreaterThan(0);
  // Her turns reach into the next day.
  expect(await cache.redis.pttl(`${namespace}:places:{all}:${tenant}:ann`)).toBeLessThanOrEqual(86_410_000);
});

test("what the cap refuses goes into the digest and counts nowhere; what is to wait for it waits for an hour with room", async () => {
  const { reserve } = await limiter();
  const tenant = randomUUID();
  const capped = (count: number, over: Cap["over"], more: Partial<Request> = {}) =>
    wanted(count, "ann", { cap: { perHour: 4, share: 3, over }, ...more });
  expect(allowed(await reserve(tenant, capped(3, "digest"), noon(0)))).toBe(3);
  const refused = {
    allowed: false,
    reason: Reason.HOURLY_CAP,
    usage: 3,
    limit: 3,
    perHour: 4,
    slot: false,
    digest: true,
  };
  const past = await reserve(tenant, capped(20, "digest", { exempt: true }), noon(1));
  expect(past).toEqual(past.map(() => ({ ...refused, until: noon(3600), resetAt: noon(3600) })));
  const [held] = await reserve(tenant, capped(1, "wait"), noon(1));
  const turn = new Date(noon(3600).getTime() + Math.floor((ANNS_PHASE * 8000) / 3));
  expect(held).toMatchObject({ reason: Reason.HOURLY_CAP, until: turn, slot: true, usage: 3, limit: 3, perHour: 4 });
  // Five in ten seconds: the twenty that were refused have taken none of the two that are left, nor has who waits.
  expect(allowed(await reserve(tenant, wanted(3), noon(2)))).toBe(2);
  expect(allowed(await reserve(tenant, capped(3, "pass", { exempt: true }), noon(3)))).toBe(3);

  // Its turn has come: it is counted already, but asks the other windows.
  const slot = { at: turn, reason: Reason.HOURLY_CAP };
  const [first, second] = [capped(1, "wait", { attempt: 1, slot }), capped(1, "wait", { attempt: 1, slot })];
  expect(allowed(await reserve(tenant, first, turn))).toBe(1);
  await reserve(tenant, wanted(4, "ann", { exempt: true }), turn);
  expect(await reserve(tenant, second, turn)).toMatchObject([{ reason: Reason.USER_BURST_LIMIT, slot: true }]);
  expect(allowed(await reserve(tenant, capped(3, "digest"), noon(3700)))).toBe(2);
});

test("a turn that the cap gave is kept, asked again and again, until there is room for it sooner", async () => {
  const { reserve } = await limiter();
  const tenant = randomUUID();
  const of = (share: number): Cap => ({ perHour: 9, share, over: "wait" });
  const [first, last] = [wanted(1, "ann", { cap: of(1) }), wanted(1, "ann", { cap: of(1) })];
  expect(allowed(await reserve(tenant, first, noon(0)))).toBe(1);
  const [held] = await reserve(tenant, last, noon(0));
  const until = held?.allowed === false ? held.until : noon(0);
  expect(until.getTime()).toBeGreaterThanOrEqual(noon(3600).getTime());
  const slot = { at: until, reason: Reason.HOURLY_CAP };
  const again = (share: number, attempt: number) => last.map((each) => ({ ...each, attempt, slot, cap: of(share) }));
  expect(await reserve(tenant, last, noon(1))).toMatchObject([{ until, slot: true }]);
  expect(await reserve(tenant, again(1, 1), noon(2))).toMatchObject([{ until, slot: true }]);
  // The user wants more: the same attempt, decided again because of that, comes at once, and leaves the hour it had.
  expect(allowed(await reserve(tenant, again(2, 1), noon(3)))).toBe(1);
  expect(allowed(await reserve(tenant, wanted(1, "ann", { cap: of(1) }), noon(3600)))).toBe(1);
});

test("processes that race never go beyond a user's cap", async () => {
  const tenant = randomUUID();
  const nodes = await Promise.all([connected(), connected()].map(async (on) => limiter({}, await on)));
  const cap: Cap = { perHour: 3, share: 3, over: "digest" };
  const answers = await Promise.all(
    Array.from({ length: 40 }, (_, n) => nodes[n % 2]!.reserve(tenant, wanted(2, "ann", { cap }), noon(n / 40))),
  );
  expect(allowed(answers.flat())).toBe(3);
  expect(answers.flat().filter((each) => !each.allowed && each.digest)).toHaveLength(77);
});

test("this process by itself gives the slots that Redis gives", async () => {
  const item = fc.record({
    id: fc.nat({ max: 400 }),
    userId: fc.constantFrom("ann", "bob", "eve"),
    attempt: fc.nat({ max: 1 }),
    exempt: fc.nat({ max: 9 }),
    cap: fc.option(
      fc.record({ share: fc.integer({ min: 1, max: 4 }), over: fc.constantFrom("digest", "wait", "wait", "pass") }),
      { nil: undefined, freq: 4 },
    ),
    capTurn: fc.option(fc.integer({ min: -7200, max: 20_000 }), { nil: undefined, freq: 3 }),
    expires: fc.option(fc.nat({ max: 7200 }), { nil: undefined, freq: 4 }),
  });
  const step = fc.record({
    // Clocks of several callers: some are behind, and some ran far ahead before.
    seconds: fc.oneof(
      { weight: 9, arbitrary: fc.integer({ min: -2, max: 400 }) },
      fc.nat({ max: 9000 }),
      fc.integer({ min: -180, max: 0 }),
      fc.constantFrom(-90_000, -7200, 90_000),
    ),
    tenant: fc.nat({ max: 1 }),
    items: fc.array(item, { minLength: 1, maxLength: 12 }),
  });
  const small = { burst: 3, perMinute: 6, perHour: 20, perDay: 40 };
  const limits = fc.record({ perTenantPerMinute: fc.constantFrom(0, 8), globalPerMinute: fc.constantFrom(0, 10) });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), limits, async (steps, changes) => {
      const config = { ...CONFIG, perUser: small, ...changes };
      const tenants = [randomUUID(), randomUUID()];
      const own = { redis: cache.redis, namespace: `${namespace}:${randomUUID()}` };
      const inRedis = redisLimits(own, config, { redisNow: (nowMs) => nowMs });
      const inProcess = localLimits(config);
      let nowMs = NOON;
      for (const { seconds, tenant, items } of steps) {
        nowMs += seconds * 1000;
        const chunk = items.map(({ id, userId, attempt, exempt, cap, capTurn, expires }) => ({
          id: `019a0000-0000-7000-8000-${String(id).padStart(12, "0")}`,
          // A notification has one user.
          userId: id % 2 === 0 ? "ann" : userId,
          attempt,
          exempt: exempt === 0,
          cap: cap && { perHour: 4, ...cap },
          capTurnMs: capTurn === undefined ? undefined : nowMs + capTurn * 1000,
          expiresAtMs: expires === undefined ? undefined : nowMs + expires * 1000,
        }));
        const tenantId = tenants[tenant] ?? "";
        expect(inProcess(tenantId, chunk, nowMs)).toEqual(await inRedis(tenantId, chunk, nowMs));
      }
    }),
    { numRuns: 150 },
  );
}, 120_000);

test("while Redis does not answer this process counts by itself, without waiting, until it answers again", async () => {
  await using proxy = await startProxy(redisUrl);
  const { reserve, alerts, state } = await limiter({}, await connected(proxy.url, 500));
  const tenant = randomUUID();
  expect(allowed(await reserve(tenant, wanted(1), noon(0)))).toBe(1);
  proxy.silence();
  const started = performance.now();
  expect(allowed(await reserve(tenant, wanted(9), noon(1)))).toBe(5);
  expect(performance.now() - started).toBeLessThan(5000);
  expect(alerts).toEqual(["redis-down"]);
  const again = performance.now();
  for (let n = 0; n < 100; n++) expect(allowed(await reserve(tenant, wanted(1), noon(2)))).toBe(0);
  // One that waited would take the time-out each time.
  expect(performance.now() - again).toBeLessThan(5000);

  await proxy.heal();
  await vi.waitFor(async () => {
    state.nowMs += 1000;
    await reserve(randomUUID(), wanted(1), noon(10));
    expect(alerts).toEqual(["redis-down", "recovered"]);
  }, 20_000);
});

describe("while Redis is away", () => {
  const closed = "closed" as const;
  const open = CONFIG.onRedisDown;
  test.each([
    ["the limit of users", { onRedisDown: { ...open, user: closed } }, false],
    ["a tenant's limit", { perTenantPerMinute: 100, onRedisDown: { ...open, tenant: closed } }, false],
    ["the global limit", { globalPerMinute: 100, onRedisDown: { ...open, global: closed } }, false],
    ["limits that are off", { onRedisDown: { ...open, tenant: closed, global: closed } }, true],
  ])("a closed policy of %s holds all but the exempt", async (_, changes, goes) => {
    await using proxy = await startProxy(redisUrl);
    const on = await connected(proxy.url);
    const { reserve, alerts } = await limiter(changes, on);
    await proxy.refuse("close");
    proxy.cut("fin");
    await vi.waitFor(() => expect(on.up()).toBe(false), 20_000);
    const requests = [...wanted(1), ...wanted(1, "ann", { exempt: true })];
    const answers = await reserve(randomUUID(), requests, noon(0));
    // Five seconds, and its user's part of one more; the second time of two more.
    const until = (seconds: number) => new Date(noon(5).getTime() + Math.floor(ANNS_PHASE * seconds * 1000));
    const waits = (seconds: number) => ({
      allowed: false,
      reason: Reason.LIMITER_UNAVAILABLE,
      until: until(seconds),
      resetAt: until(seconds),
      slot: false,
      usage: 0,
      limit: 0,
    });
    expect(answers).toEqual([goes ? expect.objectContaining({ allowed: true }) : waits(1), { allowed: true }]);
    const [again] = await reserve(randomUUID(), wanted(1, "ann", { attempt: 1 }), noon(6));
    if (!goes) expect(again).toMatchObject({ until: new Date(until(2).getTime() + 6000) });
    // The cap is one of the limits of users: this process counts it, or it is waited for.
    const cap: Cap = { perHour: 1, share: 1, over: "digest" };
    const capped = await reserve(randomUUID(), wanted(2, "ann", { cap }), noon(0));
    const second = goes ? Reason.HOURLY_CAP : Reason.LIMITER_UNAVAILABLE;
    expect(capped).toMatchObject([{ allowed: goes }, { allowed: false, reason: second }]);
    // What had its turn before does not need the limiter.
    const slot = { at: noon(0), reason: Reason.USER_MINUTE_LIMIT };
    expect(allowed(await reserve(randomUUID(), wanted(1, "ann", { slot }), noon(1)))).toBe(1);
    expect(alerts).toEqual(["redis-down"]);
  });
});

test("a Redis that was flushed and has lost the script goes on", async () => {
  const { reserve } = await limiter();
  await reserve(randomUUID(), wanted(1), noon(0));
  await cache.redis.script("FLUSH");
  expect(allowed(await reserve(randomUUID(), wanted(6), noon(0)))).toBe(5);
});
