import { LRUCache } from "lru-cache";
import type { Invalidations } from "#src/broker/invalidations.ts";
import type { Store } from "#src/store/store.ts";
import { findType } from "./queries.ts";
import type { NotificationTypeRow } from "./type.ts";

export type TypeCatalogueDeps = {
  store: Store;
  invalidations: Pick<Invalidations, "on" | "onReset">;
  /** Whether NATS is connected, so that changes made by other processes are heard of at once. */
  listening: () => boolean;
  /** Milliseconds that never step back: a copy must not live longer because somebody set the clock. */
  ticks: () => number;
  /** Types remembered, over all tenants, and a tenth as many that are not there; the least used go first. Default 10,000. */
  max?: number;
};

/**
 * Copies of types, at most a second behind a change made anywhere: a change is told to every process, and while that
 * cannot be heard (NATS is away) a copy counts for one second. That a type does not exist is remembered just as long.
 */
export type TypeCatalogue = Disposable & {
  get(tenantId: string, key: string): Promise<NotificationTypeRow | undefined>;
  /** The same, from the database. */
  reload(tenantId: string, key: string): Promise<NotificationTypeRow | undefined>;
  /** Without waiting: the type, `null` when there is none, `undefined` when it has to be read with `get`. */
  peek(tenantId: string, key: string): NotificationTypeRow | null | undefined;
};

const DEAF_MS = 1000;
/** An invalidation can be lost without anyone noticing (at most once); even then a copy ends. */
const LISTENING_MS = 30_000;

type Copy = { row: NotificationTypeRow | null; readAt: number };

export function typeCatalogue(deps: TypeCatalogueDeps): TypeCatalogue {
  const { store, invalidations, listening, ticks, max = 10_000 } = deps;
  const copies = new LRUCache<string, Copy>({ max });
  /** Apart, so that a sender of made-up types pushes out none that there are. */
  const missing = new LRUCache<string, Copy>({ max: Math.ceil(max / 10) });
  /** Reads under way. One that is no longer in here was overtaken by a change, and its answer is not kept. */
  const reads = new Map<string, Promise<NotificationTypeRow | undefined>>();
  const nameOf = (tenantId: string, key: string) => `${tenantId}/${key}`;

  const peek: TypeCatalogue["peek"] = (tenantId, key) => {
    const name = nameOf(tenantId, key);
    const copy = copies.get(name) ?? missing.get(name);
    if (copy === undefined || ticks() - copy.readAt >= (listening() ? LISTENING_MS : DEAF_MS)) return undefined;
    return copy.row;
  };

  const read = (tenantId: string, key: string): Promise<NotificationTypeRow | undefined> => {
    const name = nameOf(tenantId, key);
    // The age counts from before the read: what changes during it is not in it.
    const readAt = ticks();
    const reading = store
      .tenantDb(tenantId, (db) => findType(db, tenantId, key))
      .then((row) => {
        if (reads.get(name) === reading) {
          const [into, outOf] = row === undefined ? [missing, copies] : [copies, missing];
          into.set(name, { row: row ?? null, readAt });
          outOf.delete(name);
        }
        return row;
      })
      .finally(() => {
        if (reads.get(name) === reading) reads.delete(name);
      });
    reads.set(name, reading);
    return reading;
  };

  const stack = new DisposableStack();
  stack.use(
    invalidations.on("type", (tenantId, key) => {
      copies.delete(nameOf(tenantId, key));
      missing.delete(nameOf(tenantId, key));
      reads.delete(nameOf(tenantId, key));
    }),
  );
  stack.use(
    invalidations.onReset(() => {
      copies.clear();
      missing.clear();
      reads.clear();
    }),
  );
  return {
    peek,
    reload: read,
    async get(tenantId, key) {
      const known = peek(tenantId, key);
      if (known !== undefined) return known ?? undefined;
      return reads.get(nameOf(tenantId, key)) ?? read(tenantId, key);
    },
    [Symbol.dispose]: () => stack.dispose(),
  };
}
