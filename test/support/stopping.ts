import type { Store } from "#src/store/store.ts";

export type Stopped = {
  /** Resolves when somebody has come there. */
  reached: Promise<void>;
  release(): void;
};

/**
 * Stands between a node and its store, and stops the next transaction whose work names something: before it begins, or
 * between its statements and its commit.
 */
export function stoppingStore() {
  type Stop = { at: "before" | "uncommitted"; reached(): void; released: Promise<void> };
  const stops = new Map<string, Stop>();
  return {
    stop(what: string, at: Stop["at"]): Stopped {
      const reached = Promise.withResolvers<void>();
      const released = Promise.withResolvers<void>();
      stops.set(what, { at, reached: reached.resolve, released: released.promise });
      return { reached: reached.promise, release: released.resolve };
    },
    store: (store: Store): Store => ({
      ...store,
      async tenant(tenantId, work) {
        const named = String(work);
        const [what, stop] = [...stops].find(([name]) => named.includes(name)) ?? [];
        if (what === undefined || stop === undefined) return store.tenant(tenantId, work);
        stops.delete(what);
        const wait = () => {
          stop.reached();
          return stop.released;
        };
        if (stop.at === "before") {
          await wait();
          return store.tenant(tenantId, work);
        }
        return store.tenant(tenantId, async (tx) => {
          const result = await work(tx, () => undefined);
          await wait();
          return result;
        });
      },
      [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
    }),
  };
}
