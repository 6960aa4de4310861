import type { Tx } from "#src/store/store.ts";

// The look-ups of authentication. Each comes before the tenant is known, so they run as the system, and each is written
// for many credentials at once.

export type KeyRow = {
  tenantId: string;
  tenantState: number;
  id: string;
  prefix: string;
  secretHash: Uint8Array;
  previousPrefix: string | null;
  previousHash: Uint8Array | null;
  previousUntil: Date | null;
  scopes: number[];
  expiresAt: Date | null;
  revokedAt: Date | null;
};

/** API keys by the prefix of their secret, or of the one before it. */
export async function keysByPrefix(tx: Tx, prefixes: string[]): Promise<KeyRow[]> {
  // Two index scans: an OR over both columns would read the whole table.
  return await tx<KeyRow[]>`
    with found as (
      select * from api_keys where prefix = any(${prefixes}::text[])
      union
      select * from api_keys where previous_prefix is not null and previous_prefix = any(${prefixes}::text[])
    )
    select k.tenant_id as "tenantId", t.state as "tenantState", k.id, k.prefix, k.secret_hash as "secretHash",
      k.previous_prefix as "previousPrefix", k.previous_hash as "previousHash", k.previous_until as "previousUntil",
      k.scopes, k.expires_at as "expiresAt", k.revoked_at as "revokedAt"
    from found k join tenants t on t.id = k.tenant_id`;
}

export type IssuerRow = {
  tenantId: string;
  tenantState: number;
  id: string;
  issuer: string;
  audience: string;
  algorithm: number;
  sealedSecret: Uint8Array | null;
  publicKeyPem: string | null;
  jwksUrl: string | null;
};

/** Trusted issuers by what tokens call them. */
export async function issuersByName(
  tx: Tx,
  names: readonly { issuer: string; audience: string }[],
): Promise<IssuerRow[]> {
  return await tx<IssuerRow[]>`
    select i.tenant_id as "tenantId", t.state as "tenantState", i.id, i.issuer, i.audience, i.algorithm,
      i.sealed_secret as "sealedSecret", i.public_key_pem as "publicKeyPem", i.jwks_url as "jwksUrl"
    from unnest(${names.map((name) => name.issuer)}::text[], ${names.map((name) => name.audience)}::text[])
      as asked (issuer, audience)
    join token_issuers i on i.issuer = asked.issuer and i.audience = asked.audience
    join tenants t on t.id = i.tenant_id`;
}

export type RevocationRow = { tenantId: string; userId: string; notBefore: Date };

/** Since when users' tokens are refused, where that was ever asked for. */
export async function revocationsOf(
  tx: Tx,
  users: readonly { tenantId: string; userId: string }[],
): Promise<RevocationRow[]> {
  return await tx<RevocationRow[]>`
    select r.tenant_id as "tenantId", r.user_id as "userId", r.not_before as "notBefore"
    from unnest(${users.map((user) => user.tenantId)}::uuid[], ${users.map((user) => user.userId)}::text[])
      as asked (tenant_id, user_id)
    join token_revocations r on r.tenant_id = asked.tenant_id and r.user_id = asked.user_id`;
}

/** What was revoked since an instant. */
export async function revocationsSince(tx: Tx, since: Date): Promise<RevocationRow[]> {
  return await tx<RevocationRow[]>`
    select tenant_id as "tenantId", user_id as "userId", not_before as "notBefore" from token_revocations
    where not_before > ${since}`;
}

/** Which of the tenants exist. */
export async function existingTenants(tx: Tx, ids: string[]): Promise<{ id: string }[]> {
  return await tx<{ id: string }[]>`select id from tenants where id = any(${ids}::uuid[])`;
}
