import { expect, test } from "vitest";
import type { Store } from "#src/store/store.ts";
import { type Clients, startTestPlatform } from "../../support/platform.ts";
import { freshServices } from "../../support/services.ts";

const content = { title: "Hi" };

/** Sends one after the other until told, then gives the longest time between two, in milliseconds. The first is done. */
async function sending({ send }: Clients): Promise<() => Promise<number>> {
  const one = () => send.send({ to: { userIds: ["one"] }, content });
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

test("beside another tenant's Sends one group of a flood is stored at a time, and one that hangs keeps the next for a second", async () => {
  /** When transactions of the flooding tenant began, and what ends them. */
  const begun: { atMs: number; go: () => void }[] = [];
  let flooding: string | undefined;
  const held = (store: Store): Store => ({
    ...store,
    tenant: async (tenantId, work) => {
      if (tenantId === flooding) {
        const { promise, resolve } = Promise.withResolvers<void>();
        begun.push({ atMs: performance.now(), go: resolve });
        if (begun.length === 2) for (const { go } of begun) go();
        await promise;
      }
      return store.tenant(tenantId, work);
    },
  });
  await using services = await freshServices();
  await using platform = await startTestPlatform({ services, roles: ["api"], between: { store: held } });
  const flood = await platform.newTenant();
  const { send } = platform.clients(flood.apiKey);
  // To one who is known already: what is read of users is no piece of the flood.
  const items = Array.from({ length: 500 }, () => ({ to: { userIds: ["one"] }, content }));
  await send.send({ to: { userIds: ["one"] }, content });
  flooding = flood.tenantId;

  // A machine that stands still for half a second lets the second begin: nothing of others is expected any more.
  for (let attempt = 0; attempt < 5; attempt++) {
    begun.length = 0;
    const stop = await sending(platform.key);
    const answers = await Promise.all([send.sendBatch({ items }), send.sendBatch({ items })]);
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
