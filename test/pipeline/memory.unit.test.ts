import fc from "fast-check";
import { Registry } from "prom-client";
import { expect, onTestFinished, test, vi } from "vitest";
import { type Learned, learn, limitOf, type MemoryGuard, pressureOf, startMemoryGuard } from "#src/pipeline/memory.ts";
import { watchLiveMemory } from "#src/telemetry/live-memory.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { createMetrics } from "#src/telemetry/metrics.ts";
import { until } from "../support/until.ts";

const MB = 2 ** 20;
const threshold = 256 * MB;
const of = (live: number, floor = 0) => ({ live: live * MB, floor: floor * MB, threshold });

test.each([
  ["nothing is known yet", of(0), "none"],
  ["10,000 streams and work beside them", of(255, 216), "none"],
  ["work takes most of what it may", of(210), "tight"],
  ["more than the threshold", of(257), "over"],
  ["streams alone take more than the threshold", of(300, 300), "none"],
  ["they do, and work takes its quarter beside them", of(365, 300), "over"],
] as const)("pressure: %s", (_, held, pressure) => {
  expect(pressureOf(held)).toBe(pressure);
});

test("more that is alive never means less pressure, and what is left without work is never pressure", () => {
  const order = ["none", "tight", "over"];
  const bytes = fc.integer({ min: 0, max: 4096 });
  fc.assert(
    fc.property(bytes, bytes, bytes, (a, b, floor) => {
      const [less, more] = [pressureOf(of(Math.min(a, b), floor)), pressureOf(of(Math.max(a, b), floor))];
      expect(order.indexOf(less)).toBeLessThanOrEqual(order.indexOf(more));
      expect(pressureOf(of(floor, floor))).toBe("none");
      expect(limitOf(of(0, floor))).toBeGreaterThanOrEqual(threshold);
    }),
  );
});

test("the floor is what two collections leave without work between them, and never more than is alive", () => {
  const collections = fc.array(fc.record({ live: fc.nat(1000), isIdle: fc.boolean() }), { minLength: 1 });
  fc.assert(
    fc.property(collections, (list) => {
      let learned: Learned = { live: 0, floor: 0, idle: undefined };
      list.forEach(({ live, isIdle }, n) => {
        const before = learned;
        learned = learn(before, live, isIdle);
        expect(learned.floor).toBeLessThanOrEqual(learned.live);
        // It only rises by a second idle one that freed hardly anything.
        if (learned.floor > before.floor) {
          expect([isIdle, list[n - 1]?.isIdle]).toEqual([true, true]);
          expect(live).toBeGreaterThanOrEqual((list[n - 1]?.live ?? 0) * 0.95);
        }
      });
    }),
  );
});

/** A guard whose memory is said by the test. `left` is what a collection that it asks for leaves; undefined: it never ends. */
function guarding(besideBytes = 0): { guard: MemoryGuard; collected(mb: number): void; left(mb?: number): void } {
  let tell = (_: number): void => undefined;
  let leaves: number | undefined;
  const guard = startMemoryGuard(
    {
      watch: (collected) => {
        tell = collected;
        return { collect: () => leaves !== undefined && collected(leaves * MB), [Symbol.dispose]: () => undefined };
      },
      thresholdBytes: threshold,
      besideBytes: () => besideBytes,
      metrics: createMetrics(new Registry()),
      log: createLogger({ serviceName: "test", logLevel: "silent", logFormat: "json" }),
    },
    1000,
  );
  onTestFinished(() => guard[Symbol.dispose]());
  return { guard, collected: (mb) => tell(mb * MB), left: (mb) => (leaves = mb) };
}

/** Whether work may begin, now. */
async function mayBegin(guard: MemoryGuard): Promise<boolean> {
  const stop = new AbortController();
  let may = false;
  void guard.room(stop.signal).then(() => {
    may ||= !stop.signal.aborted;
  });
  await Promise.resolve();
  stop.abort();
  return may;
}

test("when the work is done it asks for a collection, and goes on by itself", async () => {
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "performance"] });
  onTestFinished(() => void vi.useRealTimers());
  const { guard, collected, left } = guarding();
  let inHand = true;
  guard.holder(() => inHand);
  collected(300);
  left(80);
  expect([guard.pressure(), await mayBegin(guard)]).toEqual(["over", false]);
  // Its work is in hand still: not every look is worth a collection.
  vi.advanceTimersByTime(3000);
  expect(guard.pressure()).toBe("over");
  const room = guard.room(new AbortController().signal);
  inHand = false;
  vi.advanceTimersByTime(1000);
  await room;
  expect(guard.pressure()).toBe("none");
});

test("what does not fall without work is not the work's, and does not keep it waiting for ever", async () => {
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "performance"] });
  onTestFinished(() => void vi.useRealTimers());
  const { guard, collected, left } = guarding();
  let inHand = true;
  guard.holder(() => inHand);
  collected(300);
  inHand = false;
  left(290);
  const room = guard.room(new AbortController().signal);
  vi.advanceTimersByTime(1000);
  expect(guard.pressure()).toBe("over");
  vi.advanceTimersByTime(1000);
  await room;
  expect(guard.pressure()).toBe("none");
  // From then on, a quarter of the threshold beside it.
  inHand = true;
  collected(290 + 65);
  expect(guard.pressure()).toBe("over");
});

test("work that hangs does not keep it from collecting now and then", () => {
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "performance"] });
  onTestFinished(() => void vi.useRealTimers());
  const { guard, collected, left } = guarding();
  guard.holder(() => true);
  collected(300);
  left(80);
  vi.advanceTimersByTime(4000);
  expect(guard.pressure()).toBe("over");
  vi.advanceTimersByTime(1000);
  expect(guard.pressure()).toBe("none");
});

test("open streams are no pressure, however many", () => {
  const { guard, collected } = guarding(350 * MB);
  guard.holder(() => true);
  collected(390);
  expect(guard.pressure()).toBe("none");
  collected(415);
  expect(guard.pressure()).toBe("over");
});

test("who waits is let go when it stops, and when the guard does", async () => {
  const { guard, collected } = guarding();
  guard.holder(() => true);
  collected(300);
  const stopping = new AbortController();
  const [stopped, disposed] = [guard.room(stopping.signal), guard.room(new AbortController().signal)];
  stopping.abort();
  await stopped;
  guard[Symbol.dispose]();
  await disposed;
});

test("the process's own memory: a collection that is asked for tells what is alive, and what was let go is not", async () => {
  const told: number[] = [];
  const watch = watchLiveMemory((live) => told.push(live));
  onTestFinished(() => watch[Symbol.dispose]());
  const leftBy = async () => {
    const before = told.length;
    watch.collect();
    await until(
      async () => told.length,
      (count) => count > before,
    );
    return told.at(-1) ?? 0;
  };
  const empty = await leftBy();
  const held: unknown[] = [Buffer.alloc(40 * MB, 1)];
  for (let n = 0; n < 400_000; n++) held.push({ n });
  const full = await leftBy();
  expect(full - empty).toBeGreaterThan(45 * MB);
  held.length = 0;
  expect(await leftBy()).toBeLessThan(full - 45 * MB);
});
