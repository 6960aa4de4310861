import { createSecretKey, type KeyObject } from "node:crypto";
import { type CryptoKey, importSPKI } from "jose";
import { TokenAlgorithm } from "#gen/posthorn/v1/admin_service_pb.ts";
import { joseNames } from "./algorithms.ts";
import type { KeySets } from "./jwks.ts";
import type { IssuerRow } from "./lookups.ts";
import type { Place, Sealer } from "./seal.ts";

/** The `iss` and `aud` of tokens signed here; nobody can register an issuer that begins like this. */
export const OWN_AUDIENCE = "posthorn";
export function ownIssuer(tenantId: string): string {
  return `posthorn:${tenantId}`;
}

/** Where an issuer's secret is sealed to. */
export function issuerPlace(tenantId: string, id: string): Place {
  return { tenantId, row: `token_issuer:${id}` };
}

export type VerifyKey = CryptoKey | KeyObject;

/** Whose user tokens are believed, ready to verify them. */
export type Issuer = {
  tenantId: string;
  tenantState: number;
  id: string;
  issuer: string;
  audience: string;
  /** The only values of `alg` that are looked at. */
  algorithms: readonly string[];
  /** Keys to try, in order, for a token with this header; more than one only where a platform-wide secret is set. */
  keysFor(header: { alg: string; kid?: string }): Promise<VerifyKey>[];
};

export type IssuerDeps = {
  sealer: Pick<Sealer, "open">;
  keySets: KeySets;
  /** Accepted beside every tenant's own signing secret, where it is configured. */
  platformSecret: KeyObject | undefined;
};

export function asIssuer({ sealer, keySets, platformSecret }: IssuerDeps, row: IssuerRow): Issuer {
  const { tenantId, tenantState, id, issuer, audience, algorithm } = row;
  const algorithms = joseNames(algorithm);
  let key: Promise<VerifyKey> | undefined;
  const fixedKey = async (): Promise<VerifyKey> => {
    if (algorithm === TokenAlgorithm.HS256) {
      if (row.sealedSecret === null) throw new Error("the issuer has no secret");
      return createSecretKey(sealer.open(row.sealedSecret, issuerPlace(tenantId, id)));
    }
    if (row.publicKeyPem === null) throw new Error("the issuer has no key");
    return importSPKI(row.publicKeyPem, algorithms[0]);
  };
  const isOwn = issuer === ownIssuer(tenantId) && audience === OWN_AUDIENCE;
  return {
    tenantId,
    tenantState,
    id,
    issuer,
    audience,
    algorithms,
    keysFor(header) {
      if (row.jwksUrl !== null) return [keySets.keyFor(row.jwksUrl, header)];
      key ??= fixedKey();
      return isOwn && platformSecret !== undefined ? [key, Promise.resolve(platformSecret)] : [key];
    },
  };
}
