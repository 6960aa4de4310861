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
import { freshServices } from "../support/services.ts";
import { until } from "../support/until.ts";

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

/** A worker on queues of its own. */
async function worker(deps: Pick<ConsumeDeps, "handle"> & Partial<ConsumeDeps>) {
  const stack = new AsyncDisposableStack();
  const { natsUrl: url, namespace } = stack.use(await freshServices());
  const broker = stack.use(await connectBroker({ url, namespace, replicas: 1 }, log));
  await ensureQueues(broker);
  stack.use(
    await startConsuming({
      broker,
      concurrencyPerLane: 2,
      chunk: { min: 100, max: 100, targetMs: 60_000 },
      memory: memoryOfTest(),
      way: giveWay(ONE),
      clock: () => new Date(),
      log,
      metrics: createMetrics(new Registry()),
      ...deps,
    }),
  );
  const publish = (lane: LaneName, tenantId: string, ids: string[], shard = shardOf(tenantId)) =>
    broker.js.publish(ingestShard(namespace, lane, shard), encodeWork({ tenantId, ids }));
  const consumer = (lane: LaneName, tenantId: string, shard = shardOf(tenantId)) =>
    broker.jsm.consumers.info(ingestStream(namespace, lane), routeConsumer(shard));
  return { broker, namespace, publish, consumer, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

/** Work that goes on until it is ended, by the first id of each piece. */
function holding() {
  const going = new Map<string, () => void>();
  return {
    hold: (work: Parameters<ConsumeDeps["handle"]>[0]) =>
      new Promise<void>((done) => {
        const [name = ""] = "ids" in work ? work.ids : [];
        going.set(name, () => {
          going.delete(name);
          done();
        });
      }),
    end: (name: string) => going.get(name)?.(),
    isGoing: (wanted: string[]) =>
      until(
        async () => [...going.keys()].sort().join(),
        (names) => names === wanted.sort().join(),
      ),
    [Symbol.dispose]() {
      for (const end of going.values()) end();
    },
  };
}

const idsOf = (name: string, count: number) => Array.from({ length: count }, (_, n) => `${name} ${n}`);

/** Again and again, until disposed. */
function steadily(work: () => unknown): Disposable {
  const again = setInterval(work, 50);
  return { [Symbol.dispose]: () => clearInterval(again) };
}

test("when memory is over no more is asked for, except for the critical lane, and it goes on when there is room", async () => {
  const memory = memoryOfTest();
  const handled: string[] = [];
  await using node = await worker({
    handle: async (work) => void handled.push(...("ids" in work ? work.ids : [])),
    chunk: { min: 2, max: 4, targetMs: 60_000 },
    memory,
  });
  let published = 0;
  const publish = async (lane: LaneName, count: number) => {
    for (let n = 0; n < count; n++) {
      const ids = Array.from({ length: 10 }, () => `${lane} ${published++}`);
      await node.publish(lane, FLOOD, ids);
    }
  };
  const of = (lane: string) => handled.filter((id) => id.startsWith(lane));
  const all = (lane: string, count: number) =>
    until(
      async () => of(lane).length,
      (n) => n === count,
    );
  await publish("normal", 1);
  await all("normal", 10);

  memory.become("over");
  await publish("normal", 40);
  await publish("critical", 3);
  await all("critical", 30);
  // What it had asked for comes; the rest stays on the queue.
  const { num_ack_pending, num_pending } = await until(
    () => node.consumer("normal", FLOOD),
    (told) => told.num_ack_pending > 0,
  );
  expect(num_ack_pending).toBeLessThanOrEqual(16);
  expect(num_ack_pending + num_pending).toBe(40);
  expect(of("normal")).toHaveLength(10);

  memory.become("none");
  await all("normal", 410);
  expect(new Set(handled).size).toBe(handled.length);
  expect(handled).toHaveLength(440);
});

test("the critical lane takes together what waits, as ever, when memory is short", async () => {
  const memory = memoryOfTest();
  memory.become("tight");
  const parts: number[] = [];
  const first = Promise.withResolvers<void>();
  await using node = await worker({
    handle: async (work) => {
      parts.push("ids" in work ? work.ids.length : 0);
      if (parts.length === 1) await first.promise;
    },
    concurrencyPerLane: 1,
    chunk: { min: 6, max: 6, targetMs: 60_000 },
    memory,
  });
  using ends = new DisposableStack();
  ends.defer(first.resolve);
  const publish = (id: string) => node.publish("critical", FLOOD, [id]);
  await publish("first");
  await until(
    async () => parts.length,
    (n) => n === 1,
  );
  for (let n = 0; n < 6; n++) await publish(`${n}`);
  await until(
    () => node.consumer("critical", FLOOD),
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
  const held = holding();
  const { hold, end, isGoing } = held;
  const isCritical = (work: Parameters<typeof hold>[0]) => "ids" in work && work.ids[0]?.startsWith("critical");
  await using node = await worker({ handle: async (work) => (isCritical(work) ? undefined : hold(work)) });
  using _held = held;
  const publish = (lane: LaneName, tenantId: string, count: number) =>
    node.publish(lane, tenantId, idsOf(`${lane} ${tenantId}`, count));
  await publish("critical", FLOOD, 1);
  const urgent = steadily(() => publish("critical", FLOOD, 1));
  using _urgent = urgent;

  await publish("low", FLOOD, 100);
  await isGoing(["low flood 0"]);
  await publish("normal", FLOOD, 100);
  await publish("high", FLOOD, 100);
  await publish("low", NEIGHBOUR, 3);
  await isGoing(["low flood 0", "high flood 0", "low neighbour 0"]);
  end("low flood 0");
  await isGoing(["normal flood 0", "high flood 0", "low neighbour 0"]);

  await publish("low", FLOOD, 100);
  urgent[Symbol.dispose]();
  await isGoing(["normal flood 0", "low flood 0", "high flood 0", "low neighbour 0"]);
});

test("while other tenants' little comes, chunks of a flood go one at a time over the lanes, high ones first", async () => {
  const held = holding();
  const { hold, end, isGoing } = held;
  const way = giveWay(ONE);
  let asked = 0;
  const counted: typeof way = {
    ...way,
    turn(...args) {
      asked++;
      return way.turn(...args);
    },
  };
  await using node = await worker({
    handle: async (work) => (work.tenantId === FLOOD ? hold(work) : undefined),
    way: counted,
  });
  using _held = held;
  const flood = (lane: LaneName) => node.publish(lane, FLOOD, idsOf(lane, 100));
  const little = () => node.publish("normal", NEIGHBOUR, ["one"]);
  await little();
  const comes = steadily(little);
  using _comes = comes;

  await flood("low");
  await isGoing(["low 0"]);
  await flood("normal");
  await flood("high");
  await until(
    async () => asked,
    (turns) => turns === 3,
  );
  end("low 0");
  await isGoing(["high 0"]);
  end("high 0");
  await isGoing(["normal 0"]);
  await flood("low");
  comes[Symbol.dispose]();
  await isGoing(["normal 0", "low 0"]);
});

test("the little of many tenants on one shard is no much of anybody's: none of it waits for a turn", async () => {
  const tenants = Array.from({ length: 200 }, (_, n) => `tenant-${n}`);
  const [first = ""] = tenants;
  const together = tenants.filter((tenant) => shardOf(tenant) === shardOf(first)).slice(0, 8);
  expect(together).toHaveLength(8);
  const handled = new Set<string>();
  const allAreHere = Promise.withResolvers<void>();
  await using node = await worker({
    async handle(work) {
      await allAreHere.promise;
      handled.add(work.tenantId);
    },
    way: { ...giveWay(ONE), turn: () => Promise.reject(new Error("it is little")) },
  });
  for (const tenant of together) await node.publish("normal", tenant, idsOf(tenant, 5));
  // Two are at work, and behind them is in line what would be much of one tenant.
  await until(
    () => node.consumer("normal", first),
    ({ num_ack_pending }) => num_ack_pending === together.length,
  );
  allAreHere.resolve();
  await until(
    async () => handled.size,
    (size) => size === together.length,
  );
});

test("a large message is handled in parts as large as the lane has come to, and acknowledged when all are done", async () => {
  const memory = memoryOfTest();
  const parts: number[] = [];
  let failed = false;
  const registry = new Registry();
  await using node = await worker({
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
    metrics: createMetrics(registry),
  });
  const ids = Array.from({ length: 100 }, (_, n) => `${n}`);
  await node.publish("low", FLOOD, ids);
  await until(
    async () => (await node.broker.jsm.streams.info(ingestStream(node.namespace, "low"))).state.messages,
    (n) => n === 0,
  );
  // 10 and 15 of it, 23 that fail; given out again from the beginning, while memory is tight.
  expect(parts).toEqual([10, 15, 23, ...[23, 11, 10, 10, 10, 10, 10, 10, 6]]);
  expect(await registry.metrics()).toContain('posthorn_route_chunk_size{lane="low"} 10');
});

/** One slot in each lane, and whatever has begun goes on until it is ended. */
async function slowWorker() {
  const begun: { who: string; ids: string[]; end: () => void }[] = [];
  const over = Promise.withResolvers<void>();
  const node = await worker({
    handle: async (work) => {
      const held = Promise.withResolvers<void>();
      begun.push({ who: work.tenantId, ids: "ids" in work ? work.ids : [], end: held.resolve });
      await Promise.race([held.promise, over.promise]);
    },
    concurrencyPerLane: 1,
    chunk: { min: 250, max: 250, targetMs: 60_000 },
  });
  return {
    ...node,
    begun,
    /** Until so many have. */
    begins: (count: number) =>
      until(
        async () => begun.length,
        (n) => n === count,
      ),
    async [Symbol.asyncDispose]() {
      over.resolve();
      await node[Symbol.asyncDispose]();
    },
  };
}

test("what came while a spare slot was waited for does not go with the little it is for", async () => {
  expect(shardOf(FLOOD)).not.toBe(shardOf(NEIGHBOUR));
  await using node = await slowWorker();
  const { begun, begins } = node;
  const publish = (tenantId: string, count: number) => node.publish("normal", tenantId, idsOf(tenantId, count));
  /** Until the worker holds so many of the neighbour's: told on its own connection, so behind the last of them. */
  const holds = async (count: number) => {
    await until(
      () => node.consumer("normal", NEIGHBOUR),
      ({ num_ack_pending }) => num_ack_pending === count,
    );
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
  await using node = await slowWorker();
  const { begun, begins } = node;
  const aside = floodShardBeside(shardOf(FLOOD));
  await node.publish("normal", FLOOD, idsOf("much", 200));
  await begins(1);
  await node.publish("normal", FLOOD, ["the end of a flood"], aside);
  await until(
    () => node.consumer("normal", FLOOD, aside),
    ({ num_ack_pending }) => num_ack_pending === 1,
  );
  await node.publish("normal", NEIGHBOUR, ["a neighbour's"]);
  await begins(2);
  begun[0]?.end();
  await begins(3);
  expect(begun.map(({ ids: [first] }) => first)).toEqual(["much 0", "a neighbour's", "the end of a flood"]);
});
