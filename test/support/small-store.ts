import { openStore, type Store } from "#src/store/store.ts";

/** A store of a test's own, for what it calls itself beside its platform: one connection for each kind of work. */
export function smallStore(url: string): Store {
  const pools = { hotPoolSize: 1, poolSize: 1, prepare: true };
  return openStore({ url, ...pools, statementTimeoutMs: 20_000, lockTimeoutMs: 10_000 });
}
