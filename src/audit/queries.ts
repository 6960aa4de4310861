import { and, desc, eq, lt } from "drizzle-orm";
import { auditEntries } from "#src/store/schema/tenants.ts";
import type { Db, Tx } from "#src/store/store.ts";

export type AuditEntry = {
  tenantId: string;
  /** UUIDv7, which also tells when. */
  id: string;
  /** "operator", "key:<id>" or "user:<id>". */
  actor: string;
  /** What was done, such as "api_key.create". */
  action: string;
  /** To what, such as "api_key:<id>". */
  target: string;
  /** Why, where a reason was asked for. */
  reason?: string;
  /** What it changed, as posthorn.v1.FieldChange. */
  changes?: readonly Change[] | undefined;
};

type Change = { path: string; before: string; after: string };

/** As it is read: who wrote nothing of a reason or of changes has none. */
export type AuditRow = Required<Omit<AuditEntry, "changes">> & { changes: readonly Change[] };

/** Writes down who did what. In the transaction that does it: either both happened or neither. */
export async function writeAudit(db: Db, entry: AuditEntry): Promise<void> {
  await db.insert(auditEntries).values(entry);
}

/** The same in a transaction of raw statements. */
export async function auditRaw(
  tx: Tx,
  { tenantId, id, actor, action, target, reason = "" }: AuditEntry,
): Promise<void> {
  await tx`insert into audit_entries (tenant_id, id, actor, action, target, reason)
    values (${tenantId}, ${id}, ${actor}, ${action}, ${target}, ${reason})`;
}

/** The newest entries, or those before the entry with the id `before`, "" for the first. */
export async function auditEntriesBefore(db: Db, tenantId: string, before: string, limit: number): Promise<AuditRow[]> {
  const rows = await db
    .select()
    .from(auditEntries)
    .where(and(eq(auditEntries.tenantId, tenantId), before === "" ? undefined : lt(auditEntries.id, before)))
    .orderBy(desc(auditEntries.id))
    .limit(limit);
  return rows.map((row) => ({ ...row, changes: (row.changes ?? []) as readonly Change[] }));
}
