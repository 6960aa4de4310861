import { createSecretKey } from "node:crypto";
import { writeAudit } from "#src/audit/queries.ts";
import type { By } from "./api-keys.ts";
import { publishChange } from "./changes.ts";
import { issuerPlace } from "./issuer.ts";
import { revokeTokens, tokensRevokedUntil } from "./queries.ts";
import type { RandomBytes } from "./random.ts";
import { ensureOwnIssuer, publishIssuer, type TokenIssuersDeps } from "./token-issuers.ts";
import { signUserToken } from "./user-token.ts";

export type UserTokensDeps = TokenIssuersDeps & { random: RandomBytes };

export type SignedToken = { token: string; expiresAt: Date };

/** Signs a token as the tenant's own issuer. */
export async function createUserToken(
  deps: UserTokensDeps,
  by: By,
  userId: string,
  ttlMs: number,
): Promise<SignedToken> {
  const { store, invalidations, sealer, clock, newId } = deps;
  const { tenantId, actor } = by;
  const { own, revokedUntil } = await store.tenantDb(tenantId, async (db) => {
    const own = await ensureOwnIssuer(db, deps, tenantId);
    await writeAudit(db, { tenantId, id: newId(), actor, action: "user_token.create", target: `user:${userId}` });
    return { own, revokedUntil: await tokensRevokedUntil(db, tenantId, userId) };
  });
  // A token may have been refused a moment ago because there was no issuer.
  if (own.isNew) publishIssuer(invalidations, own.row);
  if (own.row.sealedSecret === null) throw new Error("the tenant's own issuer has no secret");
  const secret = createSecretKey(sealer.open(own.row.sealedSecret, issuerPlace(tenantId, own.row.id)));
  // Not counted among those revoked by a server whose clock is ahead, nor in this very millisecond.
  const issuedAt = new Date(Math.max(clock().getTime(), (revokedUntil?.getTime() ?? 0) + 1));
  // The claim holds whole seconds; the token lives no shorter than asked for.
  const expiresAt = new Date(Math.ceil((issuedAt.getTime() + ttlMs) / 1000) * 1000);
  const token = await signUserToken({ tenantId, userId, issuedAt, expiresAt, id: newId() }, secret);
  return { token, expiresAt };
}

/** Refuses every token of the user issued up to now, whoever issued it. */
export async function revokeUserTokens(deps: UserTokensDeps, by: By, userId: string): Promise<void> {
  const { store, invalidations, clock, newId } = deps;
  const { tenantId, actor } = by;
  await store.tenantDb(tenantId, async (db) => {
    await revokeTokens(db, tenantId, userId, clock());
    await writeAudit(db, { tenantId, id: newId(), actor, action: "user_token.revoke", target: `user:${userId}` });
  });
  publishChange(invalidations, tenantId, { kind: "user", userId });
}
