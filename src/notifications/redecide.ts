import { sql } from "drizzle-orm";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { Db } from "#src/store/store.ts";

/**
 * Has what is held back for a user decided anew at the scheduler's next tick, because the rules that hold it may no
 * longer hold. Call it in the transaction that changes them.
 */
export async function redecideHeld(db: Db, tenantId: string, userId: string, now: Date): Promise<void> {
  await db.execute(sql`
    update notifications set due_at = ${now.toISOString()}::timestamptz
    where tenant_id = ${tenantId} and user_id = ${userId} and status in (2, 3) and status = ${Status.HELD}`);
}
