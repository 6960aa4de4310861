import { expect, test } from "vitest";
import { inTurn } from "#src/in-turn.ts";

test("so many run at a time and no more, in the order they came, and a failure makes room as well", async () => {
  const turn = inTurn(2);
  const began: number[] = [];
  let running = 0;
  let most = 0;
  const work = (n: number) =>
    turn(async () => {
      began.push(n);
      most = Math.max(most, ++running);
      await new Promise((resolve) => setImmediate(resolve));
      running--;
      if (n % 2 === 0) throw new Error("no");
      return n;
    });
  const outcomes = await Promise.allSettled(Array.from({ length: 9 }, (_, n) => work(n)));
  expect(began).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
  expect(most).toBe(2);
  expect(outcomes.map(({ status }) => status === "fulfilled")).toEqual(outcomes.map((_, n) => n % 2 === 1));
  expect(await work(11)).toBe(11);
});
