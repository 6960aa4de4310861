import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type ApiKey, ApiKeySchema, Scope } from "#gen/posthorn/v1/admin_service_pb.ts";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { writeAudit } from "#src/audit/queries.ts";
import type { Invalidations } from "#src/broker/invalidations.ts";
import type { Clock } from "#src/clock.ts";
import { Fault, notFound } from "#src/errors.ts";
import type { NewId } from "#src/ids.ts";
import type { Call } from "#src/rpc/call.ts";
import type { Db, Store } from "#src/store/store.ts";
import { newApiKey } from "./api-key.ts";
import { publishChange } from "./changes.ts";
import { type ApiKeyRow, changeApiKey, insertApiKey, lockApiKey } from "./queries.ts";
import type { RandomBytes } from "./random.ts";

export type ApiKeysDeps = {
  store: Pick<Store, "tenantDb">;
  invalidations: Pick<Invalidations, "publish">;
  clock: Clock;
  newId: NewId;
  random: RandomBytes;
};

/** Who does it, and in which tenant. */
export type By = Pick<Call, "tenantId" | "actor" | "principal">;

/** A key with its credential, which is to be had only now. */
export type ShownKey = { row: ApiKeyRow; secret: string };

export type WantedKey = { displayName: string; scopes: readonly Scope[]; expiresAt: Date | undefined };

/** Creates a key. Throws SCOPE_MISSING when it would be able to do more than its maker. */
export function createApiKey(deps: ApiKeysDeps, by: By, wanted: WantedKey): Promise<ShownKey> {
  requireScopes(by, wanted.scopes);
  return deps.store.tenantDb(by.tenantId, (db) => addApiKey(db, deps, by, wanted));
}

/** The same within a transaction, whoever asks. */
export async function addApiKey(
  db: Db,
  { clock, newId, random }: Pick<ApiKeysDeps, "clock" | "newId" | "random">,
  { tenantId, actor }: Pick<By, "tenantId" | "actor">,
  { displayName, scopes, expiresAt }: WantedKey,
): Promise<ShownKey> {
  const { secret, prefix, hash } = newApiKey(random);
  const row = await insertApiKey(db, {
    tenantId,
    id: newId(),
    displayName,
    prefix,
    secretHash: hash,
    scopes: scopes.toSorted((a, b) => a - b),
    createdAt: clock(),
    expiresAt: expiresAt ?? null,
  });
  await writeAudit(db, { tenantId, id: newId(), actor, action: "api_key.create", target: `api_key:${row.id}` });
  return { row, secret };
}

/**
 * Gives a key a new secret; the old one works `overlapMs` longer, one that was replaced before stops now. Throws
 * SCOPE_MISSING when the key may do what the caller may not: the new secret would give it that.
 */
export async function rotateApiKey(deps: ApiKeysDeps, by: By, id: string, overlapMs: number): Promise<ShownKey> {
  const { store, invalidations, clock, newId, random } = deps;
  const { tenantId, actor } = by;
  const { secret, prefix, hash } = newApiKey(random);
  const { before, after } = await store.tenantDb(tenantId, async (db) => {
    const before = await lockApiKey(db, tenantId, id);
    if (before === undefined) throw notFound("api_key");
    const now = clock();
    if (before.revokedAt !== null || (before.expiresAt !== null && before.expiresAt <= now)) {
      const message = "The API key is revoked or has expired. Create a new one.";
      throw new Fault(ErrorReason.NOT_FOUND, { message, metadata: { resource: "api_key" } });
    }
    requireScopes(by, before.scopes as Scope[]);
    const previous =
      overlapMs > 0
        ? {
            previousPrefix: before.prefix,
            previousHash: before.secretHash,
            previousUntil: new Date(now.getTime() + overlapMs),
          }
        : { previousPrefix: null, previousHash: null, previousUntil: null };
    const after = await changeApiKey(db, before, { prefix, secretHash: hash, ...previous });
    await writeAudit(db, { tenantId, id: newId(), actor, action: "api_key.rotate", target: `api_key:${id}` });
    return { before, after };
  });
  publishSecrets(invalidations, before);
  return { row: after, secret };
}

/** Revokes a key with all its secrets; once revoked it stays as it was. */
export async function revokeApiKey(deps: ApiKeysDeps, by: By, id: string): Promise<ApiKeyRow> {
  const { store, invalidations, clock, newId } = deps;
  const { tenantId, actor } = by;
  const row = await store.tenantDb(tenantId, async (db) => {
    const before = await lockApiKey(db, tenantId, id);
    if (before === undefined) throw notFound("api_key");
    if (before.revokedAt !== null) return before;
    await writeAudit(db, { tenantId, id: newId(), actor, action: "api_key.revoke", target: `api_key:${id}` });
    return changeApiKey(db, before, { revokedAt: clock() });
  });
  // Also when it was revoked before: a call that was cut short is completed by its repetition.
  publishSecrets(invalidations, row);
  return row;
}

function publishSecrets(invalidations: Pick<Invalidations, "publish">, row: ApiKeyRow): void {
  for (const prefix of [row.prefix, row.previousPrefix]) {
    if (prefix !== null) publishChange(invalidations, row.tenantId, { kind: "api_key", prefix });
  }
}

/** The operator may give everything; a key only what it has. */
function requireScopes({ principal }: By, scopes: readonly Scope[]): void {
  if (principal.kind === "operator") return;
  const missing = scopes.find((scope) => principal.kind !== "key" || !principal.scopes.has(scope));
  if (missing === undefined) return;
  const scope = `SCOPE_${scopeName(missing)}`;
  throw new Fault(ErrorReason.SCOPE_MISSING, {
    message: `An API key cannot give ${scope}, which it does not have itself.`,
    metadata: { scope },
  });
}

function scopeName(scope: Scope): string {
  return Object.entries(Scope).find(([, value]) => value === scope)?.[0] ?? String(scope);
}

export function toApiKey(row: ApiKeyRow): ApiKey {
  return create(ApiKeySchema, {
    id: row.id,
    displayName: row.displayName,
    prefix: row.prefix,
    scopes: row.scopes as Scope[],
    createTime: timestampFromDate(row.createdAt),
    ...(row.expiresAt === null ? {} : { expireTime: timestampFromDate(row.expiresAt) }),
    ...(row.revokedAt === null ? {} : { revokeTime: timestampFromDate(row.revokedAt) }),
  });
}
