import type { Logger } from "#src/telemetry/logger.ts";
import type { Store } from "./store.ts";

/** Longer than Postgres takes when it is busy, and short enough for whoever asks every second. */
const PATIENCE_MS = 1000;

/**
 * Whether Postgres answers and takes writes: a standby, or one with `default_transaction_read_only`, answers everything
 * and takes none. However often it is asked, one question at a time is put; no answer in a second is a no.
 */
export function postgresReady(
  store: Pick<Store, "system">,
  log: Pick<Logger, "error" | "info">,
): () => Promise<boolean> {
  let asking: Promise<boolean> | undefined;
  let wasReadOnly = false;

  async function takesWrites(): Promise<boolean> {
    const [row] = await store.system(
      // Of this very transaction. On a standby it is on, whatever is set.
      (tx) => tx<{ readOnly: boolean }[]>`select current_setting('transaction_read_only')::boolean as "readOnly"`,
    );
    const readOnly = row?.readOnly === true;
    if (readOnly && !wasReadOnly) log.error("Postgres is read-only: not ready until it takes writes");
    if (!readOnly && wasReadOnly) log.info("Postgres takes writes again");
    wasReadOnly = readOnly;
    return !readOnly;
  }

  return () => {
    asking ??= takesWrites()
      .catch(() => false)
      .finally(() => {
        asking = undefined;
      });
    const late = Promise.withResolvers<boolean>();
    const timer = setTimeout(late.resolve, PATIENCE_MS, false);
    return Promise.race([asking, late.promise]).finally(() => clearTimeout(timer));
  };
}
