import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import postgres from "postgres";
import { afterAll, expect, test, vi } from "vitest";
import { connectBroker } from "#src/broker/broker.ts";
import { startInvalidations } from "#src/broker/invalidations.ts";
import { connectCache } from "#src/cache/redis.ts";
import { newIds } from "#src/ids.ts";
import { preferenceCache } from "#src/preferences/cache.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import { openStore, type Store } from "#src/store/store.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { startProxy } from "../fault/lab/proxy.ts";
import { localInvalidations } from "../support/local-invalidations.ts";
import { testServices } from "../support/services.ts";

const { databaseUrl, natsUrl, redisUrl, namespace } = await testServices();
const log = createLogger({ serviceName: "test", logLevel: "silent", logFormat: "json" });
const store = openStore({
  url: databaseUrl,
  hotPoolSize: 4,
  poolSize: 2,
  statementTimeoutMs: 10_000,
  lockTimeoutMs: 5000,
  prepare: true,
});
const sql = postgres(databaseUrl, { max: 2, onnotice: () => undefined });
const opened = new AsyncDisposableStack();
afterAll(async () => {
  await opened.disposeAsync();
  await store[Symbol.asyncDispose]();
  await sql.end();
});

/** A process with its own memory and connections, on the same servers as the others. */
async function node({ url = redisUrl, alone = false } = {}) {
  // Only a Redis that is meant to be away is given up soon.
  const commandTimeoutMs = url === redisUrl ? 10_000 : 100;
  const cache = opened.use(await connectCache({ url, namespace, commandTimeoutMs }, log));
  const broker = alone ? undefined : opened.use(await connectBroker({ url: natsUrl, namespace, replicas: 1 }, log));
  const invalidations = broker === undefined ? localInvalidations() : opened.use(startInvalidations(broker));
  const state = { connected: true, now: new Date(), reads: 0, afterRead: async () => {} };
  const counting: Pick<Store, "tenantAtOnce"> = {
    tenantAtOnce: async (tenantId, work) => {
      state.reads++;
      const result = await store.tenantAtOnce(tenantId, work);
      await state.afterRead();
      return result;
    },
  };
  const preferences = opened.use(
    preferenceCache({
      store: { ...store, ...counting },
      cache,
      invalidations,
      connected: () => state.connected,
      clock: () => state.now,
      newId: newIds(() => new Date()),
    }),
  );
  await broker?.nats.flush();
  const one = async (tenantId: string, userId: string): Promise<CompiledPreferences> => {
    const compiled = (await preferences.load(tenantId, [userId])).get(userId);
    if (compiled === undefined) throw new Error("no answer for the user");
    return compiled;
  };
  return { ...preferences, one, invalidations, cache, state };
}

async function setEnabled(tenantId: string, userId: string, enabled: boolean): Promise<void> {
  await sql`insert into preferences (tenant_id, user_id, document, revision, updated_at)
    values (${tenantId}, ${userId}, ${sql.json({ enabled })}, 1, now())
    on conflict (tenant_id, user_id) do update set document = excluded.document, revision = preferences.revision + 1`;
}

/** What was sent to Redis without waiting has arrived when a later command of the same connection is answered. */
const settled = ({ cache }: Awaited<ReturnType<typeof node>>) => cache.redis.ping();

test("misses of many users cost one statement, and the next process reads them from Redis", async () => {
  const tenantId = randomUUID();
  const users = Array.from({ length: 250 }, (_, n) => `u${n}`);
  await setEnabled(tenantId, "u7", false);
  const first = await node();
  const loaded = await first.load(tenantId, users);
  expect([...loaded.keys()].sort()).toEqual([...users].sort());
  expect([...loaded].filter(([, { optedOut }]) => optedOut).map(([id]) => id)).toEqual(["u7"]);
  expect(first.state.reads).toBe(1);
  expect((await first.load(tenantId, users)).get("u7")).toBe(loaded.get("u7"));
  expect(first.state.reads).toBe(1);
  await settled(first);

  const second = await node();
  expect((await second.load(tenantId, users)).get("u7")?.optedOut).toBe(true);
  expect(second.state.reads).toBe(0);
});

test("users who have set nothing share what they have", async () => {
  const { load } = await node();
  const loaded = await load(randomUUID(), ["a", "b"]);
  expect(loaded.get("a")).toBe(loaded.get("b"));
});

test("a change shows on every process within a second", async () => {
  const tenantId = randomUUID();
  const [here, there] = [await node(), await node()];
  for (let round = 0; round < 10; round++) {
    const off = round % 2 === 0;
    await there.one(tenantId, "ann");
    await here.aboutToChange({ tenantId, userId: "ann" });
    await setEnabled(tenantId, "ann", !off);
    here.invalidations.publish("preferences", tenantId, "ann");
    expect((await here.one(tenantId, "ann")).optedOut).toBe(off);
    await vi.waitFor(async () => expect((await there.one(tenantId, "ann")).optedOut).toBe(off), {
      timeout: 1000,
      interval: 5,
    });
  }
});

test("a profile, the tenant's defaults and the opt-in types are part of it, and their changes show", async () => {
  const tenantId = randomUUID();
  const { one, invalidations } = await node({ alone: true });
  expect(await one(tenantId, "ann")).toMatchObject({ timeZone: "UTC", language: "en", optedOut: false });
  await sql`insert into users (tenant_id, id, locale, time_zone, roles, created_at, updated_at)
    values (${tenantId}, 'ann', 'pt', 'Europe/Lisbon', '{}', now(), now())`;
  invalidations.publish("user", tenantId, "ann");
  expect(await one(tenantId, "ann")).toMatchObject({ timeZone: "Europe/Lisbon", language: "pt" });

  await sql`insert into default_preferences (tenant_id, document, revision, updated_at)
    values (${tenantId}, ${sql.json({ enabled: false })}, 1, now())`;
  invalidations.publish("preferences", tenantId, "");
  expect(await one(tenantId, "ann")).toMatchObject({ optedOut: true, timeZone: "Europe/Lisbon" });

  expect((await one(tenantId, "ann")).scope("poll", "social").off).toBeUndefined();
  await sql`insert into types (tenant_id, key, category, default_priority, default_channels, opt_in, revision, created_at, updated_at)
    values (${tenantId}, 'poll', 'social', 2, '{1}', true, 1, now(), now())`;
  invalidations.publish("type", tenantId, "poll");
  expect((await one(tenantId, "ann")).scope("poll", "social").off).toBeDefined();
});

test("a reader that was slow brings the old value back neither here nor in Redis", async () => {
  const tenantId = randomUUID();
  const [writer, reader] = [await node({ alone: true }), await node({ alone: true })];
  const { promise: held, resolve: release } = Promise.withResolvers<void>();
  const { promise: hasRead, resolve: read } = Promise.withResolvers<void>();
  reader.state.afterRead = async () => {
    read();
    await held;
  };
  const slow = reader.one(tenantId, "ann");
  await hasRead;
  await writer.aboutToChange({ tenantId, userId: "ann" });
  await setEnabled(tenantId, "ann", false);
  writer.invalidations.publish("preferences", tenantId, "ann");
  reader.invalidations.publish("preferences", tenantId, "ann");
  await settled(writer);
  reader.state.afterRead = async () => {};
  release();
  expect((await slow).optedOut).toBe(false);
  await settled(reader);
  expect((await reader.one(tenantId, "ann")).optedOut).toBe(true);
  expect((await (await node({ alone: true })).one(tenantId, "ann")).optedOut).toBe(true);
});

test("a reader that was slow while NATS told it nothing leaves Redis alone", async () => {
  const tenantId = randomUUID();
  const [writer, reader] = [await node({ alone: true }), await node({ alone: true })];
  reader.state.afterRead = async () => {
    await setEnabled(tenantId, "ann", false);
    writer.invalidations.publish("preferences", tenantId, "ann");
    await settled(writer);
  };
  expect((await reader.one(tenantId, "ann")).optedOut).toBe(false);
  await settled(reader);
  expect((await (await node({ alone: true })).one(tenantId, "ann")).optedOut).toBe(true);
});

test("a writer that dies between commit and invalidation leaves no old value in Redis", async () => {
  const tenantId = randomUUID();
  const [writer, reader] = [await node({ alone: true }), await node({ alone: true })];
  await reader.one(tenantId, "ann");
  await settled(reader);
  await writer.aboutToChange({ tenantId, userId: "ann" });
  const during = await node({ alone: true });
  expect((await during.one(tenantId, "ann")).optedOut).toBe(false);
  await settled(during);
  await setEnabled(tenantId, "ann", false);
  expect((await (await node({ alone: true })).one(tenantId, "ann")).optedOut).toBe(true);
});

test("what is read anew replaces an old copy in Redis, and takes nothing from a change that is under way", async () => {
  const tenantId = randomUUID();
  const [writer, reader] = [await node({ alone: true }), await node({ alone: true })];
  const enabledAnew = async () => !(await reader.reload(tenantId, ["ann"])).get("ann")?.optedOut;
  await setEnabled(tenantId, "ann", true);
  expect(await enabledAnew()).toBe(true);
  await settled(reader);
  await setEnabled(tenantId, "ann", false);
  expect(await enabledAnew()).toBe(false);
  await settled(reader);
  expect((await (await node({ alone: true })).one(tenantId, "ann")).optedOut).toBe(true);

  await writer.aboutToChange({ tenantId, userId: "ann" });
  expect(await enabledAnew()).toBe(false);
  await settled(reader);
  await setEnabled(tenantId, "ann", true);
  expect((await (await node({ alone: true })).one(tenantId, "ann")).optedOut).toBe(false);
});

test("values are half a second old at most while invalidations may be lost, and a minute otherwise", async () => {
  const tenantId = randomUUID();
  const { one, state, cache } = await node({ alone: true });
  const start = state.now.getTime();
  await one(tenantId, "ann");
  await setEnabled(tenantId, "ann", false);
  await cache.redis.del(...(await cache.redis.keys(`${namespace}:preferences3:{${tenantId}}*`)));
  const after = async (ms: number) => {
    state.now = new Date(start + ms);
    return (await one(tenantId, "ann")).optedOut;
  };
  expect(await after(59_999)).toBe(false);
  state.connected = false;
  expect(await after(499)).toBe(false);
  expect(await after(500)).toBe(true);
  state.connected = true;
  await setEnabled(tenantId, "ann", true);
  expect(await after(-1)).toBe(true);
});

test("subscriptions come with preferences: one statement for many users, and the next process reads none", async () => {
  const tenantId = randomUUID();
  await sql`insert into subscriptions values
    (${tenantId}, 'ann', ${randomUUID()}, 2, 'job', 'priority > 2', now(), now()),
    (${tenantId}, 'ann', ${randomUUID()}, 4, 'jobs', '', now(), now())`;
  const [first, second] = [await node(), await node()];
  const groups = (of: CompiledPreferences | undefined) =>
    of?.wishes?.groups({ type: "job", category: "jobs", tags: [] });
  const loaded = await first.load(tenantId, ["ann", "bob"]);
  expect(groups(loaded.get("ann"))).toEqual([["priority > 2"]]);
  expect(loaded.get("bob")?.wishes).toBeUndefined();
  expect(first.state.reads).toBe(1);
  await settled(first);
  expect(groups(await second.one(tenantId, "ann"))).toEqual([["priority > 2"]]);
  expect(second.state.reads).toBe(0);
  await sql`delete from subscriptions where tenant_id = ${tenantId}`;
  first.invalidations.publish("preferences", tenantId, "ann");
  expect((await first.one(tenantId, "ann")).wishes).toBeUndefined();
});

test("a lost connection to NATS empties the memory", async () => {
  const tenantId = randomUUID();
  const { one, state, invalidations } = await node({ alone: true });
  await one(tenantId, "ann");
  if ("reset" in invalidations) invalidations.reset();
  state.reads = 0;
  await one(tenantId, "ann");
  await one(tenantId, "ann");
  expect(state.reads).toBe(0); // Redis has them.
  await setEnabled(tenantId, "ann", false);
  invalidations.publish("preferences", tenantId, "ann");
  expect((await one(tenantId, "ann")).optedOut).toBe(true);
});

test("a Redis that does not answer costs 100 ms once, and what changed meanwhile is forgotten when it is back", async () => {
  await using proxy = await startProxy(redisUrl);
  const tenantId = randomUUID();
  const [far, near] = [await node({ url: proxy.url, alone: true }), await node({ alone: true })];
  await near.one(tenantId, "ann");
  await settled(near);

  proxy.silence();
  const started = performance.now();
  expect((await far.one(tenantId, "bob")).optedOut).toBe(false);
  expect(performance.now() - started).toBeLessThan(400);
  const again = performance.now();
  for (let n = 0; n < 20; n++) await far.one(tenantId, `bob${n}`);
  expect(performance.now() - again).toBeLessThan(400);

  await setEnabled(tenantId, "ann", false);
  far.invalidations.publish("preferences", tenantId, "ann");
  expect((await far.one(tenantId, "ann")).optedOut).toBe(true);
  await proxy.heal();
  far.state.now = new Date(far.state.now.getTime() + 1000);
  await vi.waitFor(async () => {
    await far.load(tenantId, [randomUUID()]);
    far.state.now = new Date(far.state.now.getTime() + 1000);
    expect((await (await node({ alone: true })).one(tenantId, "ann")).optedOut).toBe(true);
  });
});

test("without a connection to Redis it is Postgres that answers, and at once", async () => {
  await using proxy = await startProxy(redisUrl);
  const { one, cache } = await node({ url: proxy.url, alone: true });
  await proxy.refuse("close");
  proxy.cut("fin");
  await vi.waitFor(() => expect(cache.up()).toBe(false));
  const started = performance.now();
  for (let n = 0; n < 20; n++) await one(randomUUID(), "ann");
  expect(performance.now() - started).toBeLessThan(1000);
});

test("a user who is known costs microseconds", async () => {
  const tenantId = randomUUID();
  const { load } = await node({ alone: true });
  const users = Array.from({ length: 10_000 }, (_, n) => `user-${n}`);
  const chunks = Array.from({ length: 40 }, (_, n) => users.slice(n * 250, (n + 1) * 250));
  for (const chunk of chunks) await load(tenantId, chunk);
  await delay(0);
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 5; round++) {
    const started = performance.now();
    for (const chunk of chunks) await load(tenantId, chunk);
    best = Math.min(best, performance.now() - started);
  }
  // Aimed at: 5 µs. Thrice that, for a machine that has other things to do.
  expect((best * 1000) / users.length).toBeLessThan(15);
  if (process.env.SHOW_TIMES) process.stderr.write(`cached: ${((best * 1000) / users.length).toFixed(2)} µs a user\n`);
});
