import fc from "fast-check";
import { expect, test } from "vitest";
import { type FloodChange, SHARE, watchFloods } from "#src/pipeline/floods.ts";
import { CHUNK, type LaneName } from "#src/pipeline/flow.ts";

/** What is queued, `afterMs` after what came before it. */
const arrivals = fc.array(
  fc.record({ count: fc.integer({ min: 1, max: CHUNK }), afterMs: fc.integer({ min: 0, max: 3000 }) }),
  { maxLength: 60 },
);

const ignore = () => undefined;

/** Floods until the tenant is moved; gives back how many it took. */
function flood(floods: ReturnType<typeof watchFloods>, tenantId: string, nowMs: number): number {
  for (let count = CHUNK; count <= SHARE.burst + CHUNK; count += CHUNK)
    if (floods.isAside(tenantId, "low", CHUNK, nowMs)) return count;
  throw new Error("never moved");
}

test("who stays within the rate and the burst is never moved, however long", () => {
  fc.assert(
    fc.property(arrivals, (all) => {
      const floods = watchFloods(SHARE, ignore);
      let [allowed, nowMs] = [SHARE.burst, 0];
      for (const { count: wanted, afterMs } of all) {
        nowMs += afterMs;
        allowed = Math.min(SHARE.burst, allowed + (afterMs * SHARE.perSecond) / 1000);
        const count = Math.min(wanted * 8, Math.floor(allowed));
        allowed -= count;
        expect(floods.isAside("a", "low", count, nowMs)).toBe(false);
      }
    }),
  );
});

test("who floods is moved with the first that is beyond the burst, and back a minute after the last, at most", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 100_000 }), fc.integer({ min: 1, max: 2000 }), (more, stepMs) => {
      const floods = watchFloods(SHARE, ignore);
      expect(flood(floods, "a", 0)).toBe(SHARE.burst + CHUNK);
      for (let sent = 0; sent < more; sent += CHUNK) expect(floods.isAside("a", "low", CHUNK, 0)).toBe(true);
      // A little now and then keeps nobody away for twice as long.
      const backMs = (SHARE.most / SHARE.perSecond) * 1000;
      const returns = Array.from({ length: Math.ceil((2 * backMs) / stepMs) }, (_, n) =>
        floods.isAside("a", "low", Math.min(CHUNK, Math.floor(stepMs / 3)), (n + 1) * stepMs),
      );
      const [first, last] = [returns.indexOf(false), returns.lastIndexOf(true)];
      expect(first).toBe(last + 1);
      const silent = watchFloods(SHARE, ignore);
      flood(silent, "a", 0);
      for (let sent = 0; sent < more; sent += CHUNK) silent.isAside("a", "low", CHUNK, 0);
      expect(silent.isAside("a", "low", 1, backMs)).toBe(false);
    }),
    { numRuns: 30 },
  );
});

test("who has come back has the whole burst again", () => {
  const floods = watchFloods(SHARE, ignore);
  flood(floods, "a", 0);
  expect(flood(floods, "a", 100_000)).toBe(SHARE.burst + CHUNK);
});

test("what others queue, and what it queues on other lanes, changes nothing for a tenant", () => {
  const mixed = fc.array(
    fc.record({
      tenantId: fc.constantFrom("a", "b"),
      lane: fc.constantFrom<LaneName>("critical", "low"),
      count: fc.constantFrom(1, CHUNK, 8 * CHUNK),
      afterMs: fc.integer({ min: 0, max: 1500 }),
    }),
    { maxLength: 80 },
  );
  fc.assert(
    fc.property(mixed, (all) => {
      const [together, alone] = [watchFloods(SHARE, ignore), watchFloods(SHARE, ignore)];
      let nowMs = 0;
      for (const { tenantId, lane, count, afterMs } of all) {
        nowMs += afterMs;
        const isAside = together.isAside(tenantId, lane, count, nowMs);
        if (tenantId === "a" && lane === "low") expect(alone.isAside("a", "low", count, nowMs)).toBe(isAside);
      }
    }),
  );
});

test("each flood is told as it begins and as it has ended, with how much of it waited aside", () => {
  const mixed = fc.array(
    fc.record({
      tenantId: fc.constantFrom("a", "b", "c"),
      count: fc.constantFrom(1, CHUNK, 8 * CHUNK),
      afterMs: fc.constantFrom(0, 0, 500, 3000, 70_000),
    }),
    { maxLength: 60 },
  );
  fc.assert(
    fc.property(mixed, (all) => {
      const told: FloodChange[] = [];
      const floods = watchFloods(SHARE, (change) => told.push(change));
      const aside = new Map<string, number>();
      let nowMs = 0;
      for (const { tenantId, count, afterMs } of all) {
        nowMs += afterMs;
        const isAside = floods.isAside(tenantId, "low", count, nowMs);
        for (const change of told.splice(0)) {
          if (change.aside === undefined) {
            expect(aside.has(change.tenantId)).toBe(false);
            aside.set(change.tenantId, 0);
          } else {
            expect(change.aside).toBe(aside.get(change.tenantId));
            aside.delete(change.tenantId);
          }
        }
        expect(aside.has(tenantId)).toBe(isAside);
        if (isAside) aside.set(tenantId, (aside.get(tenantId) ?? 0) + count);
      }
      for (const tenantId of ["x", "x", "x"]) floods.isAside(tenantId, "low", 1, nowMs + 200_000);
      expect(told.map((change) => change.tenantId).sort()).toEqual([...aside.keys()].sort());
    }),
  );
});

test("no more are kept than may be: who has been silent longest is forgotten, and begins anew", () => {
  const KEPT = 50;
  const open = new Set<string>();
  const floods = watchFloods(
    SHARE,
    ({ tenantId, aside }) => void (aside === undefined ? open.add(tenantId) : open.delete(tenantId)),
    KEPT,
  );
  for (let n = 0; n < 300; n++) {
    flood(floods, `${n}`, 0);
    expect(open.size).toBeLessThanOrEqual(KEPT);
    // It floods all the time, and is not forgotten for those who came later.
    expect(floods.isAside("0", "low", 1, 0)).toBe(true);
  }
  expect([...open]).toEqual(["0", ...Array.from({ length: KEPT - 1 }, (_, n) => `${300 - KEPT + 1 + n}`)]);
  expect(flood(floods, "1", 0)).toBe(SHARE.burst + CHUNK);
});

test("a clock that stands still or goes back drains nothing twice", () => {
  const floods = watchFloods(SHARE, ignore);
  flood(floods, "a", 10_000);
  for (const nowMs of [10_000, 0, 11_000, 0, 11_000, 0, 11_500])
    expect(floods.isAside("a", "low", 1, nowMs)).toBe(true);
});
