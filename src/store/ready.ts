import type { Store } from "./store.ts";

/** Longer than Postgres takes when it is busy, and short enough for whoever asks every second. */
const PATIENCE_MS = 1000;

/** Whether Postgres answers. However often it is asked, one question at a time is put; no answer in a second is a no. */
export function postgresReady(store: Pick<Store, "system">): () => Promise<boolean> {
  let asking: Promise<boolean> | undefined;
  return () => {
    asking ??= store
      .system((tx) => tx`select 1`)
      .then(
        () => true,
        () => false,
      )
      .finally(() => {
        asking = undefined;
      });
    const late = Promise.withResolvers<boolean>();
    const timer = setTimeout(late.resolve, PATIENCE_MS, false);
    return Promise.race([asking, late.promise]).finally(() => clearTimeout(timer));
  };
}
