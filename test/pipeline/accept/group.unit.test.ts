import fc from "fast-check";
import { expect, test, vi } from "vitest";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault } from "#src/errors.ts";
import { type GroupOptions, groupCommit, type Settle } from "#src/pipeline/accept/group.ts";
import type { Pressure } from "#src/pipeline/memory.ts";

type Item = { n: number; weight: number; claims: string[] };

const item = (n: number, weight = 1, claims: string[] = []): Item => ({ n, weight, claims });
const OPTIONS: GroupOptions = { windowMs: 1, maxWeight: 10, concurrency: 2, maxWaitingWeight: 1000, littleWeight: 0 };

/** With promises, which tests read better by. */
function grouping(commit: (tenantId: string, items: readonly Item[]) => Promise<number[]>, options: GroupOptions) {
  const submit = groupCommit<Item, number>(
    commit,
    (each) => each.weight,
    (each) => each.claims,
    options,
  );
  return (tenantId: string, of: Item, isUrgent = false) =>
    new Promise<number>((resolve, reject) => {
      const settle: Settle<number> = (result) => ("error" in result ? reject(result.error) : resolve(result.outcome));
      submit(tenantId, of, settle, isUrgent);
    });
}

/** Commits that end when they are told to. */
function holding(options: Partial<GroupOptions> = {}) {
  const groups: { tenantId: string; items: readonly Item[]; end: (error?: Error) => void }[] = [];
  let told: (() => void) | undefined;
  const commit = (tenantId: string, items: readonly Item[]) =>
    new Promise<number[]>((resolve, reject) => {
      const end = (error?: Error) => (error === undefined ? resolve(items.map(({ n }) => n * 10)) : reject(error));
      groups.push({ tenantId, items, end });
      told?.();
    });
  const submit = grouping(commit, { ...OPTIONS, ...options });
  /** Settles when so many groups have begun. */
  const begun = (count: number) =>
    new Promise<void>((resolve) => {
      const look = () => groups.length >= count && resolve();
      told = look;
      look();
    });
  return { submit, groups, begun, numbers: () => groups.map(({ items }) => items.map(({ n }) => n)) };
}

test("what is submitted at the same time shares a group, and each gets its own outcome", async () => {
  const { submit, groups, begun, numbers } = holding();
  const outcomes = Promise.all([1, 2, 3].map((n) => submit("a", item(n))));
  await begun(1);
  expect(numbers()).toEqual([[1, 2, 3]]);
  groups[0]?.end();
  expect(await outcomes).toEqual([10, 20, 30]);
});

test("while submissions keep coming, groups begin a window apart", async () => {
  const { submit, groups, begun, numbers } = holding({ windowMs: 40 });
  const first = submit("a", item(1));
  await begun(1);
  const beganAtMs = performance.now();
  const others = Promise.all([submit("a", item(2)), submit("a", item(3))]);
  groups[0]?.end();
  await first;
  await begun(2);
  // Timers count whole milliseconds.
  expect(performance.now() - beganAtMs).toBeGreaterThan(35);
  expect(numbers()).toEqual([[1], [2, 3]]);
  groups[1]?.end();
  expect(await others).toEqual([20, 30]);
});

test("a lone submission waits for no window, and a full group neither", async () => {
  const { submit, groups, begun } = holding({ windowMs: 60_000, maxWeight: 2 });
  const first = submit("a", item(1));
  await begun(1);
  groups[0]?.end();
  await first;
  const second = submit("a", item(2));
  await begun(2);
  const full = Promise.all([submit("a", item(3)), submit("a", item(4))]);
  await begun(3);
  for (const group of groups) group.end();
  expect(await Promise.all([second, full])).toEqual([20, [30, 40]]);
});

test("tenants never share a group", async () => {
  const { submit, groups, begun } = holding();
  const outcomes = Promise.all([submit("a", item(1)), submit("b", item(2)), submit("a", item(3))]);
  await begun(2);
  expect(groups.map(({ tenantId, items }) => [tenantId, items.map(({ n }) => n)])).toEqual([
    ["a", [1, 3]],
    ["b", [2]],
  ]);
  for (const group of groups) group.end();
  expect(await outcomes).toEqual([10, 20, 30]);
});

test("a group closes at its greatest weight, and an item heavier than that goes alone", async () => {
  const { submit, groups, begun, numbers } = holding({ concurrency: 10 });
  const outcomes = Promise.all([4, 5, 3, 25, 1].map((weight, n) => submit("a", item(n, weight))));
  await begun(4);
  expect(numbers()).toEqual([[0, 1], [2], [3], [4]]);
  for (const group of groups) group.end();
  expect(await outcomes).toEqual([0, 10, 20, 30, 40]);
});

test("no more groups of a tenant are under way than allowed", async () => {
  const { submit, groups, begun, numbers } = holding({ maxWeight: 1 });
  const outcomes = Promise.all([1, 2, 3].map((n) => submit("a", item(n))));
  await begun(2);
  expect(numbers()).toEqual([[1], [2]]);
  groups[0]?.end();
  await begun(3);
  for (const group of groups) group.end();
  expect(await outcomes).toEqual([10, 20, 30]);
});

test("another tenant's begin at once, and beside them it is one of each", async () => {
  const { submit, groups, begun, numbers } = holding({ maxWeight: 1 });
  const outcomes = Promise.all([1, 2, 3].map((n) => submit("a", item(n))));
  const other = submit("b", item(9));
  await begun(3);
  expect(numbers()).toEqual([[1], [2], [9]]);
  groups[0]?.end();
  await new Promise((resolve) => setTimeout(resolve, 10));
  expect(groups).toHaveLength(3);
  groups[1]?.end();
  await begun(4);
  for (const group of groups) group.end();
  expect(await Promise.all([outcomes, other])).toEqual([[10, 20, 30], 90]);
});

test("two items that claim the same key never share a group, and the later one does not overtake", async () => {
  const { submit, groups, begun, numbers } = holding({ concurrency: 1 });
  const outcomes = Promise.all([
    submit("a", item(1, 1, ["x"])),
    submit("a", item(2, 1, ["x", "y"])),
    // Claims nothing that is under way, but what was passed over before it.
    submit("a", item(3, 1, ["y"])),
    submit("a", item(4)),
  ]);
  await begun(1);
  groups[0]?.end();
  await begun(2);
  groups[1]?.end();
  await begun(3);
  groups[2]?.end();
  expect(numbers()).toEqual([[1, 4], [2], [3]]);
  expect(await outcomes).toEqual([10, 20, 30, 40]);
});

test("an item waits for the commit under way that claims the same key, while others do not", async () => {
  const { submit, groups, begun, numbers } = holding({ maxWeight: 1 });
  const outcomes = Promise.all([submit("a", item(1, 1, ["x"])), submit("a", item(2, 1, ["x"])), submit("a", item(3))]);
  await begun(2);
  expect(numbers()).toEqual([[1], [3]]);
  groups[1]?.end();
  await new Promise((resolve) => setTimeout(resolve, 5));
  expect(numbers()).toHaveLength(2);
  groups[0]?.end();
  await begun(3);
  groups[2]?.end();
  expect(await outcomes).toEqual([10, 20, 30]);
});

test("a commit that fails refuses its group and no other", async () => {
  const { submit, groups, begun } = holding({ concurrency: 1, maxWeight: 2 });
  const outcomes = Promise.allSettled([1, 2, 3].map((n) => submit("a", item(n))));
  await begun(1);
  groups[0]?.end(new Error("no disk"));
  await begun(2);
  groups[1]?.end();
  expect((await outcomes).map((each) => each.status)).toEqual(["rejected", "rejected", "fulfilled"]);
});

test("what waits beyond the bound is refused as OVERLOADED, and room returns", async () => {
  const { submit, groups, begun } = holding({ maxWaitingWeight: 3 });
  const first = submit("a", item(1, 3));
  await begun(1);
  const refusal = await Promise.resolve()
    .then(() => submit("b", item(2)))
    .catch((error: unknown) => error);
  expect(refusal).toBeInstanceOf(Fault);
  expect((refusal as Fault).reason).toBe(ErrorReason.OVERLOADED);
  groups[0]?.end();
  await first;
  const second = submit("b", item(2, 3));
  await begun(2);
  groups[1]?.end();
  expect(await second).toBe(20);
});

test("who has little waiting is not refused for what others have, up to as much again", async () => {
  const { submit, groups, begun } = holding({ maxWaitingWeight: 10, littleWeight: 2 });
  const flood = submit("a", item(1, 10));
  await begun(1);
  const overloaded = { reason: ErrorReason.OVERLOADED };
  await expect(submit("a", item(2, 3))).rejects.toMatchObject(overloaded);
  await expect(submit("b", item(3, 3))).rejects.toMatchObject(overloaded);
  const little = ["b", "c", "d", "e", "f"].map((tenant, n) => submit(tenant, item(10 + n, 2)));
  await expect(submit("b", item(4))).rejects.toMatchObject(overloaded);
  await expect(submit("g", item(5))).rejects.toMatchObject(overloaded);
  await begun(6);
  for (const { end } of groups) end();
  expect(await Promise.all([flood, ...little])).toHaveLength(6);
});

test("while memory is over, what would have to wait is refused, what is urgent or finds nobody waiting is not", async () => {
  let pressure: Pressure = "over";
  let isHolding = () => false;
  const memory = {
    pressure: () => pressure,
    holder(holds: () => boolean) {
      isHolding = holds;
    },
  };
  const { submit, groups, begun } = holding({ memory });
  const taken = Array.from({ length: 20 }, (_, n) => submit("a", item(n)));
  expect(isHolding()).toBe(true);
  await expect(submit("a", item(20))).rejects.toMatchObject({ reason: ErrorReason.OVERLOADED });
  const urgent = submit("a", item(21), true);
  pressure = "tight";
  const after = submit("a", item(22));
  for (let n = 0; n < 3; n++) {
    await begun(n + 1);
    groups[n]?.end();
  }
  expect(await Promise.all([...taken, urgent, after])).toHaveLength(22);
  expect(isHolding()).toBe(false);
  pressure = "over";
  const large = submit("a", item(23, 50));
  await begun(4);
  groups[3]?.end();
  expect(await large).toBe(230);
});

test("whatever is submitted, groups obey weight and claims, keep the order of what claims the same, and answer all", async () => {
  const submissions = fc.array(
    fc.record({ weight: fc.integer({ min: 1, max: 12 }), claims: fc.subarray(["x", "y", "z"]), pause: fc.boolean() }),
    { maxLength: 30 },
  );
  await fc.assert(
    fc.asyncProperty(submissions, fc.integer({ min: 1, max: 3 }), async (list, concurrency) => {
      const groups: Item[][] = [];
      const underWay: string[] = [];
      let open = 0;
      let most = 0;
      const commit = async (_: string, items: readonly Item[]) => {
        groups.push([...items]);
        most = Math.max(most, ++open);
        const claims = items.flatMap((each) => each.claims);
        expect(underWay.filter((key) => claims.includes(key))).toEqual([]);
        underWay.push(...claims);
        await new Promise((resolve) => setImmediate(resolve));
        for (const key of claims) underWay.splice(underWay.indexOf(key), 1);
        open--;
        return items.map(({ n }) => n);
      };
      const submit = grouping(commit, { ...OPTIONS, concurrency, windowMs: 0 });
      const outcomes: Promise<number>[] = [];
      for (const [n, { weight, claims, pause }] of list.entries()) {
        outcomes.push(submit("a", item(n, weight, claims)));
        if (pause) await new Promise((resolve) => setImmediate(resolve));
      }
      expect(await Promise.all(outcomes)).toEqual(list.map((_, n) => n));
      expect(most).toBeLessThanOrEqual(concurrency);
      for (const group of groups) {
        const claims = group.flatMap((each) => each.claims);
        expect(new Set(claims).size).toBe(claims.length);
        const weight = group.reduce((sum, each) => sum + each.weight, 0);
        expect(weight <= OPTIONS.maxWeight || group.length === 1).toBe(true);
      }
      for (const key of ["x", "y", "z"]) {
        const order = groups
          .flat()
          .filter((each) => each.claims.includes(key))
          .map((each) => each.n);
        expect(order).toEqual(order.toSorted((a, b) => a - b));
      }
    }),
    { numRuns: 150 },
  );
});

test("a commit that something urgent waits for is told to hurry, also when it begins", async () => {
  const hurries: AbortSignal[] = [];
  const ends: (() => void)[] = [];
  const submit = groupCommit<Item, number>(
    (_, items, hurry) => {
      hurries.push(hurry);
      return new Promise((resolve) => ends.push(() => resolve(items.map(({ n }) => n))));
    },
    (each) => each.weight,
    (each) => each.claims,
    { ...OPTIONS, concurrency: 1 },
  );
  const settle = () => undefined;
  const hurried = () => hurries.map(({ aborted }) => aborted);
  submit("a", item(1, 10), settle);
  submit("a", item(2, 10), settle);
  submit("b", item(9, 10), settle, true);
  expect(hurried()).toEqual([false, false]);
  submit("a", item(3), settle, true);
  expect(hurried()).toEqual([true, false]);
  ends[0]?.();
  await vi.waitFor(() => expect(hurried()).toEqual([true, false, true]));
  ends[2]?.();
  await vi.waitFor(() => expect(hurried()).toEqual([true, false, true, false]));
});
