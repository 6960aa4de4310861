import { expect, test } from "vitest";
import type { Stored } from "#src/pipeline/accept/commit.ts";
import { commitCurrent } from "#src/pipeline/accept/commit-current.ts";
import { StaleContract } from "#src/types/payload/stale.ts";

type Item = { name: string; draft: { type: string; contractId: string | undefined } };
const item = (name: string, type: string, contractId: string | undefined): Item => ({
  name,
  draft: { type, contractId },
});
const committed = (name: string) => ({ kind: "accepted", name }) as unknown as Stored;

test("what a contract has judged that has changed is refused; what shares the commit is stored, and once", async () => {
  const group = [item("a", "one", "1"), item("b", "plain", undefined), item("c", "two", "1"), item("d", "three", "1")];
  const tried: string[][] = [];
  const stale = ["one", "three"];
  const outcomes = await commitCurrent(group, async (current) => {
    tried.push(current.map(({ name }) => name));
    const changed = stale.find((type) => current.some(({ draft }) => draft.type === type));
    if (changed !== undefined) throw new StaleContract([changed]);
    return current.map(({ name }) => committed(name));
  });
  expect(tried).toEqual([
    ["a", "b", "c", "d"],
    ["b", "c", "d"],
    ["b", "c"],
  ]);
  expect(outcomes).toEqual([
    { kind: "refused", fault: expect.objectContaining({ types: ["one"] }) },
    committed("b"),
    committed("c"),
    { kind: "refused", fault: expect.objectContaining({ types: ["three"] }) },
  ]);
});

test("nothing is committed of nothing that is current, and another failure is everybody's", async () => {
  const group = [item("a", "one", "1")];
  const outcomes = await commitCurrent(group, () => Promise.reject(new StaleContract(["one"])));
  expect(outcomes).toMatchObject([{ kind: "refused" }]);
  await expect(commitCurrent(group, () => Promise.reject(new Error("down")))).rejects.toThrow("down");
  await expect(commitCurrent(group, () => Promise.reject(new StaleContract(["two"])))).rejects.toThrow(StaleContract);
});
