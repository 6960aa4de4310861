import { expect, test } from "vitest";
import { breather, mapInSlices } from "#src/breathe.ts";

const busy = (ms: number) => {
  const until = performance.now() + ms;
  while (performance.now() < until);
};
const turned = () => new Promise((resolve) => setImmediate(resolve));

test("what long work there is shares one slice of a turn, in the order of asking, and the loop turns in between", async () => {
  const breathe = breather(2);
  const steps: string[] = [];
  const work = async (name: string) => {
    for (let n = 1; n <= 3; n++) {
      await breathe();
      busy(3);
      steps.push(`${name}${n}`);
    }
  };
  let over = false;
  const turns = async () => {
    while (!over) {
      await turned();
      steps.push("-");
    }
  };
  const turning = turns();
  await Promise.all([work("a"), work("b")]);
  over = true;
  await turning;
  // Both asked before the first slice was used up.
  expect(steps.join(" ")).toMatch(/^a1 b1 (- )*a2 (- )+b2 (- )+a3 (- )+b3( -)*$/);
});

test("many items keep their order, and none is no trouble", async () => {
  const numbers = Array.from({ length: 500 }, (_, n) => n);
  const doubled = await mapInSlices(numbers, (n, index) => {
    busy(0.05);
    return n + index;
  });
  expect(doubled).toEqual(numbers.map((n) => 2 * n));
  expect(await mapInSlices([], () => 1)).toEqual([]);
});
