import { createSecretKey } from "node:crypto";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import type { Clock } from "#src/clock.ts";
import { Fault, notFound } from "#src/errors.ts";
import type { Principal } from "#src/rpc/call.ts";
import { apiKeyPrefix, sameHash, secretHash } from "./api-key.ts";
import { byApiKey, type KeySecret, secretsOf } from "./by-api-key.ts";
import { byUserToken } from "./by-user-token.ts";
import { type CredentialCacheDeps, credentialCache } from "./credential-cache.ts";
import { asIssuer, type Issuer, type IssuerDeps } from "./issuer.ts";
import { credentialInvalid } from "./refusals.ts";
import { MAX_TOKEN_LENGTH } from "./user-token.ts";

/** `config.auth`. */
export type AuthConfig = {
  operatorKeys: readonly string[];
  /** Signs tokens of any tenant's own issuer, beside the tenant's own secret. */
  jwtSecret: string | undefined;
  /** How old a copy of a credential's row may be. */
  cacheTtlMs: number;
  clockSkewSeconds: number;
};

export type AuthenticatorDeps = CredentialCacheDeps & Omit<IssuerDeps, "platformSecret"> & { clock: Clock };

export type Authenticator = Disposable & {
  /**
   * Who calls, by the values of the headers `authorization` and `posthorn-tenant`. An API key that was seen in the last
   * second costs one SHA-256 and no I/O; so does a user token.
   *
   * @throws CREDENTIAL_MISSING, CREDENTIAL_INVALID, CREDENTIAL_EXPIRED; TENANT_SUSPENDED, only to who proved to belong to
   *   the tenant; NOT_FOUND when the header names a tenant that is not the credential's or, for the operator, not there;
   *   DEPENDENCY_UNAVAILABLE while an issuer's keys cannot be had; what Postgres throws while it cannot be asked.
   */
  authenticate(authorization?: string, tenantHeader?: string): Promise<Principal>;
  /**
   * Whether the credential behind an open stream is still good: not revoked, not rotated away, its issuer trusted, its
   * tenant active. For what `authenticate` returned; false for anything else. Expiry is not asked about: it stands in
   * the principal. Answers at once what is known; rejects while Postgres cannot be asked.
   */
  stillValid(principal: Principal): boolean | Promise<boolean>;
};

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

export function authenticator(deps: AuthenticatorDeps, config: AuthConfig): Authenticator {
  const { clock, ticks, sealer, keySets } = deps;
  const { jwtSecret, cacheTtlMs, clockSkewSeconds: skewSeconds } = config;
  const platformSecret = jwtSecret === undefined ? undefined : createSecretKey(Buffer.from(jwtSecret));
  const cache = credentialCache<KeySecret, Issuer>(deps, cacheTtlMs, secretsOf, (row) =>
    asIssuer({ sealer, keySets, platformSecret }, row),
  );
  const operatorHashes = config.operatorKeys.map(secretHash);
  const keys = byApiKey(cache.keys, clock);
  const tokens = byUserToken({ cache, clock, ticks, skewSeconds });

  const asOperator = async (tenantHeader: string | undefined): Promise<Principal> => {
    if (!isNamed(tenantHeader)) return { kind: "operator", tenantId: undefined };
    const tenantId = tenantHeader.toLowerCase();
    if (!UUID.test(tenantId) || (await cache.tenants.get(tenantId)) === undefined) throw notFound("tenant");
    return { kind: "operator", tenantId };
  };

  return {
    async authenticate(authorization, tenantHeader) {
      const credential = bearerCredential(authorization);
      const prefix = apiKeyPrefix(credential);
      if (prefix !== undefined) return inTenant(await keys.authenticate(credential, prefix), tenantHeader);
      const hash = secretHash(credential);
      if (isOneOf(operatorHashes, hash)) return asOperator(tenantHeader);
      return inTenant(await tokens.authenticate(credential, hash.toString("latin1")), tenantHeader);
    },
    stillValid(principal) {
      switch (principal.kind) {
        case "operator":
          return true;
        case "key":
          return keys.stillValid(principal);
        case "user":
          return tokens.stillValid(principal);
        default:
          return principal satisfies never;
      }
    },
    [Symbol.dispose]: () => cache[Symbol.dispose](),
  };
}

/** What follows `Bearer` (RFC 6750 §2.1), whose case does not matter (RFC 9110 §11.1). */
function bearerCredential(authorization: string | undefined): string {
  if (authorization === undefined || authorization === "") throw new Fault(ErrorReason.CREDENTIAL_MISSING);
  if (authorization.length > MAX_TOKEN_LENGTH + "bearer ".length) throw credentialInvalid("too long");
  const [, credential] = /^bearer +(\S+)$/i.exec(authorization) ?? [];
  if (credential === undefined) throw credentialInvalid("not a bearer credential");
  return credential;
}

function isNamed(tenantHeader: string | undefined): tenantHeader is string {
  return tenantHeader !== undefined && tenantHeader !== "";
}

/** A caller who names another tenant than its own would act on the wrong one, so it is told. */
function inTenant(principal: Principal, tenantHeader: string | undefined): Principal {
  if (isNamed(tenantHeader) && tenantHeader.toLowerCase() !== principal.tenantId) throw notFound("tenant");
  return principal;
}

/** Compares with every one, so that time does not tell which is nearest. */
function isOneOf(hashes: readonly Uint8Array[], hash: Uint8Array): boolean {
  let found = false;
  for (const each of hashes) found = sameHash(each, hash) || found;
  return found;
}
