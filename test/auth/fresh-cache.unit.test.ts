import { expect, test } from "vitest";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { type FreshCacheOptions, freshCache } from "#src/auth/fresh-cache.ts";
import { Fault } from "#src/errors.ts";
import { faultOf } from "../support/rejection.ts";

/** A cache over a table in memory, whose reads are answered when the test says so. */
function cacheOf(rows: Map<string, string>, options: Partial<FreshCacheOptions<string>> = {}) {
  const reads: { keys: string[]; answer: () => void; fail: (error: Error) => void }[] = [];
  const time = { now: 0 };
  const cache = freshCache<string>({
    read: (keys) => {
      // As a statement does: sees the rows as they are when it begins.
      const seen = new Map(keys.flatMap((key) => (rows.has(key) ? [[key, rows.get(key)!] as const] : [])));
      return new Promise((resolve, reject) => reads.push({ keys, answer: () => resolve(seen), fail: reject }));
    },
    isAway: () => false,
    ttlMs: 1000,
    max: 1000,
    ticks: () => time.now,
    ...options,
  });
  return { cache, reads, time };
}
const turn = () => new Promise((done) => setImmediate(done));

test("one statement serves everybody who asks at the same time, and then nobody asks", async () => {
  const { cache, reads } = cacheOf(new Map([["a", "A"]]));
  const answers = Promise.all([cache.get("a"), cache.get("a"), cache.get("b")]);
  await turn();
  expect(reads.map(({ keys }) => keys)).toEqual([["a", "b"]]);
  reads[0]!.answer();
  expect(await answers).toEqual(["A", "A", undefined]);
  expect(cache.get("a")).toBe("A");
  expect(cache.get("b")).toBe(undefined);
  expect(reads).toHaveLength(1);
});

test("while there is no way to the rows one waits for the read that looks for it, and nobody else", async () => {
  let isAway = false;
  const { cache, reads } = cacheOf(new Map([["a", "A"]]), { isAway: () => isAway });
  const before = Promise.all([cache.get("a"), cache.get("a")]);
  await turn();
  reads[0]!.fail(new Error("silent"));
  await expect(before).rejects.toThrow("silent");
  isAway = true;
  const looks = cache.get("a");
  const refused = { reason: ErrorReason.DEPENDENCY_UNAVAILABLE };
  expect(await faultOf(Promise.resolve(cache.get("a")))).toMatchObject(refused);
  await turn();
  expect(await faultOf(Promise.resolve(cache.get("a")))).toMatchObject(refused);
  reads[1]!.answer();
  expect(await looks).toBe("A");
  expect(cache.get("a")).toBe("A");
});

test("a copy is not believed longer than its time, counted from before it was read", async () => {
  const { cache, reads, time } = cacheOf(new Map([["a", "A"]]));
  const first = cache.get("a");
  await turn();
  time.now = 400;
  reads[0]!.answer();
  await first;
  time.now = 999;
  expect(cache.get("a")).toBe("A");
  time.now = 1000;
  expect(cache.get("a")).toBeInstanceOf(Promise);
});

test("a row that changes while it is read is not kept as it was, and who asks after the change sees it", async () => {
  const rows = new Map([["a", "old"]]);
  const { cache, reads } = cacheOf(rows);
  const before = cache.get("a");
  await turn();
  rows.set("a", "new");
  cache.drop("a");
  const after = cache.get("a");
  await turn();
  reads[1]!.answer();
  expect(await after).toBe("new");
  reads[0]!.answer();
  expect(await before).toBe("old");
  expect(cache.get("a")).toBe("new");
});

test("a flood of unknown keys runs two statements at once, and a key asked for again none", async () => {
  const { cache, reads } = cacheOf(new Map(), { max: 10_000 });
  const keys = Array.from({ length: 5000 }, (_, index) => `k${index}`);
  const answers = Promise.all(keys.map((key) => cache.get(key)));
  let answered = 0;
  while (answered < reads.length || answered === 0) {
    await turn();
    expect(reads.length - answered).toBeLessThanOrEqual(2);
    reads[answered++]!.answer();
    await turn();
  }
  await answers;
  expect(reads).toHaveLength(10);
  for (const key of keys) expect(cache.get(key)).toBe(undefined);
});

test("when too many keys wait, the next is refused at once", async () => {
  const { cache, reads } = cacheOf(new Map());
  const waiting = Array.from({ length: 21_000 }, (_, index) => Promise.resolve(cache.get(`k${index}`)));
  const settled = Promise.allSettled(waiting);
  await expect(waiting.at(-1)).rejects.toBeInstanceOf(Fault);
  for (let next = 0; next < 40; next++) {
    await turn();
    reads[next]!.answer();
    await turn();
  }
  const refused = (await settled).filter(({ status }) => status === "rejected");
  expect(refused).toHaveLength(1000);
});

test("a failed read is told to those who wait and asked again for the next", async () => {
  const { cache, reads } = cacheOf(new Map([["a", "A"]]));
  const first = Promise.resolve(cache.get("a"));
  first.catch(() => undefined);
  await turn();
  reads[0]!.fail(new Error("away"));
  await expect(first).rejects.toThrow("away");
  const second = cache.get("a");
  await turn();
  reads[1]!.answer();
  expect(await second).toBe("A");
});
