import type { Cached, Invalidations } from "#src/broker/invalidations.ts";

/** Invalidations within one test, without NATS: remembers what was published, and loses the connection on demand. */
export type LocalInvalidations = Invalidations & {
  readonly published: readonly (readonly [kind: Cached, tenantId: string, key: string])[];
  reset(): void;
};

export function localInvalidations(): LocalInvalidations {
  const published: [Cached, string, string][] = [];
  const handlers = new Map<Cached, Set<(tenantId: string, key: string) => void>>();
  const resets = new Set<() => void>();
  return {
    published,
    publish(kind, tenantId, key) {
      published.push([kind, tenantId, key]);
      for (const handler of handlers.get(kind) ?? []) handler(tenantId, key);
    },
    on(kind, handler) {
      const set = handlers.get(kind) ?? new Set();
      handlers.set(kind, set.add(handler));
      return { [Symbol.dispose]: () => void set.delete(handler) };
    },
    onReset(handler) {
      resets.add(handler);
      return { [Symbol.dispose]: () => void resets.delete(handler) };
    },
    reset() {
      for (const handler of resets) handler();
    },
  };
}
