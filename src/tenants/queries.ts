import { asc, eq, gt } from "drizzle-orm";
import { tenants } from "#src/store/schema/tenants.ts";
import type { Db } from "#src/store/store.ts";

export type TenantRow = typeof tenants.$inferSelect;

export async function insertTenant(db: Db, row: TenantRow): Promise<TenantRow> {
  await db.insert(tenants).values(row);
  return row;
}

export async function findTenant(db: Db, id: string): Promise<TenantRow | undefined> {
  const [row] = await db.select().from(tenants).where(eq(tenants.id, id));
  return row;
}

/** The tenant, whose row stays locked until the transaction ends. */
export async function lockTenant(db: Db, id: string): Promise<TenantRow | undefined> {
  const [row] = await db.select().from(tenants).where(eq(tenants.id, id)).for("update");
  return row;
}

/** Changes a tenant whose row the transaction has locked. */
export async function changeTenant(
  db: Db,
  row: TenantRow,
  changes: Partial<Pick<TenantRow, "displayName" | "state">>,
): Promise<TenantRow> {
  await db.update(tenants).set(changes).where(eq(tenants.id, row.id));
  return { ...row, ...changes };
}

/** Up to `limit` tenants after an id, "" for the first, in the order of creation. */
export async function pageTenants(db: Db, after: string, limit: number): Promise<TenantRow[]> {
  return db
    .select()
    .from(tenants)
    .where(after === "" ? undefined : gt(tenants.id, after))
    .orderBy(asc(tenants.id))
    .limit(limit);
}
