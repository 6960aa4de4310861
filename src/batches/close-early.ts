import { sql } from "drizzle-orm";
import { BatchState } from "#gen/posthorn/v1/batch_service_pb.ts";
import type { Db } from "#src/store/store.ts";

/** Has an open batch closed at the next tick, and lets nobody join it any more. False: it is due already, or has ended. */
export async function closeEarly(db: Db, tenantId: string, id: string, now: Date): Promise<boolean> {
  const at = sql`${now.toISOString()}::timestamptz`;
  const rows = await db.execute(sql`
    update batches set state = ${BatchState.FULL}, flush_at = ${at}
    where tenant_id = ${tenantId}::uuid and id = ${id}::uuid and state in (1, 2) and flush_at > ${at} returning id`);
  return rows.length > 0;
}
