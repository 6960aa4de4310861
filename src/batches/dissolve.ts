import { sql } from "drizzle-orm";
import { BatchState } from "#gen/posthorn/v1/batch_service_pb.ts";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { plain } from "#src/store/arrays.ts";
import type { Db, Store } from "#src/store/store.ts";
import { BatchRole } from "./role.ts";

/** Whose batches. */
export type DissolveOf = { userId: string } | { type: string } | { everyone: true };

/** Batches dissolved by one transaction. */
const PAGE = 200;

/**
 * Dissolves a user's open batches: their members are decided anew at the scheduler's next tick, because the rules that
 * brought them together may no longer hold. Call it in the transaction that changes these. Answers how many members.
 */
export async function dissolveBatches(db: Db, tenantId: string, userId: string, now: Date): Promise<number> {
  return dissolvePage(db, tenantId, { userId }, now).then(({ members }) => members);
}

/**
 * The same for all users, in short transactions; safe to repeat after a failure. For a type: its batches, and its
 * notifications in digests.
 */
export async function dissolveAll(
  store: Store,
  tenantId: string,
  of: Exclude<DissolveOf, { userId: string }>,
  now: Date,
  signal: AbortSignal,
): Promise<void> {
  for (let more = true; more; ) {
    signal.throwIfAborted();
    const { batches } = await store.tenantDb(tenantId, (db) => dissolvePage(db, tenantId, of, now));
    more = batches === PAGE;
  }
  if (!("type" in of)) return;
  for (let more = true; more; ) {
    signal.throwIfAborted();
    const taken = await store.tenantDb(tenantId, (db) => leaveDigests(db, tenantId, of.type, now));
    more = taken === PAGE;
  }
}

async function dissolvePage(
  db: Db,
  tenantId: string,
  of: DissolveOf,
  now: Date,
): Promise<{ batches: number; members: number }> {
  const whose = "userId" in of ? sql`and user_id = ${of.userId}` : "type" in of ? sql`and type = ${of.type}` : sql``;
  const limit = "userId" in of ? sql`` : sql`limit ${PAGE}`;
  const at = now.toISOString();
  // The batches first, then their members by id: the order in which everybody locks these. In two statements, because
  // the second has to see who joined while the first waited.
  const gone = await db.execute<{ id: string }>(sql`
    update batches set state = ${BatchState.DISSOLVED}, ended_at = ${at}::timestamptz
    where tenant_id = ${tenantId} and id = any(array(
      select id from batches
      where tenant_id = ${tenantId} and state in (1, 2) ${whose} order by user_id, key ${limit} for update))
    returning id`);
  if (gone.length === 0) return { batches: 0, members: 0 };
  const freed = await db.execute(sql`
    update notifications set due_at = ${at}::timestamptz
    where tenant_id = ${tenantId} and id = any(array(
      select id from notifications
      where tenant_id = ${tenantId} and batch_id = any(${plain(gone.map(({ id }) => id))}::uuid[])
        and status = ${Status.BATCHED} and batch_role = ${BatchRole.MEMBER}
      order by id for update))
    returning id`);
  return { batches: gone.length, members: freed.length };
}

/** What of a type is in digests is decided anew; the digests stay for the others. */
async function leaveDigests(db: Db, tenantId: string, type: string, now: Date): Promise<number> {
  const rows = await db.execute(sql`
    update notifications set due_at = ${now.toISOString()}::timestamptz
    where tenant_id = ${tenantId} and id = any(array(
      select id from notifications
      where tenant_id = ${tenantId} and status = ${sql.raw(String(Status.BATCHED))} and status not in (1, 7, 8)
        and type = ${type} and batch_role = ${BatchRole.MEMBER} and due_at is null
      order by id limit ${PAGE} for update))
    returning id`);
  return rows.length;
}
