import type { Broker } from "./broker.ts";

/** What caches hold copies of. */
export type Cached = "credential" | "type" | "preferences" | "user" | "tenant";

/**
 * Tells every process that a cached row changed. At most once: a message can be lost while NATS is away, so caches also
 * clear themselves on `onReset`, which comes when the connection is lost and again when it is back.
 */
export type Invalidations = {
  /** Call after the change is committed. `key` names the row within the tenant. */
  publish(kind: Cached, tenantId: string, key: string): void;
  on(kind: Cached, handler: (tenantId: string, key: string) => void): Disposable;
  onReset(handler: () => void): Disposable;
};

export function startInvalidations(broker: Broker): Invalidations & Disposable {
  const subject = `${broker.namespace}.invalidate`;
  const handlers = new Map<Cached, Set<(tenantId: string, key: string) => void>>();
  const subscription = broker.nats.subscribe(subject, {
    callback(error, message) {
      if (error !== null) return;
      const [kind, tenantId, key] = message.json<[Cached, string, string]>();
      for (const handler of handlers.get(kind) ?? []) handler(tenantId, key);
    },
  });
  return {
    publish(kind, tenantId, key) {
      // The local caches first: a caller reads its own write even when NATS is away.
      for (const handler of handlers.get(kind) ?? []) handler(tenantId, key);
      if (!broker.nats.isClosed()) broker.nats.publish(subject, JSON.stringify([kind, tenantId, key]));
    },
    on(kind, handler) {
      const set = handlers.get(kind) ?? new Set();
      handlers.set(kind, set.add(handler));
      return { [Symbol.dispose]: () => void set.delete(handler) };
    },
    onReset: (handler) => broker.onInterruption(handler),
    [Symbol.dispose]: () => subscription.unsubscribe(),
  };
}
