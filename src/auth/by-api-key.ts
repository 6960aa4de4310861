import type { Scope } from "#gen/posthorn/v1/admin_service_pb.ts";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import type { Clock } from "#src/clock.ts";
import { Fault } from "#src/errors.ts";
import type { Principal } from "#src/rpc/call.ts";
import { sameHash, secretHash } from "./api-key.ts";
import type { FreshCache } from "./fresh-cache.ts";
import type { KeyRow } from "./lookups.ts";
import { credentialInvalid, isActive, refuseSuspended } from "./refusals.ts";

/** One secret of an API key: its current one, or the one before while the overlap of a rotation lasts. */
export type KeySecret = {
  tenantId: string;
  tenantState: number;
  hash: Uint8Array;
  revoked: boolean;
  /** What its holder is; made once, because every call of the key needs it. */
  principal: KeyPrincipal;
};

/** A principal that knows which secret it showed, so that a stream can be asked about later; a copy knows it too. */
const SHOWN = Symbol("shown secret");
type KeyPrincipal = Extract<Principal, { kind: "key" }> & { readonly [SHOWN]?: { prefix: string; hash: Uint8Array } };

/** The secrets of a key, by prefix. */
export function secretsOf(row: KeyRow): [prefix: string, secret: KeySecret][] {
  const { tenantId, tenantState, id: keyId, revokedAt } = row;
  const scopes: ReadonlySet<Scope> = new Set(row.scopes as Scope[]);
  const secret = (prefix: string, hash: Uint8Array, expiresAt: Date | undefined): [string, KeySecret] => {
    const principal = { kind: "key" as const, tenantId, keyId, scopes, expiresAt, [SHOWN]: { prefix, hash } };
    return [prefix, { tenantId, tenantState, hash, revoked: revokedAt !== null, principal }];
  };
  const current = secret(row.prefix, row.secretHash, row.expiresAt ?? undefined);
  const { previousPrefix, previousHash, previousUntil } = row;
  if (previousPrefix === null || previousHash === null || previousUntil === null) return [current];
  const until = row.expiresAt !== null && row.expiresAt < previousUntil ? row.expiresAt : previousUntil;
  return [current, secret(previousPrefix, previousHash, until)];
}

export type ByApiKey = {
  authenticate(credential: string, prefix: string): Promise<Principal>;
  stillValid(principal: KeyPrincipal): boolean | Promise<boolean>;
};

export function byApiKey(keys: FreshCache<KeySecret>, clock: Clock): ByApiKey {
  return {
    async authenticate(credential, prefix) {
      const found = keys.get(prefix);
      // Awaiting what is there already would put a turn of the queue before every call.
      const secret = found instanceof Promise ? await found : found;
      if (secret === undefined || !sameHash(secretHash(credential), secret.hash)) {
        throw credentialInvalid("unknown API key");
      }
      if (secret.revoked) throw credentialInvalid("revoked API key");
      const { expiresAt } = secret.principal;
      if (expiresAt !== undefined && expiresAt <= clock()) {
        throw new Fault(ErrorReason.CREDENTIAL_EXPIRED, { message: "The API key has expired." });
      }
      refuseSuspended(secret.tenantState);
      return secret.principal;
    },
    stillValid(principal) {
      const shown = principal[SHOWN];
      if (shown === undefined) return false;
      const isGood = (secret: KeySecret | undefined) =>
        secret !== undefined && !secret.revoked && isActive(secret.tenantState) && sameHash(secret.hash, shown.hash);
      const found = keys.get(shown.prefix);
      return found instanceof Promise ? found.then(isGood) : isGood(found);
    },
  };
}
