import type { Circuit } from "#src/cache/circuit.ts";
import type { Cache } from "#src/cache/redis.ts";
import { loadScript } from "#src/cache/script.ts";
import type { NewId } from "#src/ids.ts";
import type { Copy, Owner } from "./queries.ts";

/** What Redis holds of one row: a copy, or nothing and whether a copy may be put there. */
export type Held = { kind: "copy"; copy: Copy } | { kind: "none"; ticket: string | undefined };

/**
 * Copies of rows in Redis, shared by all processes. A key holds either a copy (`=` and JSON), or a ticket (`!` and a
 * token) left by a change, or `#` while a change is under way.
 *
 * What a reader saw before it read Postgres is its ticket for `fill`. A change leaves a new ticket at the key, so the
 * copy of whoever read before it is refused, however slow they were; and while a change is under way nothing is put
 * there at all. Redis being away costs no more than the copies: all methods succeed.
 */
export type RedisCopies = {
  /** One round trip. Undefined when Redis does not answer. */
  read(tenantId: string, userIds: readonly string[]): Promise<Held[] | undefined>;
  /** Does not wait. */
  fill(tenantId: string, entries: readonly { copy: Copy; ticket: string }[]): void;
  /** After a change. Done before any later `read` of this process, or repeated until Redis answers. */
  forget(owner: Owner): void;
  /** Puts tickets in the place of copies that were found to be out of date; nothing that a change has put there is lost. */
  drop(tenantId: string, userIds: readonly string[]): Promise<void>;
  /** Before a change: keeps copies away for as long as a transaction can take. */
  block(owner: Owner): Promise<void>;
};

/** With the version of what is kept there: servers of two versions side by side must not read each other's. */
const KEYS = "preferences3";
const KEEP_MS = 3_600_000;
/** Longer than any reader may take between `read` and `fill`, or a writer between `block` and `forget`. */
const TICKET_MS = 60_000;
/** Changes remembered while Redis is away. Whoever changes more than that has other troubles than an hour-old copy. */
const MAX_FORGOTTEN = 100_000;

export function redisCopies(cache: Cache, circuit: Circuit, newId: NewId): RedisCopies {
  const { redis } = cache;
  const fillScript = loadScript(redis, new URL("./fill.lua", import.meta.url));
  const dropScript = loadScript(redis, new URL("./drop-copies.lua", import.meta.url));
  // The tenant as hash tag: a chunk's keys lie together in a cluster, so that one command can name them all.
  const keyOf = (tenantId: string, userId: string) => `${cache.namespace}:${KEYS}:{${tenantId}}:${userId}`;
  let forgotten = new Set<string>();
  let flushing = false;

  /** Sends what is to be forgotten on the connection that later reads use: Redis does it before them. */
  function flush(): Promise<unknown> | undefined {
    if (forgotten.size === 0) return undefined;
    const keys = forgotten;
    forgotten = new Set();
    const pipeline = redis.pipeline();
    for (const key of keys) pipeline.set(key, `!${newId()}`, "PX", TICKET_MS);
    return pipeline
      .exec()
      .then((results) => {
        const failed = results?.find(([error]) => error !== null);
        if (failed) throw failed[0];
      })
      .catch((error: unknown) => {
        for (const key of keys) if (forgotten.size < MAX_FORGOTTEN) forgotten.add(key);
        throw error;
      });
  }

  function flushSoon(): void {
    if (flushing) return;
    flushing = true;
    queueMicrotask(() => {
      flushing = false;
      void circuit.attempt(async () => flush());
    });
  }

  return {
    async read(tenantId, userIds) {
      return circuit.attempt(async () => {
        const flushed = flush();
        const values = redis.mget(userIds.map((userId) => keyOf(tenantId, userId)));
        const [found] = await Promise.all([values, flushed]);
        return found.map((value, index) => toHeld(value, userIds[index] ?? ""));
      });
    },
    fill(tenantId, entries) {
      if (entries.length === 0) return;
      const keys = entries.map(({ copy }) => keyOf(tenantId, copy.userId));
      const args = entries.flatMap(({ copy, ticket }) => [ticket, toValue(copy)]);
      void circuit.attempt(() => fillScript(keys, [KEEP_MS, ...args]));
    },
    forget({ tenantId, userId }) {
      if (forgotten.size < MAX_FORGOTTEN) forgotten.add(keyOf(tenantId, userId));
      flushSoon();
    },
    async drop(tenantId, userIds) {
      const keys = userIds.map((userId) => keyOf(tenantId, userId));
      await circuit.attempt(() => dropScript(keys, [`!${newId()}`, TICKET_MS]));
    },
    async block({ tenantId, userId }) {
      await circuit.attempt(() => redis.set(keyOf(tenantId, userId), "#", "PX", TICKET_MS));
    },
  };
}

function toValue({ document, language, timeZone, optIn, version, revision, subscriptions }: Copy): string {
  return `=${JSON.stringify([document, language, timeZone, optIn, version, revision, subscriptions])}`;
}

function toHeld(value: string | null, userId: string): Held {
  if (value?.startsWith("=")) {
    const [document, language, timeZone, optIn, version, revision, subscriptions] = JSON.parse(value.slice(1));
    return { kind: "copy", copy: { userId, document, language, timeZone, optIn, version, revision, subscriptions } };
  }
  return { kind: "none", ticket: value === "#" ? undefined : (value ?? "") };
}
