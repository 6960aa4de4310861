import { and, desc, eq, lt, sql } from "drizzle-orm";
import { payloadContracts } from "#src/store/schema/payloads.ts";
import { types } from "#src/store/schema/users.ts";
import type { Db, Tx } from "#src/store/store.ts";
import type { StoredContract } from "./contract.ts";
import { contractLocks } from "./locks.ts";

export type ContractRow = typeof payloadContracts.$inferSelect;
/** Without the descriptors, which are most of it. */
export type ContractHead = Omit<ContractRow, "descriptorSet" | "digest"> & { size: number };

export async function findContract(
  db: Db,
  tenantId: string,
  type: string,
  version: number,
): Promise<ContractRow | undefined> {
  const [row] = await db
    .select()
    .from(payloadContracts)
    .where(and(of(tenantId, type), eq(payloadContracts.version, version)));
  return row;
}

/** The same in a raw transaction. */
export async function readContract(
  tx: Tx,
  tenantId: string,
  type: string,
  version: number,
): Promise<StoredContract | undefined> {
  const [row] = await tx<StoredContract[]>`
    select id, version, message, descriptor_set as "descriptorSet" from payload_contracts
    where tenant_id = ${tenantId} and type = ${type} and version = ${version}`;
  return row;
}

/** Up to `limit` versions before one, newest first. */
export async function pageContracts(
  db: Db,
  tenantId: string,
  type: string,
  before: number,
  limit: number,
): Promise<ContractHead[]> {
  const { descriptorSet, digest: _, ...rest } = columns;
  return db
    .select({ ...rest, size: sql<number>`octet_length(${descriptorSet})` })
    .from(payloadContracts)
    .where(and(of(tenantId, type), lt(payloadContracts.version, before)))
    .orderBy(desc(payloadContracts.version))
    .limit(limit);
}

/** Waits for all who store what the type's contract has judged, and lets no more until the transaction ends. */
export async function lockContract(db: Db, tenantId: string, type: string): Promise<void> {
  const [name] = contractLocks(tenantId, [type]);
  await db.execute(sql`select pg_advisory_xact_lock(hashtextextended(${name}, 0))`);
}

/** How many bytes of descriptors a tenant has. Lets nobody else add to them until the transaction ends. */
export async function lockTotalSize(db: Db, tenantId: string): Promise<number> {
  await db.execute(sql`select pg_advisory_xact_lock(hashtextextended(${`${tenantId} payload_contracts`}, 0))`);
  const [row] = await db
    .select({ bytes: sql<number>`coalesce(sum(octet_length(${payloadContracts.descriptorSet})), 0)::int` })
    .from(payloadContracts)
    .where(eq(payloadContracts.tenantId, tenantId));
  return row?.bytes ?? 0;
}

/** Adds a version and makes it the current one of its type, whose row the transaction has locked. */
export async function addContract(db: Db, row: ContractRow, now: Date): Promise<void> {
  const { tenantId, type, id, version, message } = row;
  await db.insert(payloadContracts).values(row);
  await db
    .update(types)
    .set({
      payloadId: id,
      payloadVersion: version,
      payloadMessage: message,
      revision: sql`${types.revision} + 1`,
      updatedAt: now,
    })
    .where(and(eq(types.tenantId, tenantId), eq(types.key, type)));
}

/** With their type. */
export async function removeContracts(db: Db, tenantId: string, type: string): Promise<void> {
  await db.delete(payloadContracts).where(of(tenantId, type));
}

const columns = {
  tenantId: payloadContracts.tenantId,
  type: payloadContracts.type,
  version: payloadContracts.version,
  id: payloadContracts.id,
  message: payloadContracts.message,
  descriptorSet: payloadContracts.descriptorSet,
  digest: payloadContracts.digest,
  createdAt: payloadContracts.createdAt,
  createdBy: payloadContracts.createdBy,
};

function of(tenantId: string, type: string) {
  return and(eq(payloadContracts.tenantId, tenantId), eq(payloadContracts.type, type));
}
