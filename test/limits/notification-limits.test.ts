import { randomUUID } from "node:crypto";
import fc from "fast-check";
import { Registry } from "prom-client";
import { afterAll, expect, test, vi } from "vitest";
import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { connectCache } from "#src/cache/redis.ts";
import { localLimits } from "#src/limits/local-limits.ts";
import { notificationLimits, type Reservation } from "#src/limits/notification-limits.ts";
import { redisLimits } from "#src/limits/redis-limits.ts";
import type { NotificationLimitsConfig, Wanted } from "#src/limits/windows.ts";
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
  onRedisDown: "open-local",
};
const NOON = Date.parse("2026-01-10T12:00:00Z");
const noon = (seconds: number) => new Date(NOON + seconds * 1000);

async function limiter(changes: Partial<NotificationLimitsConfig> = {}, on = cache) {
  const alerts: string[] = [];
  const state = { nowMs: 0 };
  const limits = notificationLimits({
    cache: on,
    config: { ...CONFIG, ...changes },
    random: () => 0,
    clock: () => state.nowMs,
    metrics: createMetrics(new Registry()),
    onAlert: (alert) => alerts.push(alert),
  });
  return { ...limits, alerts, state };
}
const wanted = (count: number, userId = "ann", changes: Partial<Wanted> = {}): Wanted[] =>
  Array.from({ length: count }, () => ({ id: randomUUID(), userId, attempt: 0, exempt: false, ...changes }));
const allowed = (reservations: readonly Reservation[]) => reservations.filter((each) => each.allowed).length;

test("each window refuses what is beyond it and names itself, its usage and its end", async () => {
  const { reserve } = await limiter();
  const tenant = randomUUID();
  const first = await reserve(tenant, wanted(6), noon(1));
  expect(allowed(first)).toBe(5);
  expect(first[5]).toEqual({
    allowed: false,
    reason: Reason.USER_BURST_LIMIT,
    usage: 5,
    limit: 5,
    resetAt: noon(10),
    until: noon(10),
  });
  expect(allowed(await reserve(tenant, wanted(6), noon(10)))).toBe(5);
  expect(await reserve(tenant, wanted(1), noon(20))).toEqual([
    {
      allowed: false,
      reason: Reason.USER_MINUTE_LIMIT,
      usage: 10,
      limit: 10,
      resetAt: noon(60),
      // One is refused before it in this minute, and both fit into the next.
      until: noon(60),
    },
  ]);
  let counted = 10;
  for (let minute = 1; minute < 20; minute++) {
    for (const second of [0, 10, 20]) counted += allowed(await reserve(tenant, wanted(5), noon(minute * 60 + second)));
  }
  expect(counted).toBe(100);
  expect(await reserve(tenant, wanted(1), noon(1300))).toMatchObject([
    { reason: Reason.USER_HOUR_LIMIT, resetAt: noon(3600), usage: 100 },
  ]);
  for (let hour = 1; hour < 6; hour++) {
    for (let minute = 0; minute < 20; minute++) {
      for (const second of [0, 10])
        counted += allowed(await reserve(tenant, wanted(5), noon(hour * 3600 + minute * 60 + second)));
    }
  }
  expect(counted).toBe(500);
  expect(await reserve(tenant, wanted(1), noon(6 * 3600))).toMatchObject([
    { reason: Reason.USER_DAY_LIMIT, resetAt: noon(12 * 3600), until: noon(12 * 3600) },
  ]);
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

test("what one limit refuses is counted in no other", async () => {
  const { reserve } = await limiter({ perTenantPerMinute: 7 });
  const tenant = randomUUID();
  expect(allowed(await reserve(tenant, wanted(9), noon(0)))).toBe(5);
  const rest = await reserve(tenant, [...wanted(3, "bob"), ...wanted(1, "eve")], noon(0));
  expect(rest.map((each) => each.allowed)).toEqual([true, true, false, false]);
  expect(rest[2]).toEqual({
    allowed: false,
    reason: Reason.TENANT_LIMIT,
    usage: 7,
    limit: 7,
    resetAt: noon(60),
    until: noon(60),
  });
  // Bob's burst has three left after the two that counted; the tenant's minute is what refuses, not his.
  expect(allowed(await reserve(tenant, wanted(4, "bob"), noon(60)))).toBe(4);
});

test("the same attempt is counted once, a later attempt anew", async () => {
  const { reserve } = await limiter();
  const tenant = randomUUID();
  const chunk = wanted(3);
  expect(allowed(await reserve(tenant, chunk, noon(0)))).toBe(3);
  expect(allowed(await reserve(tenant, chunk, noon(5)))).toBe(3);
  expect(allowed(await reserve(tenant, [...chunk, ...wanted(3)], noon(9)))).toBe(5);
  const again = chunk.map((each) => ({ ...each, attempt: 1 }));
  expect(allowed(await reserve(tenant, again, noon(9)))).toBe(0);
  expect(allowed(await reserve(tenant, again, noon(10)))).toBe(3);
});

test("exempt ones are counted and never refused", async () => {
  const { reserve } = await limiter({ perTenantPerMinute: 3, globalPerMinute: 1000 });
  const tenant = randomUUID();
  expect(allowed(await reserve(tenant, wanted(20, "ann", { exempt: true }), noon(0)))).toBe(20);
  expect(await reserve(tenant, [...wanted(1), ...wanted(1, "bob")], noon(0))).toMatchObject([
    { reason: Reason.USER_MINUTE_LIMIT, usage: 20 },
    { reason: Reason.TENANT_LIMIT, usage: 20 },
  ]);
});

test("a thousand held for one user come back a few at a time", async () => {
  const { reserve } = await limiter();
  const tenant = randomUUID();
  const slots = new Map<number, number>();
  for (let chunk = 0; chunk < 4; chunk++) {
    for (const each of await reserve(tenant, wanted(250), noon(0))) {
      if (each.allowed) continue;
      slots.set(each.until.getTime(), (slots.get(each.until.getTime()) ?? 0) + 1);
    }
  }
  expect(Math.max(...slots.values())).toBe(5);
  expect([...slots.values()].reduce((a, b) => a + b)).toBe(995);
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

test("the limit of all tenants together is not passed, and what others refuse is given back to it", async () => {
  const changes = { globalPerMinute: 12 };
  // A minute of its own: the limit is everybody's.
  const start = 7200;
  const nodes = await Promise.all([connected(), connected()].map(async (on) => limiter(changes, await on)));
  const answers = await Promise.all(
    Array.from({ length: 10 }, (_, n) => nodes[n % 2]!.reserve(randomUUID(), wanted(2), noon(start))),
  );
  expect(allowed(answers.flat())).toBe(12);
  expect(answers.flat().find((each) => !each.allowed)).toMatchObject({ reason: Reason.GLOBAL_LIMIT, limit: 12 });

  const tenant = randomUUID();
  const { reserve } = nodes[0]!;
  expect(allowed(await reserve(tenant, wanted(9), noon(start + 60)))).toBe(5);
  await cache.redis.ping();
  await vi.waitFor(async () => {
    expect(allowed(await reserve(randomUUID(), [...wanted(4), ...wanted(3, "bob")], noon(start + 60)))).toBe(7);
  }, 20_000);
});

test("a caller whose clock is behind does not open a window anew", async () => {
  const { reserve } = await limiter();
  const tenant = randomUUID();
  expect(allowed(await reserve(tenant, wanted(5), noon(0)))).toBe(5);
  expect(allowed(await reserve(tenant, wanted(5), noon(-1)))).toBe(0);
  expect(allowed(await reserve(tenant, wanted(5), noon(0)))).toBe(0);
});

test("nothing stays in Redis for ever", async () => {
  const tenant = randomUUID();
  const { reserve } = await limiter({ perTenantPerMinute: 100, globalPerMinute: 100 });
  await reserve(tenant, wanted(7), noon(-43_200 + 86_390));
  const keys = await cache.redis.keys(`${namespace}:limits:*`);
  expect(keys.filter((key) => key.includes(tenant))).toHaveLength(2);
  for (const key of keys) expect(await cache.redis.pttl(key)).toBeGreaterThan(0);
  expect(await cache.redis.pttl(`${namespace}:limits:{${tenant}}:ann`)).toBeLessThanOrEqual(120_000);
});

test("this process by itself decides as Redis does", async () => {
  const user = fc.constantFrom("ann", "bob", "eve");
  const item = fc.record({
    id: fc.nat({ max: 400 }),
    userId: user,
    attempt: fc.nat({ max: 1 }),
    exempt: fc.nat({ max: 9 }),
  });
  const step = fc.record({ seconds: fc.nat({ max: 400 }), items: fc.array(item, { minLength: 1, maxLength: 12 }) });
  const small = { burst: 3, perMinute: 6, perHour: 20, perDay: 40 };
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), fc.constantFrom(0, 8), async (steps, perTenantPerMinute) => {
      const config = { ...CONFIG, perUser: small, perTenantPerMinute };
      const tenant = randomUUID();
      const [inRedis, inProcess] = [redisLimits(cache, config), localLimits(config)];
      let nowMs = NOON;
      for (const { seconds, items } of steps) {
        nowMs += seconds * 1000;
        const chunk = items.map(({ id, userId, attempt, exempt }) => ({
          id: `019a0000-0000-7000-8000-${String(id).padStart(12, "0")}`,
          // A notification has one user.
          userId: id % 2 === 0 ? "ann" : userId,
          attempt,
          exempt: exempt === 0,
        }));
        expect(inProcess(tenant, chunk, nowMs)).toEqual(await inRedis(tenant, chunk, nowMs));
      }
    }),
    { numRuns: 150 },
  );
}, 60_000);

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

test("the closed policy holds all but the exempt for five seconds", async () => {
  await using proxy = await startProxy(redisUrl);
  const on = await connected(proxy.url);
  const { reserve, alerts } = await limiter({ onRedisDown: "closed" }, on);
  await proxy.refuse("close");
  proxy.cut("fin");
  await vi.waitFor(() => expect(on.up()).toBe(false), 20_000);
  const answers = await reserve(randomUUID(), [...wanted(1), ...wanted(1, "ann", { exempt: true })], noon(0));
  expect(answers).toEqual([
    {
      allowed: false,
      reason: Reason.LIMITER_UNAVAILABLE,
      until: noon(5),
      resetAt: noon(5),
      usage: 0,
      limit: 0,
    },
    { allowed: true },
  ]);
  expect(alerts).toEqual(["redis-down"]);
});

test("a Redis that was flushed and has lost the script goes on", async () => {
  const { reserve } = await limiter();
  await reserve(randomUUID(), wanted(1), noon(0));
  await cache.redis.script("FLUSH");
  expect(allowed(await reserve(randomUUID(), wanted(6), noon(0)))).toBe(5);
});
