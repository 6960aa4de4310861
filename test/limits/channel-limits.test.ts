import fc from "fast-check";
import { Registry } from "prom-client";
import { afterAll, expect, test } from "vitest";
import { Channel } from "#gen/posthorn/v1/notification_pb.ts";
import { connectCache } from "#src/cache/redis.ts";
import { type Asking, type Place, type Places, takePlace } from "#src/limits/channel-day.ts";
import { type ChannelLimitsDeps, channelLimits, lookingAtChannelLimits } from "#src/limits/channel-limits.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { createMetrics } from "#src/telemetry/metrics.ts";
import { testServices } from "../support/services.ts";

const { redisUrl, namespace } = await testServices();
const log = createLogger({ serviceName: "test", logLevel: "silent", logFormat: "json" });
const cache = await connectCache({ url: redisUrl, namespace, commandTimeoutMs: 10_000 }, log);
afterAll(() => cache[Symbol.asyncDispose]());

const TODAY = 20_000;
type Policy = "open-local" | "closed";
const deps = (policy: Policy, up = () => true): ChannelLimitsDeps => ({
  cache: { redis: cache.redis, namespace, up },
  config: {
    backoffMultiplier: 2,
    maxBackoffMs: 300_000,
    onRedisDown: { user: policy, tenant: "open-local", global: "open-local" },
  },
  clock: () => 0,
  metrics: createMetrics(new Registry()),
  onAlert: () => undefined,
});
const limiter = (policy: Policy, up?: () => boolean) => channelLimits(deps(policy, up));
const looking = (policy: Policy, up?: () => boolean) => lookingAtChannelLimits(deps(policy, up));
const asking = (tag: string, more: Partial<Asking> = {}): Asking => ({
  ...{ tag, userId: "ann", channel: Channel.SMS, limit: 2, exempt: false },
  ...{ today: TODAY, closedDays: 0, lastDay: undefined, ...more },
});

const step = fc.record({
  days: fc.nat({ max: 3 }),
  items: fc.array(
    fc.record({
      tag: fc.nat({ max: 30 }).map(String),
      userId: fc.constantFrom("ann", "bob"),
      channel: fc.constantFrom(Channel.SMS, Channel.EMAIL),
      limit: fc.nat({ max: 3 }),
      exempt: fc.nat({ max: 5 }).map((n) => n === 0),
      closedDays: fc.oneof(fc.constantFrom(0, 0b1000001), fc.nat({ max: 127 })),
      lastIn: fc.option(fc.nat({ max: 4 }), { nil: undefined }),
    }),
    { minLength: 1, maxLength: 12 },
  ),
});

test("Redis gives the places that the rules give, and to look gives the same and takes none", async () => {
  const take = limiter("open-local");
  const look = looking("open-local");
  let run = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 6 }), async (steps) => {
      const tenantId = `tenant-${++run}`;
      const known = new Map<string, Places>();
      let today = TODAY;
      for (const { days, items } of steps) {
        today += days;
        const asked = items.map(({ lastIn, ...item }) => ({
          ...item,
          today,
          lastDay: lastIn === undefined ? undefined : today + lastIn,
        }));
        const first = asked[0] as Asking;
        const seen = await look(tenantId, first);
        const places = await take(tenantId, asked);
        expect(seen).toEqual({ answer: places[0], known: true });
        expect(places).toEqual(
          asked.map((each) => {
            const key = `${each.channel} ${each.userId}`;
            const own = known.get(key) ?? new Map<string, number>();
            known.set(key, own);
            return takePlace(own, each);
          }),
        );
      }
    }),
    { numRuns: 40 },
  );
});

test("Redis too frees the place of what finds none any more, be it the only one", async () => {
  const failed: string[] = [];
  const take = channelLimits({ ...deps("open-local"), onAlert: (state) => failed.push(state) });
  const days = async (...asked: Asking[]) => ((await take("freed", asked)) as Place[]).map(({ day }) => day - TODAY);
  expect(await days(...["a", "b", "c", "d"].map((tag) => asking(tag)))).toEqual([0, 0, 1, 1]);
  expect(await days(asking("d", { limit: 1, lastDay: TODAY + 1 }), asking("e"))).toEqual([2, 1]);
  const alone = { userId: "bob" };
  expect(await days(asking("a", alone), asking("a", { ...alone, lastDay: TODAY - 1 }))).toEqual([0, 0]);
  expect((await take("freed", [asking("b", alone)]))[0]).toMatchObject({ used: 0 });
  expect(failed).toEqual([]);
});

test("many who ask at once get no more places of a day than there are", async () => {
  const [one, other] = [limiter("open-local"), limiter("open-local")];
  const answers = await Promise.all(
    Array.from({ length: 40 }, (_, n) => (n % 2 ? one : other)("raced", [asking(`${n}`, { limit: 7 })])),
  );
  const counts = Map.groupBy(answers.flat() as Place[], ({ day }) => day - TODAY);
  expect([...counts].map(([day, places]) => [day, places.length]).sort()).toEqual([
    ...[0, 1, 2, 3, 4].map((day) => [day, 7]),
    [5, 5],
  ]);
});

test("what is remembered of a user goes after the last day in which anything has its place", async () => {
  await limiter("open-local")(
    "kept",
    ["a", "b", "c"].map((tag) => asking(tag, { limit: 1 })),
  );
  const [key = ""] = await cache.redis.keys(`${namespace}:channel-days:{kept}:*`);
  const left = await cache.redis.ttl(key);
  expect(left).toBeGreaterThan(3 * 86_400);
  expect(left).toBeLessThanOrEqual(4 * 86_400);
  expect(key).toContain(`${Channel.SMS}:ann`);
});

test("without Redis each process counts by itself, or all wait but what is CRITICAL", async () => {
  const open = limiter("open-local", () => false);
  const days = (await open(
    "away",
    ["a", "b", "c"].map((tag) => asking(tag)),
  )) as Place[];
  expect(days.map(({ day }) => day - TODAY)).toEqual([0, 0, 1]);
  const closed = limiter("closed", () => false);
  const [waits, goes] = await closed("away", [asking("a"), asking("b", { exempt: true })]);
  expect(waits).toEqual({ askAfterMs: expect.any(Number) });
  expect((waits as { askAfterMs: number }).askAfterMs).toBeGreaterThanOrEqual(5_000);
  expect(goes).toMatchObject({ day: TODAY, taken: true });
});

test("who looks without Redis is told the policy, and that nobody knows what was counted", async () => {
  const away = () => false;
  const looked = (policy: Policy, more?: Partial<Asking>) => looking(policy, away)("away", asking("a", more));
  expect(await looked("open-local")).toMatchObject({ answer: { day: TODAY, taken: true }, known: false });
  expect(await looked("closed")).toEqual({ answer: { askAfterMs: expect.any(Number) }, known: false });
  expect(await looked("closed", { exempt: true })).toMatchObject({ answer: { day: TODAY }, known: false });
});
