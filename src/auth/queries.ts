import { and, asc, eq, gt, sql } from "drizzle-orm";
import { apiKeys, tokenIssuers, tokenRevocations } from "#src/store/schema/tenants.ts";
import type { Db } from "#src/store/store.ts";

export type ApiKeyRow = typeof apiKeys.$inferSelect;
export type TokenIssuerRow = typeof tokenIssuers.$inferSelect;

export async function insertApiKey(db: Db, row: typeof apiKeys.$inferInsert): Promise<ApiKeyRow> {
  const [stored] = await db.insert(apiKeys).values(row).returning();
  if (stored === undefined) throw new Error("an insert returned nothing");
  return stored;
}

/** The key, whose row stays locked until the transaction ends. */
export async function lockApiKey(db: Db, tenantId: string, id: string): Promise<ApiKeyRow | undefined> {
  const [row] = await db
    .select()
    .from(apiKeys)
    .where(and(eq(apiKeys.tenantId, tenantId), eq(apiKeys.id, id)))
    .for("update");
  return row;
}

/** Changes a key whose row the transaction has locked. */
export async function changeApiKey(db: Db, row: ApiKeyRow, changes: Partial<ApiKeyRow>): Promise<ApiKeyRow> {
  await db
    .update(apiKeys)
    .set(changes)
    .where(and(eq(apiKeys.tenantId, row.tenantId), eq(apiKeys.id, row.id)));
  return { ...row, ...changes };
}

/** Up to `limit` keys after an id, "" for the first, in the order of creation. */
export async function pageApiKeys(db: Db, tenantId: string, after: string, limit: number): Promise<ApiKeyRow[]> {
  return db
    .select()
    .from(apiKeys)
    .where(and(eq(apiKeys.tenantId, tenantId), after === "" ? undefined : gt(apiKeys.id, after)))
    .orderBy(asc(apiKeys.id))
    .limit(limit);
}

/** Undefined when some tenant has this issuer and audience already. */
export async function insertTokenIssuer(
  db: Db,
  row: typeof tokenIssuers.$inferInsert,
): Promise<TokenIssuerRow | undefined> {
  const [stored] = await db
    .insert(tokenIssuers)
    .values(row)
    .onConflictDoNothing({ target: [tokenIssuers.issuer, tokenIssuers.audience] })
    .returning();
  return stored;
}

export async function findTokenIssuer(
  db: Db,
  tenantId: string,
  issuer: string,
  audience: string,
): Promise<TokenIssuerRow | undefined> {
  const [row] = await db
    .select()
    .from(tokenIssuers)
    .where(
      and(eq(tokenIssuers.tenantId, tenantId), eq(tokenIssuers.issuer, issuer), eq(tokenIssuers.audience, audience)),
    );
  return row;
}

/** Up to `limit` issuers after an id, "" for the first, in the order of creation. */
export async function pageTokenIssuers(
  db: Db,
  tenantId: string,
  after: string,
  limit: number,
): Promise<TokenIssuerRow[]> {
  return db
    .select()
    .from(tokenIssuers)
    .where(and(eq(tokenIssuers.tenantId, tenantId), after === "" ? undefined : gt(tokenIssuers.id, after)))
    .orderBy(asc(tokenIssuers.id))
    .limit(limit);
}

/** The issuer that was, undefined if there was none. */
export async function removeTokenIssuer(db: Db, tenantId: string, id: string): Promise<TokenIssuerRow | undefined> {
  const [row] = await db
    .delete(tokenIssuers)
    .where(and(eq(tokenIssuers.tenantId, tenantId), eq(tokenIssuers.id, id)))
    .returning();
  return row;
}

/** Refuses the user's tokens issued up to `notBefore`; never takes back what was refused before. */
export async function revokeTokens(db: Db, tenantId: string, userId: string, notBefore: Date): Promise<void> {
  await db
    .insert(tokenRevocations)
    .values({ tenantId, userId, notBefore })
    .onConflictDoUpdate({
      target: [tokenRevocations.tenantId, tokenRevocations.userId],
      set: { notBefore: sql`greatest(${tokenRevocations.notBefore}, excluded.not_before)` },
    });
}

/** Until when the user's tokens are refused. */
export async function tokensRevokedUntil(db: Db, tenantId: string, userId: string): Promise<Date | undefined> {
  const [row] = await db
    .select({ notBefore: tokenRevocations.notBefore })
    .from(tokenRevocations)
    .where(and(eq(tokenRevocations.tenantId, tenantId), eq(tokenRevocations.userId, userId)));
  return row?.notBefore;
}

/** Up to `limit` issuers of all tenants that hold a sealed secret, after an issuer, locked until the transaction ends. */
export async function lockSealedIssuers(
  db: Db,
  after: { tenantId: string; id: string } | undefined,
  limit: number,
): Promise<(TokenIssuerRow & { sealedSecret: Uint8Array })[]> {
  const position = sql`(${tokenIssuers.tenantId}, ${tokenIssuers.id})`;
  const rows = await db
    .select()
    .from(tokenIssuers)
    .where(
      and(
        sql`${tokenIssuers.sealedSecret} is not null`,
        after === undefined ? undefined : sql`${position} > (${after.tenantId}::uuid, ${after.id}::uuid)`,
      ),
    )
    .orderBy(asc(tokenIssuers.tenantId), asc(tokenIssuers.id))
    .limit(limit)
    .for("update");
  return rows.flatMap((row) => (row.sealedSecret === null ? [] : [{ ...row, sealedSecret: row.sealedSecret }]));
}

export async function changeSealedSecret(db: Db, row: TokenIssuerRow, sealedSecret: Uint8Array): Promise<void> {
  await db
    .update(tokenIssuers)
    .set({ sealedSecret })
    .where(and(eq(tokenIssuers.tenantId, row.tenantId), eq(tokenIssuers.id, row.id)));
}
