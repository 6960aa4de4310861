import fc from "fast-check";
import { expect, test } from "vitest";
import { type LaneSlots, laneSlots } from "#src/pipeline/lane-slots.ts";

const SIZE = 2;
const SPARE = 4;
const [FLOOD, NEIGHBOUR] = [1, 2];

type Asked = { give: (() => void) | undefined; isSpare?: boolean };

/** Tells whether it has begun, without waiting for it. */
function ask(slots: LaneSlots, shard: number, isLittle = false): Asked {
  const asked: Asked = { give: undefined };
  void slots.take(shard, isLittle).then((slot) => Object.assign(asked, slot));
  return asked;
}
const settled = () => new Promise((resolve) => setImmediate(resolve));
async function begun(all: readonly Asked[]): Promise<boolean[]> {
  await settled();
  return all.map(({ give }) => give !== undefined);
}

test("who is alone has all slots, and no more", async () => {
  const slots = laneSlots(SIZE, SPARE);
  expect(await begun([1, 2, 3].map(() => ask(slots, FLOOD)))).toEqual([true, true, false]);
  const others = laneSlots(SIZE, SPARE);
  expect(await begun([1, 2, 3].map(() => ask(others, FLOOD, true)))).toEqual([true, true, false]);
});

test("what is little begins at once beside a flood, two of a shard, and the flood gets nothing for it", async () => {
  const slots = laneSlots(SIZE, SPARE);
  const flood = [1, 2, 3].map(() => ask(slots, FLOOD));
  const little = [1, 2, 3].map(() => ask(slots, NEIGHBOUR, true));
  expect(await begun(little)).toEqual([true, true, false]);
  expect(await begun(flood)).toEqual([true, true, false]);
  expect([...flood, ...little].map(({ isSpare }) => isSpare)).toEqual([false, false, undefined, true, true, undefined]);
});

test("beside others with work a flood has one slot, and all of them again when they are done", async () => {
  const slots = laneSlots(SIZE, SPARE);
  const flood = [1, 2, 3, 4].map(() => ask(slots, FLOOD));
  const other = ask(slots, NEIGHBOUR);
  expect(await begun([...flood, other])).toEqual([true, true, false, false, false]);
  flood[0]?.give?.();
  expect(await begun([...flood, other])).toEqual([true, true, false, false, true]);
  flood[1]?.give?.();
  expect(await begun(flood)).toEqual([true, true, true, false]);
  other.give?.();
  expect(await begun(flood)).toEqual([true, true, true, true]);
});

test("any number of slots is divided among the shards that have work: none idles, and none has two more", async () => {
  const numbers = fc.record({ size: fc.integer({ min: 1, max: 12 }), among: fc.integer({ min: 2, max: 6 }) });
  await fc.assert(
    fc.asyncProperty(numbers, async ({ size, among }) => {
      const slots = laneSlots(size, SPARE);
      const shards = Array.from({ length: among }, (_, shard) => shard);
      // The first was alone, and had them all.
      const alone = Array.from({ length: size }, () => ask(slots, 0));
      expect((await begun(alone)).every(Boolean)).toBe(true);
      const asked = shards.map((shard) => Array.from({ length: size }, () => ask(slots, shard)));
      for (const { give } of alone) give?.();
      const held = await Promise.all(asked.map(async (all) => (await begun(all)).filter(Boolean).length));
      expect(held.reduce((sum, n) => sum + n)).toBe(size);
      expect(Math.max(...held) - Math.min(...held)).toBeLessThanOrEqual(1);
    }),
    { examples: [[{ size: 8, among: 3 }], [{ size: 3, among: 2 }], [{ size: 6, among: 3 }]] },
  );
});

test("whatever is asked and given: never more than there are, and everything has its turn", async () => {
  const asks = fc.record({ shard: fc.integer({ min: 0, max: 5 }), isLittle: fc.boolean(), gives: fc.boolean() });
  await fc.assert(
    fc.asyncProperty(fc.array(asks, { minLength: 1, maxLength: 40 }), async (all) => {
      const slots = laneSlots(SIZE, SPARE);
      const waiting: (Asked & { isLittle: boolean })[] = [];
      const atWork = () => waiting.filter(({ give }) => give !== undefined);
      let done = 0;
      const giveOne = () => {
        const [first] = atWork();
        if (first === undefined) return;
        waiting.splice(waiting.indexOf(first), 1);
        done++;
        first.give?.();
      };
      for (const { shard, isLittle, gives } of all) {
        waiting.push(Object.assign(ask(slots, shard, isLittle), { isLittle }));
        await settled();
        expect(atWork().length).toBeLessThanOrEqual(SIZE + SPARE);
        expect(atWork().filter((one) => !one.isLittle).length).toBeLessThanOrEqual(SIZE);
        if (gives) giveOne();
      }
      for (let n = 0; n < all.length && waiting.length > 0; n++) {
        await settled();
        giveOne();
      }
      expect(done).toBe(all.length);
    }),
    { numRuns: 100 },
  );
});
