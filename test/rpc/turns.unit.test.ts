import { expect, test } from "vitest";
import { takingTurns } from "#src/rpc/turns.ts";

const turn = () => new Promise((resolve) => setImmediate(resolve));

test("a source with much to do does not keep another waiting", async () => {
  const turns = takingTurns(32);
  const [busy, other] = [{}, {}];
  const done: string[] = [];
  for (let n = 0; n < 1_000; n++) turns(busy, () => done.push("busy"));
  turns(other, () => done.push("other"));
  expect(done).toEqual([]);
  await turn();
  expect(done.indexOf("other")).toBe(1);
  // The loop has had its turn before all is done, and all is done in the end.
  expect(done.length).toBeLessThan(100);
  while (done.length < 1_001) await turn();
});

test("the work of one source keeps its order, and what it adds comes later", async () => {
  const turns = takingTurns(32);
  const source = {};
  const done: number[] = [];
  for (let n = 0; n < 5; n++)
    turns(source, () => {
      done.push(n);
      turns(source, () => done.push(n + 5));
    });
  while (done.length < 10) await turn();
  expect(done).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
});
