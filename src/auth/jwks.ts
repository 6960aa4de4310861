import { type CryptoKey, createLocalJWKSet, errors } from "jose";
import { LRUCache } from "lru-cache";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault } from "#src/errors.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import type { FetchKeySet } from "./jwks-fetch.ts";

/**
 * Public keys by the URL of their set (RFC 7517).
 *
 * A set is read again when it is five minutes old, while the old one serves; and when a token names a key it does not
 * have, but then at most every 30 s, so that made-up key ids cannot be turned into load on somebody's server. While the
 * server is away the old set serves up to an hour; after that, and where there never was one, tokens cannot be checked:
 * DEPENDENCY_UNAVAILABLE, asked again after five seconds at the soonest.
 */
export type KeySets = {
  /** The key for a token's header. Throws jose's errors when the set has no such key, or not exactly one. */
  keyFor(url: string, header: { alg: string; kid?: string }): Promise<CryptoKey>;
};

export type KeySetsDeps = { fetchKeySet: FetchKeySet; ticks: () => number; log: Logger };

const REFRESH_MS = 5 * 60_000;
const KEEP_MS = 60 * 60_000;
const UNKNOWN_KID_MS = 30_000;
const RETRY_MS = 5_000;
const MAX_SETS = 5_000;

type KeySet = {
  keys: ReturnType<typeof createLocalJWKSet> | undefined;
  readAt: number;
  triedAt: number;
  reading: Promise<void> | undefined;
};

export function keySets({ fetchKeySet, ticks, log }: KeySetsDeps): KeySets {
  const sets = new LRUCache<string, KeySet>({ max: MAX_SETS });

  const read = (url: string, set: KeySet): Promise<void> => {
    set.reading ??= (async () => {
      set.triedAt = ticks();
      try {
        set.keys = createLocalJWKSet((await fetchKeySet(url)) as Parameters<typeof createLocalJWKSet>[0]);
        set.readAt = ticks();
      } catch (error) {
        log.warn({ err: error, host: new URL(url).host }, "cannot read the keys of a token issuer");
      } finally {
        set.reading = undefined;
      }
    })();
    return set.reading;
  };
  const since = (then: number) => ticks() - then;

  return {
    async keyFor(url, header) {
      let set = sets.get(url);
      if (set === undefined) {
        set = {
          keys: undefined,
          readAt: Number.NEGATIVE_INFINITY,
          triedAt: Number.NEGATIVE_INFINITY,
          reading: undefined,
        };
        sets.set(url, set);
      }
      const age = since(set.readAt);
      if (age >= REFRESH_MS && since(set.triedAt) >= RETRY_MS) {
        const reading = read(url, set);
        if (age >= KEEP_MS) await reading;
      } else if (age >= KEEP_MS) {
        await set.reading;
      }
      if (set.keys === undefined || since(set.readAt) >= KEEP_MS) {
        throw new Fault(ErrorReason.DEPENDENCY_UNAVAILABLE, {
          message: "The keys of the token's issuer cannot be read.",
          retryAfterMs: RETRY_MS,
        });
      }
      try {
        return await set.keys(header);
      } catch (error) {
        if (!(error instanceof errors.JWKSNoMatchingKey)) throw error;
        if (set.reading === undefined && since(set.triedAt) < UNKNOWN_KID_MS) throw error;
        await read(url, set);
        return await set.keys(header);
      }
    },
  };
}
