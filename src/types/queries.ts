import { and, asc, eq, gt, isNotNull, isNull, sql } from "drizzle-orm";
import { types } from "#src/store/schema/users.ts";
import type { Db } from "#src/store/store.ts";
import { deprecatedSince } from "./deprecation.ts";
import type { NotificationTypeRow, TypeDefinition } from "./type.ts";

/** Creates those types that the tenant does not have, and answers them. */
export async function insertTypes(
  db: Db,
  tenantId: string,
  definitions: readonly TypeDefinition[],
  now: Date,
): Promise<NotificationTypeRow[]> {
  return db
    .insert(types)
    .values(definitions.map((each) => newRow(tenantId, each, now)))
    .onConflictDoNothing()
    .returning();
}

/** The row of a type that nobody has changed. */
export function newRow(tenantId: string, definition: TypeDefinition, now: Date): NotificationTypeRow {
  const noPayload = { payloadId: null, payloadVersion: null, payloadMessage: null };
  const deprecation = deprecatedSince(definition.deprecation, null, now);
  return { ...definition, ...noPayload, deprecation, tenantId, revision: 1, createdAt: now, updatedAt: now };
}

export async function findType(db: Db, tenantId: string, key: string): Promise<NotificationTypeRow | undefined> {
  const [row] = await db.select().from(types).where(one(tenantId, key));
  return row;
}

/** The type, whose row stays locked until the transaction ends. */
export async function lockType(db: Db, tenantId: string, key: string): Promise<NotificationTypeRow | undefined> {
  const [row] = await db.select().from(types).where(one(tenantId, key)).for("update");
  return row;
}

export async function findTypes(db: Db, tenantId: string, keys: readonly string[]): Promise<NotificationTypeRow[]> {
  return db
    .select()
    .from(types)
    .where(and(eq(types.tenantId, tenantId), sql`${types.key} = any (${sql.param(keys)}::text[])`))
    .orderBy(asc(types.key));
}

/** Up to `limit` types after a key, in the order of keys; of them only those of a category, or that are (not) deprecated. */
export async function pageTypes(
  db: Db,
  tenantId: string,
  { category, deprecated }: { category: string; deprecated?: boolean | undefined },
  afterKey: string,
  limit: number,
): Promise<NotificationTypeRow[]> {
  return db
    .select()
    .from(types)
    .where(
      and(
        eq(types.tenantId, tenantId),
        gt(types.key, afterKey),
        category === "" ? undefined : eq(types.category, category),
        deprecated === undefined ? undefined : (deprecated ? isNotNull : isNull)(types.deprecation),
      ),
    )
    .orderBy(asc(types.key))
    .limit(limit);
}

/** Changes a type whose row the transaction has locked. */
export async function changeType(
  db: Db,
  row: NotificationTypeRow,
  changes: Partial<TypeDefinition>,
  now: Date,
): Promise<NotificationTypeRow> {
  const [changed] = await db
    .update(types)
    .set({ ...changes, revision: row.revision + 1, updatedAt: now })
    .where(one(row.tenantId, row.key))
    .returning();
  if (changed === undefined) throw new Error("a locked type is gone");
  return changed;
}

/** Whether there was one. */
export async function removeType(db: Db, tenantId: string, key: string): Promise<boolean> {
  const removed = await db.delete(types).where(one(tenantId, key)).returning({ key: types.key });
  return removed.length > 0;
}

function one(tenantId: string, key: string) {
  return and(eq(types.tenantId, tenantId), eq(types.key, key));
}
