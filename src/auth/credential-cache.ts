import type { Invalidations } from "#src/broker/invalidations.ts";
import type { Clock } from "#src/clock.ts";
import type { Store } from "#src/store/store.ts";
import { readChange } from "./changes.ts";
import { type FreshCache, freshCache } from "./fresh-cache.ts";
import {
  existingTenants,
  type IssuerRow,
  issuersByName,
  type KeyRow,
  keysByPrefix,
  type RevocationRow,
  revocationsOf,
} from "./lookups.ts";
import { FOLLOWED_MS, followRevocations } from "./recent-revocations.ts";

/**
 * What authentication reads from Postgres, as copies no older than `ttlMs` that also follow every change told over NATS:
 * a revoked credential stops at once where NATS works, and within `ttlMs` where it does not. Users' revocations are
 * followed as a whole, so that their copies may be older.
 */
export type CredentialCache<Key, Issuer> = Disposable & {
  /** By prefix. */
  keys: FreshCache<Key>;
  /** By `issuerName`. */
  issuers: FreshCache<Issuer>;
  /** By `userName`: the instant until which tokens are refused. */
  revocations: FreshCache<RevocationRow>;
  /** By id: whether it exists. */
  tenants: FreshCache<true>;
};

export type CredentialCacheDeps = {
  store: Pick<Store, "system" | "systemIsAway">;
  invalidations: Pick<Invalidations, "on" | "onReset">;
  ticks: () => number;
  clock: Clock;
};

type Owned = { tenantId: string };

const MAX_KEYS = 20_000;
const MAX_ISSUERS = 20_000;
const MAX_USERS = 100_000;
const MAX_TENANTS = 10_000;

/** Keys and issuers are kept in the form `asKeys` and `asIssuer` give them, so that it is computed once a read. */
export function credentialCache<Key extends Owned, Issuer extends Owned>(
  { store, invalidations, ticks, clock }: CredentialCacheDeps,
  ttlMs: number,
  asKeys: (row: KeyRow) => Iterable<[prefix: string, key: Key]>,
  asIssuer: (row: IssuerRow) => Issuer,
): CredentialCache<Key, Issuer> {
  const isAway = store.systemIsAway;
  const keys = freshCache<Key>({
    read: async (prefixes) =>
      new Map((await store.system((tx) => keysByPrefix(tx, prefixes))).flatMap((row) => [...asKeys(row)])),
    ttlMs,
    max: MAX_KEYS,
    ticks,
    isAway,
  });
  const issuers = freshCache<Issuer>({
    read: async (names) => {
      const rows = await store.system((tx) => issuersByName(tx, names.map(readIssuerName)));
      return new Map(rows.map((row) => [issuerName(row.issuer, row.audience), asIssuer(row)]));
    },
    ttlMs,
    max: MAX_ISSUERS,
    ticks,
    isAway,
  });
  const stack = new DisposableStack();
  const recent = stack.use(
    followRevocations({
      store,
      clock,
      ticks,
      withinMs: ttlMs,
      revoked: (row) => revocations.put(userName(row.tenantId, row.userId), row),
    }),
  );
  const revocations: FreshCache<RevocationRow> = freshCache<RevocationRow>({
    read: async (names) => {
      const rows = await store.system((tx) => revocationsOf(tx, names.map(readUserName)));
      return new Map(rows.map((row) => [userName(row.tenantId, row.userId), row]));
    },
    ttlMs: () => (recent.isFollowing() ? FOLLOWED_MS : ttlMs),
    max: MAX_USERS,
    ticks,
    isAway,
  });
  const tenants = freshCache<true>({
    read: async (ids) => new Map((await store.system((tx) => existingTenants(tx, ids))).map(({ id }) => [id, true])),
    ttlMs,
    max: MAX_TENANTS,
    ticks,
    isAway,
  });

  stack.use(
    invalidations.on("credential", (tenantId, key) => {
      const change = readChange(key);
      switch (change.kind) {
        case "api_key":
          return keys.drop(change.prefix);
        case "issuer":
          return issuers.drop(issuerName(change.issuer, change.audience));
        case "user":
          return revocations.drop(userName(tenantId, change.userId));
        default:
          return change satisfies never;
      }
    }),
  );
  stack.use(
    invalidations.on("tenant", (tenantId) => {
      tenants.drop(tenantId);
      keys.dropWhere((key) => key.tenantId === tenantId);
      issuers.dropWhere((issuer) => issuer.tenantId === tenantId);
    }),
  );
  stack.use(
    invalidations.onReset(() => {
      for (const cache of [keys, issuers, revocations, tenants]) cache.clear();
    }),
  );
  return { keys, issuers, revocations, tenants, [Symbol.dispose]: () => stack.dispose() };
}

/** The key of an issuer and audience in `issuers`; distinct for distinct pairs. */
export function issuerName(issuer: string, audience: string): string {
  return JSON.stringify([issuer, audience]);
}

function readIssuerName(name: string): { issuer: string; audience: string } {
  const [issuer, audience] = JSON.parse(name) as [string, string];
  return { issuer, audience };
}

/** The key of a user in `revocations`. A tenant's id has a fixed length, so this is distinct for distinct users. */
export function userName(tenantId: string, userId: string): string {
  return tenantId + userId;
}

function readUserName(name: string): { tenantId: string; userId: string } {
  return { tenantId: name.slice(0, 36), userId: name.slice(36) };
}
