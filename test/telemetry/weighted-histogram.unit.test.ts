import fc from "fast-check";
import { Histogram, Registry } from "prom-client";
import { expect, test } from "vitest";
import { WeightedHistogram } from "#src/telemetry/weighted-histogram.ts";

const options = { name: "way_seconds", help: "A way.", buckets: [0.01, 0.1, 1, 10] };
const seen = fc.record({
  lane: fc.constantFrom("high", "low"),
  value: fc.oneof(fc.constantFrom(0, 0.01, 0.1, 1, 10), fc.double({ min: 0, max: 100, noNaN: true })),
  weight: fc.integer({ min: 1, max: 5 }),
});

test("says what prom-client's own says when it is told each observation by itself", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(seen), async (observations) => {
      const [mine, theirs] = [new Registry(), new Registry()];
      const weighted = new WeightedHistogram({ ...options, label: "lane", registry: mine });
      const plain = new Histogram({ ...options, labelNames: ["lane"], registers: [theirs] });
      for (const { lane, value, weight } of observations) {
        weighted.observe({ lane }, value, weight);
        for (let n = 0; n < weight; n++) plain.observe({ lane }, value);
      }
      // Sums differ in the last digits, as they are added up in another order.
      const text = async (registry: Registry) =>
        (await registry.metrics()).replaceAll(/(_sum\S* )(\S+)/g, (_, name, sum) => name + Number(sum).toPrecision(9));
      expect(await text(mine)).toBe(await text(theirs));
    }),
    { numRuns: 50 },
  );
});

test("a clock that is behind counts as no time", async () => {
  const registry = new Registry();
  new WeightedHistogram({ ...options, label: "lane", registry }).observe({ lane: "high" }, -5);
  expect(await registry.metrics()).toContain('way_seconds_bucket{le="0.01",lane="high"} 1');
});
