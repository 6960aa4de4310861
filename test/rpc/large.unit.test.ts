import { expect, test } from "vitest";
import type { Exchange } from "#src/rpc/exchange.ts";
import { beforeDecoding } from "#src/rpc/large.ts";

const LARGE = new Uint8Array(16_384);
const SMALL = new Uint8Array(16_383);
const of = (tenantId: string) => ({ admitted: true, tenantId }) as Exchange;

test("of large messages that came at once each is decoded in a turn of its own, the tenants' in turn; small ones never wait", async () => {
  const names = ["a 1", "a 2", "b 1", "a 3"];
  const order: { name: string; turn: number }[] = [];
  let turn = 0;
  const count = () => {
    turn++;
    if (order.length < names.length) setImmediate(count);
  };
  setImmediate(count);
  const decoded = names.map(async (name) => {
    const [tenant = ""] = name.split(" ");
    await beforeDecoding(LARGE, of(tenant));
    order.push({ name, turn });
  });
  expect(beforeDecoding(SMALL, of("a"))).toBeUndefined();
  expect(order).toEqual([]);
  await Promise.all(decoded);
  expect(order.map(({ name }) => name)).toEqual(["a 1", "b 1", "a 2", "a 3"]);
  expect(new Set(order.map(({ turn }) => turn)).size).toBe(names.length);
});
