import { EventEmitter, once } from "node:events";
import { Registry } from "prom-client";
import { expect, test } from "vitest";
import { connectBroker } from "#src/broker/broker.ts";
import { type ConsumeDeps, startConsuming } from "#src/pipeline/consume.ts";
import { ensureQueues } from "#src/pipeline/ensure-queues.ts";
import {
  encodeWork,
  floodShardBeside,
  ingestShard,
  ingestStream,
  type LaneName,
  routeConsumer,
  shardOf,
} from "#src/pipeline/flow.ts";
import { giveWay } from "#src/pipeline/give-way.ts";
import type { Pressure } from "#src/pipeline/memory.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { createMetrics } from "#src/telemetry/metrics.ts";
import { freshServices, type TestServices, testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

const services = await testServices();
const log = createLogger({ serviceName: "test", logLevel: "silent", logFormat: "json" });
const ONE = { pieces: 1, rest: 1 };
const [FLOOD, NEIGHBOUR] = ["flood", "neighbour"];

/** One that can be told how it stands, and lets go who waits when there is room. */
function memoryOfTest(): ConsumeDeps["memory"] & { become(pressure: Pressure): void } {
  let pressure: Pressure = "none";
  const room = new EventEmitter();
  return {
    pressure: () => pressure,
    room: async (signal) => void (await once(room, "there", { signal }).catch(() => undefined)),
    holder: () => undefined,
    become(next) {
      pressure = next;
      if (next !== "over") room.emit("there");
    },
  };
}

test("when memory is over no more is asked for, except for the critical lane, and it goes on when there is room", async () => {
  await using services = await freshServices();
  await using broker = await connectBroker({ url: services.natsUrl, namespace: services.namespace, replicas: 1 }, log);
  await ensureQueues(broker);
  const memory = memoryOfTest();
  const handled: string[] = [];
  await using _ = await startConsuming({
    broker,
    handle: async (work) => void handled.push(...("ids" in work ? work.ids : [])),
    concurrencyPerLane: 2,
    chunk: { min: 2, max: 4, targetMs: 60_000 },
    memory,
    way: giveWay(ONE),
    clock: () => new Date(),
    log,
    metrics: createMetrics(new Registry()),
  });
  let published = 0;
  const publish = async (lane: LaneName, count: number) => {
    for (let n = 0; n < count; n++) {
      const ids = Array.from({ length: 10 }, () => `${lane} ${published++}`);
      const work = { tenantId: FLOOD, ids };
      await broker.js.publish(ingestShard(services.namespace, lane, shardOf(FLOOD)), encodeWork(work));
    }
  };
  const of = (lane: string) => handled.filter((id) => id.startsWith(lane));
  const all = (lane: string, count: number) =>
    until(
      async () => of(lane).length,
      (n) => n === count,
    );
  const stream = ingestStream(services.namespace, "normal");
  const info = () => broker.jsm.consumers.info(stream, routeConsumer(shardOf(FLOOD)));
  await publish("normal", 1);
  await all("normal", 10);

  memory.become("over");
  await publish("normal", 40);
  await publish("critical", 3);
  await all("critical", 30);
  // What it had asked for comes; the rest stays on the queue.
  const { num_ack_pending, num_pending } = await until(info, (told) => told.num_ack_pending > 0);
  expect(num_ack_pending).toBeLessThanOrEqual(16);
  expect(num_ack_pending + num_pending).toBe(40);
  expect(of("normal")).toHaveLength(10);

  memory.become("none");
  await all("normal", 410);
  expect(new Set(handled).size).toBe(handled.length);
  expect(handled).toHaveLength(440);
});

test("the critical lane takes together what waits, as ever, when memory is short", async () => {
  await using services = await freshServices();
  await using broker = await connectBroker({ url: services.natsUrl, namespace: services.namespace, replicas: 1 }, log);
  await ensureQueues(broker);
  const memory = memoryOfTest();
  memory.become("tight");
  const parts: number[] = [];
  const first = Promise.withResolvers<void>();
  await using _ = await startConsuming({
    broker,
    handle: async (work) => {
      parts.push("ids" in work ? work.ids.length : 0);
      if (parts.length === 1) await first.promise;
    },
    concurrencyPerLane: 1,
    chunk: { min: 6, max: 6, targetMs: 60_000 },
    memory,
    way: giveWay(ONE),
    clock: () => new Date(),
    log,
    metrics: createMetrics(new Registry()),
  });
  using ends = new DisposableStack();
  ends.defer(first.resolve);
  const subject = ingestShard(services.namespace, "critical", shardOf(FLOOD));
  const publish = (id: string) => broker.js.publish(subject, encodeWork({ tenantId: FLOOD, ids: [id] }));
  const stream = ingestStream(services.namespace, "critical");
  await publish("first");
  await until(
    async () => parts.length,
    (n) => n === 1,
  );
  for (let n = 0; n < 6; n++) await publish(`${n}`);
  await until(
    () => broker.jsm.consumers.info(stream, routeConsumer(shardOf(FLOOD))),
    ({ num_ack_pending }) => num_ack_pending === 7,
  );
  // Told on its own connection, so behind the last of them.
  await new Promise(setImmediate);
  first.resolve();
  await until(
    async () => parts.reduce((sum, ids) => sum + ids, 0),
    (n) => n === 7,
  );
  expect(parts).toEqual([1, 6]);
});

test("while critical work comes, normal and low chunks go one at a time; high ones and what is little do not wait", async () => {
  await using services = await freshServices();
  await using broker = await connectBroker({ url: services.natsUrl, namespace: services.namespace, replicas: 1 }, log);
  await ensureQueues(broker);
  /** What is at work now, each with how to end it. */
  const going = new Map<string, () => void>();
  await using _ = await startConsuming({
    broker,
    handle: (work) =>
      new Promise((done) => {
        const [name = ""] = "ids" in work ? work.ids : [];
        if (name.startsWith("critical")) return done();
        going.set(name, () => {
          going.delete(name);
          done();
        });
      }),
    concurrencyPerLane: 2,
    chunk: { min: 100, max: 100, targetMs: 60_000 },
    memory: memoryOfTest(),
    way: giveWay(ONE),
    clock: () => new Date(),
    log,
    metrics: createMetrics(new Registry()),
  });
  using ends = new DisposableStack();
  ends.defer(() => {
    for (const end of going.values()) end();
  });
  const publish = (lane: LaneName, tenantId: string, count: number) => {
    const ids = Array.from({ length: count }, (_, n) => `${lane} ${tenantId} ${n}`);
    return broker.js.publish(ingestShard(services.namespace, lane, shardOf(tenantId)), encodeWork({ tenantId, ids }));
  };
  const isGoing = (wanted: string[]) =>
    until(
      async () => [...going.keys()].sort().join(),
      (names) => names === wanted.sort().join(),
    );
  await publish("critical", FLOOD, 1);
  using urgent = new DisposableStack();
  const again = setInterval(() => void publish("critical", FLOOD, 1), 50);
  urgent.defer(() => clearInterval(again));

  await publish("low", FLOOD, 100);
  await isGoing(["low flood 0"]);
  await publish("normal", FLOOD, 100);
  await publish("high", FLOOD, 100);
  await publish("low", NEIGHBOUR, 3);
  await isGoing(["low flood 0", "high flood 0", "low neighbour 0"]);
  going.get("low flood 0")?.();
  await isGoing(["normal flood 0", "high flood 0", "low neighbour 0"]);

  await publish("low", FLOOD, 100);
  urgent.dispose();
  await isGoing(["normal flood 0", "low flood 0", "high flood 0", "low neighbour 0"]);
});

test("while other tenants' little comes, chunks of a flood go one at a time over the lanes, high ones first", async () => {
  await using services = await freshServices();
  await using broker = await connectBroker({ url: services.natsUrl, namespace: services.namespace, replicas: 1 }, log);
  await ensureQueues(broker);
  const going = new Map<string, () => void>();
  const way = giveWay(ONE);
  let asked = 0;
  const counted: typeof way = {
    ...way,
    turn(...args) {
      asked++;
      return way.turn(...args);
    },
  };
  await using _ = await startConsuming({
    broker,
    handle: (work) =>
      new Promise((done) => {
        if (work.tenantId !== FLOOD) return done();
        const [name = ""] = "ids" in work ? work.ids : [];
        going.set(name, () => {
          going.delete(name);
          done();
        });
      }),
    concurrencyPerLane: 2,
    chunk: { min: 100, max: 100, targetMs: 60_000 },
    memory: memoryOfTest(),
    way: counted,
    clock: () => new Date(),
    log,
    metrics: createMetrics(new Registry()),
  });
  using ends = new DisposableStack();
  ends.defer(() => {
    for (const end of going.values()) end();
  });
  const publish = (lane: LaneName, tenantId: string, count: number) => {
    const ids = Array.from({ length: count }, (_, n) => `${lane} ${n}`);
    return broker.js.publish(ingestShard(services.namespace, lane, shardOf(tenantId)), encodeWork({ tenantId, ids }));
  };
  const isGoing = (wanted: string[]) =>
    until(
      async () => [...going.keys()].sort().join(),
      (names) => names === wanted.sort().join(),
    );
  await publish("normal", NEIGHBOUR, 1);
  using little = new DisposableStack();
  const again = setInterval(() => void publish("normal", NEIGHBOUR, 1), 50);
  little.defer(() => clearInterval(again));

  await publish("low", FLOOD, 100);
  await isGoing(["low 0"]);
  await publish("normal", FLOOD, 100);
  await publish("high", FLOOD, 100);
  await until(
    async () => asked,
    (turns) => turns === 3,
  );
  going.get("low 0")?.();
  await isGoing(["high 0"]);
  going.get("high 0")?.();
  await isGoing(["normal 0"]);
  await publish("low", FLOOD, 100);
  little.dispose();
  await isGoing(["normal 0", "low 0"]);
});

test("the little of many tenants on one shard is no much of anybody's: none of it waits for a turn", async () => {
  await using services = await freshServices();
  await using broker = await connectBroker({ url: services.natsUrl, namespace: services.namespace, replicas: 1 }, log);
  await ensureQueues(broker);
  const tenants = Array.from({ length: 200 }, (_, n) => `tenant-${n}`);
  const shard = shardOf(tenants[0] as string);
  const together = tenants.filter((tenant) => shardOf(tenant) === shard).slice(0, 8);
  expect(together).toHaveLength(8);
  for (const tenantId of together) {
    const ids = Array.from({ length: 5 }, (_, n) => `${tenantId} ${n}`);
    await broker.js.publish(ingestShard(services.namespace, "normal", shard), encodeWork({ tenantId, ids }));
  }
  const handled = new Set<string>();
  const allAreHere = Promise.withResolvers<void>();
  const way = giveWay(ONE);
  await using _ = await startConsuming({
    broker,
    async handle(work) {
      await allAreHere.promise;
      handled.add(work.tenantId);
    },
    concurrencyPerLane: 2,
    chunk: { min: 100, max: 100, targetMs: 60_000 },
    memory: memoryOfTest(),
    way: { ...way, turn: () => Promise.reject(new Error("it is little")) },
    clock: () => new Date(),
    log,
    metrics: createMetrics(new Registry()),
  });
  // Two are at work, and behind them is in line what would be much of one tenant.
  await until(
    () => broker.jsm.consumers.info(ingestStream(services.namespace, "normal"), routeConsumer(shard)),
    ({ num_ack_pending }) => num_ack_pending === together.length,
  );
  allAreHere.resolve();
  await until(
    async () => handled.size,
    (size) => size === together.length,
  );
});

test("a large message is handled in parts as large as the lane has come to, and acknowledged when all are done", async () => {
  await using services = await freshServices();
  await using broker = await connectBroker({ url: services.natsUrl, namespace: services.namespace, replicas: 1 }, log);
  await ensureQueues(broker);
  const memory = memoryOfTest();
  const parts: number[] = [];
  let failed = false;
  const registry = new Registry();
  await using _ = await startConsuming({
    broker,
    handle: async (work) => {
      if (!("ids" in work)) return;
      parts.push(work.ids.length);
      if (parts.length === 3 && !failed) {
        failed = true;
        memory.become("tight");
        throw new Error("in the middle");
      }
    },
    concurrencyPerLane: 1,
    chunk: { min: 10, max: 100, targetMs: 60_000 },
    memory,
    way: giveWay(ONE),
    clock: () => new Date(),
    log,
    metrics: createMetrics(registry),
  });
  const ids = Array.from({ length: 100 }, (_, n) => `${n}`);
  await broker.js.publish(ingestShard(services.namespace, "low", shardOf(FLOOD)), encodeWork({ tenantId: FLOOD, ids }));
  await until(
    async () => (await broker.jsm.streams.info(ingestStream(services.namespace, "low"))).state.messages,
    (n) => n === 0,
  );
  // 10 and 15 of it, 23 that fail; given out again from the beginning, while memory is tight.
  expect(parts).toEqual([10, 15, 23, ...[23, 11, 10, 10, 10, 10, 10, 10, 6]]);
  expect(await registry.metrics()).toContain('posthorn_route_chunk_size{lane="low"} 10');
});

/** One slot in each lane, and whatever has begun goes on until it is ended. */
async function slowWorker({ natsUrl: url, namespace }: Pick<TestServices, "natsUrl" | "namespace">) {
  const broker = await connectBroker({ url, namespace, replicas: 1 }, log);
  await ensureQueues(broker);
  const begun: { who: string; ids: string[]; end: () => void }[] = [];
  const over = Promise.withResolvers<void>();
  const consuming = await startConsuming({
    broker,
    handle: async (work) => {
      const held = Promise.withResolvers<void>();
      begun.push({ who: work.tenantId, ids: "ids" in work ? work.ids : [], end: held.resolve });
      await Promise.race([held.promise, over.promise]);
    },
    concurrencyPerLane: 1,
    chunk: { min: 250, max: 250, targetMs: 60_000 },
    memory: memoryOfTest(),
    way: giveWay(ONE),
    clock: () => new Date(),
    log,
    metrics: createMetrics(new Registry()),
  });
  return {
    broker,
    begun,
    /** Until so many have. */
    begins: (count: number) =>
      until(
        async () => begun.length,
        (n) => n === count,
      ),
    async [Symbol.asyncDispose]() {
      over.resolve();
      await consuming[Symbol.asyncDispose]();
      await broker[Symbol.asyncDispose]();
    },
  };
}

test("what came while a spare slot was waited for does not go with the little it is for", async () => {
  expect(shardOf(FLOOD)).not.toBe(shardOf(NEIGHBOUR));
  await using worker = await slowWorker(services);
  const { broker, begun, begins } = worker;
  const publish = (tenantId: string, count: number) => {
    const ids = Array.from({ length: count }, (_, n) => `${tenantId}-${n}`);
    return broker.js.publish(
      ingestShard(services.namespace, "normal", shardOf(tenantId)),
      encodeWork({ tenantId, ids }),
    );
  };
  /** Until the worker holds so many of the neighbour's: told on its own connection, so behind the last of them. */
  const holds = async (count: number) => {
    const stream = ingestStream(services.namespace, "normal");
    const info = () => broker.jsm.consumers.info(stream, routeConsumer(shardOf(NEIGHBOUR)));
    await until(info, ({ num_ack_pending }) => num_ack_pending === count);
    await new Promise(setImmediate);
  };

  await publish(FLOOD, 200);
  await begins(1);
  // The two spare slots that one shard may have, and the third waits for one.
  for (const count of [2, 3]) {
    await publish(NEIGHBOUR, 1);
    await begins(count);
  }
  await publish(NEIGHBOUR, 1);
  await holds(3);
  await publish(NEIGHBOUR, 200);
  await holds(4);
  begun[1]?.end();
  await begins(4);
  expect(begun.map(({ who, ids }) => `${ids.length} of ${who}`)).toEqual([
    "200 of flood",
    "1 of neighbour",
    "1 of neighbour",
    "1 of neighbour",
  ]);
  begun[0]?.end();
  await begins(5);
  expect(begun[4]?.who).toBe(NEIGHBOUR);
  expect(begun[4]?.ids).toHaveLength(200);
});

test("the spare slots are not for what is left of a flood: it has its turn", async () => {
  await using services = await freshServices();
  await using worker = await slowWorker(services);
  const { broker, begun, begins } = worker;
  const aside = floodShardBeside(shardOf(FLOOD));
  const publish = (tenantId: string, shard: number, ids: string[]) =>
    broker.js.publish(ingestShard(services.namespace, "normal", shard), encodeWork({ tenantId, ids }));
  const much = Array.from({ length: 200 }, (_, n) => `much ${n}`);
  await publish(FLOOD, shardOf(FLOOD), much);
  await begins(1);
  await publish(FLOOD, aside, ["the end of a flood"]);
  const stream = ingestStream(services.namespace, "normal");
  const held = () => broker.jsm.consumers.info(stream, routeConsumer(aside));
  await until(held, ({ num_ack_pending }) => num_ack_pending === 1);
  await publish(NEIGHBOUR, shardOf(NEIGHBOUR), ["a neighbour's"]);
  await begins(2);
  begun[0]?.end();
  await begins(3);
  expect(begun.map(({ ids: [first] }) => first)).toEqual(["much 0", "a neighbour's", "the end of a flood"]);
});
