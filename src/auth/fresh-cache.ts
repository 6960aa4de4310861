import { LRUCache } from "lru-cache";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault } from "#src/errors.ts";

/**
 * Copies of rows, never older than `ttlMs` says. That a row does not exist is remembered just as long.
 *
 * A key that is present answers without a promise. The others are read in batches, at most two statements at once, so
 * that a flood of keys nobody has costs Postgres no more than a steady trickle.
 */
export type FreshCache<V> = {
  /**
   * Rejects with what the read threw, with OVERLOADED when too many keys wait, and with DEPENDENCY_UNAVAILABLE where the
   * key is being read while there is no way to where it is.
   */
  get(key: string): V | undefined | Promise<V | undefined>;
  /** From now on the row is read anew, also where a read that began earlier has yet to answer. */
  drop(key: string): void;
  /** What the row is now known to be. */
  put(key: string, value: V): void;
  dropWhere(belongs: (value: V) => boolean): void;
  clear(): void;
};

export type FreshCacheOptions<V> = {
  /** Reads rows by key; keys without a row are left out. At most `BATCH` keys a call. */
  read(keys: string[]): Promise<ReadonlyMap<string, V>>;
  /** Whether there is no way to the rows, so that one read looks for it and the others are refused. */
  isAway(): boolean;
  ttlMs: number | (() => number);
  /** Keys remembered; the least used go first. */
  max: number;
  /** Milliseconds that never step back: a cache must not live longer because somebody set the clock. */
  ticks: () => number;
};

const BATCH = 500;
const MAX_STATEMENTS = 2;
const MAX_WAITING = 20_000;

type Copy<V> = { value: V | undefined; readAt: number };
type Waiting<V> = { key: string; answer: PromiseWithResolvers<V | undefined> };

export function freshCache<V>({ read, isAway, ttlMs, max, ticks }: FreshCacheOptions<V>): FreshCache<V> {
  const ttl = typeof ttlMs === "number" ? () => ttlMs : ttlMs;
  const copies = new LRUCache<string, Copy<V>>({ max });
  /** What is being read or waits for it. An entry that was dropped meanwhile is no longer in here. */
  const pending = new Map<string, Waiting<V>>();
  const queue: Waiting<V>[] = [];
  let statements = 0;

  const pump = () => {
    while (queue.length > 0 && statements < MAX_STATEMENTS) {
      const batch = queue.splice(0, BATCH);
      statements++;
      void answer(batch).finally(() => {
        statements--;
        pump();
      });
    }
  };

  const answer = async (batch: Waiting<V>[]) => {
    // The age counts from before the read: what changes during it is not in it.
    const readAt = ticks();
    const isCurrent = (waiting: Waiting<V>) => pending.get(waiting.key) === waiting;
    try {
      const values = await read([...new Set(batch.map(({ key }) => key))]);
      for (const waiting of batch) {
        const value = values.get(waiting.key);
        if (isCurrent(waiting)) {
          pending.delete(waiting.key);
          copies.set(waiting.key, { value, readAt });
        }
        waiting.answer.resolve(value);
      }
    } catch (error) {
      for (const waiting of batch) {
        if (isCurrent(waiting)) pending.delete(waiting.key);
        waiting.answer.reject(error);
      }
    }
  };

  const enqueue = (key: string): Promise<V | undefined> => {
    if (queue.length >= MAX_WAITING) return Promise.reject(new Fault(ErrorReason.OVERLOADED));
    const waiting = { key, answer: Promise.withResolvers<V | undefined>() };
    pending.set(key, waiting);
    // Whatever else asks in this turn of the loop goes into the same statement.
    if (queue.push(waiting) === 1) queueMicrotask(pump);
    return waiting.answer.promise;
  };

  return {
    get(key) {
      const copy = copies.get(key);
      if (copy !== undefined && ticks() - copy.readAt < ttl()) return copy.value;
      const read = pending.get(key);
      if (read === undefined) return enqueue(key);
      // The one that looks may take long. Everybody with this key would wait with it, where others are refused at once.
      return isAway() ? Promise.reject(new Fault(ErrorReason.DEPENDENCY_UNAVAILABLE)) : read.answer.promise;
    },
    drop(key) {
      copies.delete(key);
      pending.delete(key);
    },
    put(key, value) {
      pending.delete(key);
      copies.set(key, { value, readAt: ticks() });
    },
    dropWhere(belongs) {
      for (const [key, { value }] of copies.entries()) {
        if (value !== undefined && belongs(value)) copies.delete(key);
      }
      // Nobody knows yet whose rows these will be.
      pending.clear();
    },
    clear() {
      copies.clear();
      pending.clear();
    },
  };
}
