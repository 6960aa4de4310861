import { expect, test } from "vitest";
import { Priority } from "#gen/posthorn/v1/notification_pb.ts";
import type { GiveWay } from "#src/pipeline/give-way.ts";
import type { Store } from "#src/store/store.ts";
import { type Clients, startTestPlatform } from "../../support/platform.ts";
import { freshServices } from "../../support/services.ts";
import { until } from "../../support/until.ts";

const content = { title: "Hi" };
const to = { userIds: ["one"] };
const items = Array.from({ length: 500 }, () => ({ to, content }));

/** Sends one after the other until told, then gives the longest time between two, in milliseconds. The first is done. */
async function sending({ send }: Clients): Promise<() => Promise<number>> {
  const one = () => send.send({ to, content });
  let goesOn = true;
  let longestMs = 0;
  await one();
  const all = (async () => {
    for (let at = performance.now(); goesOn; ) {
      await one();
      const now = performance.now();
      longestMs = Math.max(longestMs, now - at);
      at = now;
    }
  })();
  return async () => {
    goesOn = false;
    await all;
    return longestMs;
  };
}

/** Transactions of tenants that flood, as they begin: each waits until it is let go. */
type Begun = { tenantId: string; atMs: number; go: () => void };

/** A node on which the transactions of tenants that flood are held, beside one whose Sends come steadily. */
async function flooded(onBegin: (begun: readonly Begun[]) => void) {
  const stack = new AsyncDisposableStack();
  const begun: Begun[] = [];
  const flooding = new Set<string>();
  const held = (store: Store): Store => ({
    ...store,
    tenant: async (tenantId, work) => {
      if (flooding.has(tenantId)) {
        const { promise, resolve } = Promise.withResolvers<void>();
        begun.push({ tenantId, atMs: performance.now(), go: resolve });
        onBegin(begun);
        await promise;
      }
      return store.tenant(tenantId, work);
    },
  });
  let asked = 0;
  const counted = (way: GiveWay): GiveWay => ({
    ...way,
    turn(...args) {
      asked++;
      return way.turn(...args);
    },
  });
  const services = stack.use(await freshServices());
  const between = { store: held, way: counted };
  const platform = stack.use(await startTestPlatform({ services, roles: ["api"], between }));
  return {
    begun,
    /** How often a turn was asked for. */
    asked: () => asked,
    beside: () => sending(platform.key),
    async flood() {
      const tenant = await platform.newTenant();
      const { send } = platform.clients(tenant.apiKey);
      // To one who is known already: what is read of users is no piece of the flood.
      await send.send({ to, content });
      flooding.add(tenant.tenantId);
      return { ...tenant, send };
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

test("beside another tenant's Sends one group of floods is stored at a time, and one that hangs keeps the next for a second", async () => {
  await using node = await flooded((begun) => {
    if (begun.length === 2) for (const { go } of begun) go();
  });
  const { begun } = node;
  const [a, b] = [await node.flood(), await node.flood()];
  // A machine that stands still for half a second lets the second begin: nothing of others is expected any more.
  for (let attempt = 0; attempt < 5; attempt++) {
    begun.length = 0;
    const stop = await node.beside();
    const answers = await Promise.all([a.send.sendBatch({ items }), b.send.sendBatch({ items })]);
    const longestMs = await stop();
    for (const { results } of answers) expect(results).toHaveLength(500);
    expect(begun).toHaveLength(2);
    if (longestMs > 300) continue;
    const [first, second] = begun.map(({ atMs }) => atMs);
    expect((second ?? 0) - (first ?? 0)).toBeGreaterThan(900);
    return;
  }
  throw new Error("the machine is too slow to tell");
});

test("what is CRITICAL does not wait for the turn of what its tenant has before it", async () => {
  await using node = await flooded((begun) => {
    const [first, ...others] = begun;
    for (const { go } of others) go();
    if (others.length > 1) first?.go();
  });
  const { begun } = node;
  const [a, b] = [await node.flood(), await node.flood()];
  // Once quickly enough is enough: the second that one which hangs keeps others for is never less.
  for (let attempt = 0; attempt < 5; attempt++) {
    begun.length = 0;
    const before = node.asked();
    const stop = await node.beside();
    const hanging = a.send.sendBatch({ items });
    await until(
      async () => begun.length,
      (length) => length === 1,
    );
    const large = b.send.sendBatch({ items });
    await until(
      async () => node.asked() - before,
      (turns) => turns === 2,
    );
    const critical = b.send.send({ to, content, priority: Priority.CRITICAL });
    await Promise.all([hanging, large, critical]);
    await stop();
    expect(begun.map(({ tenantId }) => tenantId)).toEqual([a.tenantId, b.tenantId, b.tenantId]);
    const [first, second] = begun.map(({ atMs }) => atMs);
    if ((second ?? 0) - (first ?? 0) < 900) return;
  }
  throw new Error("it waited each time");
});
