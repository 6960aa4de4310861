import { isDeepStrictEqual } from "node:util";
import { LRUCache } from "lru-cache";
import type { Preferences } from "#gen/posthorn/v1/preferences_service_pb.ts";
import type { Invalidations } from "#src/broker/invalidations.ts";
import { circuit } from "#src/cache/circuit.ts";
import type { Cache } from "#src/cache/redis.ts";
import type { Clock } from "#src/clock.ts";
import type { NewId } from "#src/ids.ts";
import type { Store } from "#src/store/store.ts";
import { filterEvaluator } from "#src/subscriptions/evaluate.ts";
import { wishesOf } from "#src/subscriptions/rules.ts";
import { type CompiledPreferences, compile } from "./compile.ts";
import { fromDocument } from "./document.ts";
import { type Copy, type Owner, readCopies } from "./queries.ts";
import { redisCopies } from "./redis-copies.ts";
import { zoneClocks } from "./zone-clock.ts";

export type PreferenceCacheDeps = {
  store: Store;
  cache: Cache;
  invalidations: Invalidations;
  /** Whether invalidations arrive now (`broker.up`). */
  connected: () => boolean;
  clock: Clock;
  newId: NewId;
  /** Users held in this process. Some 300 bytes each for those who have set nothing. */
  maxUsers?: number;
};

/**
 * What holds for users, for deciding: this process → Redis → Postgres, one round trip each for however many users.
 *
 * A change published through Invalidations ("preferences", "user", and with an empty key or "type" the tenant's) shows
 * in every process as soon as the message arrives: within milliseconds. Where messages can be lost, while NATS is away,
 * values are at most half a second old before Redis is asked again. Without Redis it is Postgres that is asked.
 */
export type PreferenceCache = Disposable & {
  /** One answer for every id; users who have set nothing, or do not exist, have what the tenant gives. */
  load(tenantId: string, userIds: readonly string[]): Promise<Map<string, CompiledPreferences>>;
  /** The same of what has been found to be out of date, here and in Redis: read anew from Postgres. */
  reload(tenantId: string, userIds: readonly string[]): Promise<Map<string, CompiledPreferences>>;
  /** Await before a transaction that changes what is cached, and publish an invalidation after it. */
  aboutToChange(owner: Owner): Promise<void>;
};

/** What users of a tenant have in common. */
type Base = {
  copy: Copy;
  preferences: Preferences | undefined;
  optIn: Set<string>;
  plain: Map<string, CompiledPreferences>;
};
type Entry = { copy: Copy; loadedAt: number; base: Base | undefined; compiled: CompiledPreferences | undefined };

const MAX_AGE_MS = 60_000;
const MAX_AGE_DISCONNECTED_MS = 500;
/** Zones and languages of those who have set nothing. */
const MAX_PLAIN = 1000;

export function preferenceCache(deps: PreferenceCacheDeps): PreferenceCache {
  const { store, cache, invalidations, connected, clock, newId } = deps;
  const copies = redisCopies(cache, circuit({ up: () => cache.up(), clock: () => clock().getTime() }), newId);
  const clockOf = zoneClocks();
  const evaluator = filterEvaluator();
  const entries = new LRUCache<string, Entry>({ max: deps.maxUsers ?? 50_000 });
  const bases = new LRUCache<string, { base: Base; loadedAt: number }>({ max: 10_000 });
  /** Loads under way, each with what was invalidated since it began and must not be kept. */
  const loading = new Set<{ stale: Set<string>; all: boolean }>();

  const keyOf = (tenantId: string, userId: string) => `${tenantId} ${userId}`;

  function forgetHere(tenantId: string, userId: string): void {
    const key = keyOf(tenantId, userId);
    if (userId === "") bases.delete(tenantId);
    else entries.delete(key);
    for (const load of loading) load.stale.add(key);
  }

  function forget(tenantId: string, userId: string): void {
    forgetHere(tenantId, userId);
    copies.forget({ tenantId, userId });
  }

  function forgetAll(): void {
    entries.clear();
    bases.clear();
    for (const load of loading) load.all = true;
  }

  /** From Redis, and what is not there from Postgres. */
  async function fetchCopies(tenantId: string, userIds: readonly string[]): Promise<Copy[]> {
    const held = await copies.read(tenantId, userIds);
    const found: Copy[] = [];
    const tickets = new Map<string, string | undefined>();
    userIds.forEach((userId, index) => {
      const here = held?.[index];
      if (here?.kind === "copy") found.push(here.copy);
      else tickets.set(userId, here?.ticket);
    });
    if (tickets.size === 0) return found;
    const read = await store.tenantAtOnce(tenantId, (tx) => readCopies(tx, tenantId, [...tickets.keys()]));
    const fillable = read.flatMap((copy) => {
      const ticket = tickets.get(copy.userId);
      return ticket === undefined ? [] : [{ copy, ticket }];
    });
    copies.fill(tenantId, fillable);
    return [...found, ...read];
  }

  /** Fetches what is missing and keeps it, unless it was invalidated meanwhile. `fetched` gets the users' entries. */
  async function fetchMissing(
    tenantId: string,
    missing: readonly string[],
    fetched: Map<string, Entry>,
  ): Promise<Base | undefined> {
    const load = { stale: new Set<string>(), all: false };
    loading.add(load);
    try {
      const loadedAt = clock().getTime();
      let base: Base | undefined;
      for (const copy of await fetchCopies(tenantId, missing)) {
        const keep = !load.all && !load.stale.has(keyOf(tenantId, copy.userId));
        if (copy.userId === "") {
          base = sameBase(bases.get(tenantId)?.base, copy) ?? toBase(copy);
          if (keep) bases.set(tenantId, { base, loadedAt });
        } else {
          const entry = { copy, loadedAt, base: undefined, compiled: undefined };
          fetched.set(copy.userId, entry);
          if (keep) entries.set(keyOf(tenantId, copy.userId), entry);
        }
      }
      return base;
    } finally {
      loading.delete(load);
    }
  }

  function compiledFor(entry: Entry, base: Base): CompiledPreferences {
    if (entry.base === base && entry.compiled !== undefined) return entry.compiled;
    entry.base = base;
    entry.compiled = isPlain(entry.copy) ? plainFor(entry.copy, base) : compileFor(entry.copy, base);
    return entry.compiled;
  }

  /** Those who have set nothing share what they have by zone and language. */
  function plainFor(copy: Copy, base: Base): CompiledPreferences {
    const key = `${copy.timeZone} ${copy.language}`;
    let plain = base.plain.get(key);
    if (plain === undefined) {
      plain = compileFor(copy, base);
      if (base.plain.size < MAX_PLAIN) base.plain.set(key, plain);
    }
    return plain;
  }

  function compileFor(copy: Copy, base: Base): CompiledPreferences {
    const { document, language, timeZone, subscriptions, version } = copy;
    const user = document === null ? undefined : fromDocument(document);
    const levels = { tenant: base.preferences, profile: { language, timeZone }, user };
    return compile(levels, base.optIn, clockOf, {
      version: { user: version, tenant: base.copy.version, zone: timeZone },
      revisions: { user: copy.revision, tenant: base.copy.revision },
      wishes: wishesOf(subscriptions, evaluator),
    });
  }

  const subscriptions = [
    invalidations.on("preferences", forget),
    invalidations.on("user", forget),
    invalidations.on("type", (tenantId) => forget(tenantId, "")),
    invalidations.onReset(forgetAll),
  ];

  async function load(tenantId: string, userIds: readonly string[]): Promise<Map<string, CompiledPreferences>> {
    const now = clock().getTime();
    const maxAge = connected() ? MAX_AGE_MS : MAX_AGE_DISCONNECTED_MS;
    const isFresh = (loadedAt: number) => now - loadedAt < maxAge && loadedAt <= now;
    const result = new Map<string, CompiledPreferences>();
    const known = bases.get(tenantId);
    let base = known !== undefined && isFresh(known.loadedAt) ? known.base : undefined;
    const missing: string[] = [];
    const found = new Map<string, Entry>();
    for (const userId of userIds) {
      const entry = entries.get(keyOf(tenantId, userId));
      if (entry === undefined || !isFresh(entry.loadedAt)) missing.push(userId);
      else if (base !== undefined) result.set(userId, compiledFor(entry, base));
      else found.set(userId, entry);
    }
    if (base === undefined) missing.push("");
    if (missing.length === 0) return result;
    base = (await fetchMissing(tenantId, missing, found)) ?? base;
    if (base === undefined) throw new Error("the tenant's part was not read");
    for (const [userId, entry] of found) result.set(userId, compiledFor(entry, base));
    return result;
  }

  return {
    load,
    async reload(tenantId, userIds) {
      const all = ["", ...userIds];
      for (const userId of all) forgetHere(tenantId, userId);
      await copies.drop(tenantId, all);
      return load(tenantId, userIds);
    },
    aboutToChange: (owner) => copies.block(owner),
    [Symbol.dispose]() {
      for (const subscription of subscriptions) subscription[Symbol.dispose]();
    },
  };
}

function isPlain({ document, subscriptions }: Copy): boolean {
  return document === null && subscriptions.length === 0;
}

function toBase(copy: Copy): Base {
  return {
    copy,
    preferences: copy.document === null ? undefined : fromDocument(copy.document),
    optIn: new Set(copy.optIn),
    plain: new Map(),
  };
}

/** Read again and found unchanged, it stays the same object, and with it what was compiled from it. */
function sameBase(base: Base | undefined, copy: Copy): Base | undefined {
  return base !== undefined && isDeepStrictEqual(base.copy, copy) ? base : undefined;
}
