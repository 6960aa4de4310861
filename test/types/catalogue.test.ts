import { afterEach, beforeEach, expect, test } from "vitest";
import type { Store } from "#src/store/store.ts";
import { type TypeCatalogue, typeCatalogue } from "#src/types/catalogue.ts";
import { changeType, insertTypes, lockType, removeType } from "#src/types/queries.ts";
import { GENERAL_DEFINITION } from "#src/types/type.ts";
import { onPostgres } from "../support/on-postgres.ts";

const { store, time, invalidations, tenant } = await onPostgres();

let reads = 0;
let answered = 0;
let gate: Promise<void> = Promise.resolve();
const counting: Store = {
  ...store,
  async tenantDb(tenantId, work) {
    reads++;
    const answer = await store.tenantDb(tenantId, work);
    answered++;
    await gate;
    return answer;
  },
};
const nats = { up: true, ticks: 0 };
let catalogue: TypeCatalogue;
beforeEach(() => {
  Object.assign(nats, { up: true, ticks: 0 });
  reads = 0;
  answered = 0;
  gate = Promise.resolve();
  catalogue = typeCatalogue({
    store: counting,
    invalidations,
    listening: () => nats.up,
    ticks: () => nats.ticks,
    max: 3,
  });
});
afterEach(() => catalogue[Symbol.dispose]());

const add = (tenantId: string, key: string) =>
  store.tenantDb(tenantId, (db) => insertTypes(db, tenantId, [{ ...GENERAL_DEFINITION, key }], time.now));
const rename = (tenantId: string, key: string, displayName: string) =>
  store.tenantDb(tenantId, async (db) => {
    const row = await lockType(db, tenantId, key);
    if (row !== undefined) await changeType(db, row, { displayName }, time.now);
  });

test("a type is read once, whoever asks at once, and then known without waiting", async () => {
  const { tenantId } = tenant();
  await add(tenantId, "news");
  expect(catalogue.peek(tenantId, "news")).toBeUndefined();
  const answers = await Promise.all(Array.from({ length: 20 }, () => catalogue.get(tenantId, "news")));
  expect(new Set(answers.map((row) => row?.key))).toEqual(new Set(["news"]));
  expect(catalogue.peek(tenantId, "news")).toMatchObject({ key: "news", category: "general" });
  expect(reads).toBe(1);
});

test("that there is no such type is remembered until it is created", async () => {
  const { tenantId } = tenant();
  expect(await catalogue.get(tenantId, "news")).toBeUndefined();
  expect(catalogue.peek(tenantId, "news")).toBeNull();
  expect(await catalogue.get(tenantId, "news")).toBeUndefined();
  expect(reads).toBe(1);
  await add(tenantId, "news");
  invalidations.publish("type", tenantId, "news");
  expect(catalogue.peek(tenantId, "news")).toBeUndefined();
  expect(await catalogue.get(tenantId, "news")).toMatchObject({ key: "news" });
});

test("a change drops the copy of that type only", async () => {
  const { tenantId } = tenant();
  for (const key of ["news", "other"]) {
    await add(tenantId, key);
    await catalogue.get(tenantId, key);
  }
  await store.tenantDb(tenantId, (db) => removeType(db, tenantId, "news"));
  invalidations.publish("type", tenantId, "news");
  expect(await catalogue.get(tenantId, "news")).toBeUndefined();
  expect(catalogue.peek(tenantId, "other")).toMatchObject({ key: "other" });
});

test("a read that was overtaken by a change answers, but is not kept", async () => {
  const { tenantId } = tenant();
  await add(tenantId, "news");
  const held = Promise.withResolvers<void>();
  gate = held.promise;
  const early = catalogue.get(tenantId, "news");
  while (answered === 0) await new Promise(setImmediate);
  gate = Promise.resolve();
  await rename(tenantId, "news", "Changed");
  invalidations.publish("type", tenantId, "news");
  expect(await catalogue.get(tenantId, "news")).toMatchObject({ displayName: "Changed" });
  held.resolve();
  expect(await early).toMatchObject({ displayName: "General" });
  expect(catalogue.peek(tenantId, "news")).toMatchObject({ displayName: "Changed" });
});

test("without NATS a copy counts for a second, with it for half a minute", async () => {
  const { tenantId } = tenant();
  await add(tenantId, "news");
  await catalogue.get(tenantId, "news");
  nats.ticks = 29_999;
  expect(catalogue.peek(tenantId, "news")).not.toBeUndefined();
  nats.up = false;
  expect(catalogue.peek(tenantId, "news")).toBeUndefined();
  await rename(tenantId, "news", "Unheard");
  expect(await catalogue.get(tenantId, "news")).toMatchObject({ displayName: "Unheard" });
  nats.ticks += 999;
  expect(catalogue.peek(tenantId, "news")).not.toBeUndefined();
  nats.ticks += 1;
  expect(catalogue.peek(tenantId, "news")).toBeUndefined();
  nats.up = true;
  expect(catalogue.peek(tenantId, "news")).not.toBeUndefined();
  invalidations.reset();
  expect(catalogue.peek(tenantId, "news")).toBeUndefined();
});

test("the least used types make room", async () => {
  const { tenantId } = tenant();
  const keys = ["a", "b", "c", "d"];
  for (const key of keys) await add(tenantId, key);
  for (const key of keys) await catalogue.get(tenantId, key);
  expect(catalogue.peek(tenantId, "a")).toBeUndefined();
  expect(catalogue.peek(tenantId, "d")).toMatchObject({ key: "d" });
  // Those that are not there push out none that are.
  for (const key of ["e", "f", "g", "h"]) await catalogue.get(tenantId, key);
  expect(catalogue.peek(tenantId, "d")).toMatchObject({ key: "d" });
  expect(catalogue.peek(tenantId, "e")).toBeUndefined();
  expect(catalogue.peek(tenantId, "h")).toBeNull();
});

test("a type of one tenant is no type of another", async () => {
  const [one, other] = [tenant(), tenant()];
  await add(one.tenantId, "news");
  expect(await catalogue.get(one.tenantId, "news")).toBeDefined();
  expect(await catalogue.get(other.tenantId, "news")).toBeUndefined();
});
