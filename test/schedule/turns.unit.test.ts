import fc from "fast-check";
import { expect, test } from "vitest";
import { turnsOf } from "#src/schedule/turns.ts";

const due = fc
  .uniqueArray(
    fc.record({
      lane: fc.integer({ min: 1, max: 4 }),
      tenantId: fc.stringMatching(/^[a-f]$/),
      count: fc.integer({ min: 1, max: 500 }),
    }),
    {
      selector: ({ lane, tenantId }) => `${lane}${tenantId}`,
    },
  )
  .map((given) => given.toSorted((a, b) => b.lane - a.lane));
const sum = (sizes: readonly { size: number }[]) => sizes.reduce((total, { size }) => total + size, 0);

test("as many are sent as may be, nobody more than are due, the more urgent first, and each tenant its share", () => {
  fc.assert(
    fc.property(due, fc.integer({ min: 1, max: 1000 }), (given, limit) => {
      const turns = turnsOf(given, limit);
      const all = given.reduce((total, { count }) => total + count, 0);
      expect(sum(turns)).toBe(Math.min(limit, all));
      expect(turns.map(({ lane }) => lane)).toEqual(turns.map(({ lane }) => lane).toSorted((a, b) => b - a));
      let left = limit;
      for (const [lane, tenants] of Map.groupBy(given, (each) => each.lane)) {
        const own = turns.filter((turn) => turn.lane === lane);
        for (const { tenantId, count } of tenants) {
          const mine = sum(own.filter((turn) => turn.tenantId === tenantId));
          expect(mine).toBeLessThanOrEqual(count);
          // Its share, unless it has less; what does not divide may be wanting to the last of them.
          const share = Math.min(100, Math.floor(left / tenants.length));
          expect(mine).toBeGreaterThanOrEqual(Math.min(count, share) - tenants.length);
        }
        expect(own.every(({ size }) => size >= 1 && size <= 100)).toBe(true);
        left -= sum(own);
      }
    }),
  );
});

test("one tenant's few come before another's second turn", () => {
  const turns = turnsOf(
    [
      { lane: 2, tenantId: "many", count: 1000 },
      { lane: 2, tenantId: "few", count: 3 },
    ],
    100,
  );
  expect(turns).toEqual([
    { lane: 2, tenantId: "many", size: 50 },
    { lane: 2, tenantId: "few", size: 3 },
    { lane: 2, tenantId: "many", size: 47 },
  ]);
});
