import fc from "fast-check";
import { expect, test } from "vitest";
import { adaptiveSize, next, type Signals, type SizeBounds } from "#src/pipeline/adaptive.ts";
import type { Pressure } from "#src/pipeline/memory.ts";

const BOUNDS: SizeBounds = { min: 50, max: 250, targetMs: 500 };
const quick: Signals = { items: 250, backlog: 1_000_000, tookMs: 5, memory: "none" };
const PRESSURES: readonly Pressure[] = ["none", "tight", "over"];

const bounds = fc
  .record({ a: fc.integer({ min: 1, max: 1000 }), b: fc.integer({ min: 1, max: 1000 }) })
  .map(({ a, b }): SizeBounds => ({ min: Math.min(a, b), max: Math.max(a, b), targetMs: 500 }));
const within = ({ min, max }: SizeBounds) => fc.integer({ min, max });
const signals = fc.record({
  items: fc.nat(1000),
  backlog: fc.oneof(fc.nat(5000), fc.constant(Number.POSITIVE_INFINITY)),
  tookMs: fc.double({ min: 0, max: 2000, noNaN: true }),
  memory: fc.constantFrom(...PRESSURES),
});
const situation = bounds.chain((each) => fc.record({ bounds: fc.constant(each), size: within(each), signals }));

test("grows by half while more waits than one piece of work takes, up to the most", () => {
  const sizes = [50];
  for (let n = 0; n < 5; n++) sizes.push(next(sizes.at(-1) ?? 0, quick, BOUNDS));
  expect(sizes).toEqual([50, 75, 113, 170, 250, 250]);
});

test.each<[string, Partial<Signals>, number]>([
  ["as long as no more waits than a piece takes", { backlog: 100 }, 100],
  ["where the larger piece would not be done in time", { tookMs: 400 }, 100],
  ["halves when a piece took too long", { tookMs: 501 }, 50],
  ["when a small piece took too long, which says nothing", { tookMs: 501, items: 49, backlog: 0 }, 100],
  ["halves when memory is tight, however much waits", { memory: "tight" }, 50],
  ["falls to the least when there is no memory left", { memory: "over" }, 10],
])("stays, or changes: %s", (_, change, size) => {
  expect(next(100, { ...quick, items: 100, ...change }, { ...BOUNDS, min: 10 })).toBe(size);
});

test("is a whole number within its bounds, whatever happens", () => {
  fc.assert(
    fc.property(situation, ({ size, signals: told, bounds: { min, max, targetMs } }) => {
      const after = next(size, told, { min, max, targetMs });
      expect(Number.isInteger(after)).toBe(true);
      expect(after).toBeGreaterThanOrEqual(min);
      expect(after).toBeLessThanOrEqual(max);
    }),
  );
});

test("more pressure never makes it larger: shorter memory, longer time, less that waits", () => {
  fc.assert(
    fc.property(situation, signals, ({ size, signals: one, bounds: of }, other) => {
      const memory = Math.max(PRESSURES.indexOf(one.memory), PRESSURES.indexOf(other.memory));
      const worse: Signals = {
        items: one.items,
        backlog: Math.min(one.backlog, other.backlog),
        tookMs: Math.max(one.tookMs, other.tookMs),
        memory: PRESSURES[memory] ?? "over",
      };
      expect(next(size, worse, of)).toBeLessThanOrEqual(next(size, one, of));
    }),
  );
});

test("recovers: with memory and a backlog it comes to the most within a few pieces, from wherever it was", () => {
  fc.assert(
    fc.property(bounds, (of) => {
      let size = of.min;
      const steps = Math.ceil(Math.log(of.max / of.min) / Math.log(1.5));
      for (let n = 0; n < steps; n++) size = next(size, { ...quick, items: size }, of);
      expect(size).toBe(of.max);
    }),
  );
});

test("settles where a piece takes what it may, and does not swing to half of it and back", () => {
  const costs = fc.record({ fixed: fc.nat(100), each: fc.double({ min: 0.5, max: 8, noNaN: true }) });
  fc.assert(
    fc.property(costs, ({ fixed, each }) => {
      let size = BOUNDS.min;
      const seen: number[] = [];
      for (let n = 0; n < 40; n++) {
        const tookMs = fixed + each * size;
        size = next(size, { items: size, backlog: 1e6, tookMs, memory: "none" }, BOUNDS);
        seen.push(size);
      }
      expect(new Set(seen.slice(20)).size).toBe(1);
      if (size > BOUNDS.min) expect(fixed + each * size).toBeLessThanOrEqual(BOUNDS.targetMs);
    }),
  );
});

test("follows the work, tells of every change, and is the least at once when memory is over", () => {
  let memory: Pressure = "none";
  const told: number[] = [];
  const size = adaptiveSize(
    BOUNDS,
    () => memory,
    (each) => told.push(each),
  );
  const work = () => size.done({ items: size.now(), backlog: 1e6, tookMs: 1 });
  for (let n = 0; n < 6; n++) work();
  expect(size.now()).toBe(250);
  memory = "over";
  expect(size.now()).toBe(50);
  memory = "none";
  expect(size.now()).toBe(250);
  memory = "tight";
  work();
  expect(told).toEqual([50, 75, 113, 170, 250, 125]);
});
