import { type SQL, sql } from "drizzle-orm";
import { type BatchKind, BatchState } from "#gen/posthorn/v1/batch_service_pb.ts";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { plain, texts } from "#src/store/arrays.ts";
import type { Db } from "#src/store/store.ts";
import { BatchRole } from "./role.ts";

// Dissolving is one half of a change of rules: it only ends batches and makes their members due, so that the scheduler's
// release has them decided anew. Deciding at once what can be, and counting it, is the other (pipeline/reconsider), which
// calls this first. Where that looks at all that waits for a user, page by page, members become due with their page.

/** The kinds of batches that were dissolved, one for each. */
export type Dissolved = readonly BatchKind[];

/**
 * Ends the users' open batches, because the rules that brought their members together may no longer hold, and leaves the
 * members, of which there may be thousands, to who decides anew what waits for these users: nothing else finds them. Call
 * it in the transaction that changes the rules, before that locks notifications.
 */
export async function endBatches(db: Db, tenantId: string, userIds: readonly string[], now: Date): Promise<Dissolved> {
  return (await end(db, tenantId, ofUsers(userIds), now)).map(({ kind }) => kind);
}

/** Dissolves the users' open batches, and makes all of their members due. */
export async function dissolveBatches(
  db: Db,
  tenantId: string,
  userIds: readonly string[],
  now: Date,
): Promise<Dissolved> {
  return dissolve(db, tenantId, ofUsers(userIds), now);
}

function ofUsers(userIds: readonly string[]): SQL {
  return sql`user_id = any(${texts(userIds)}::text[])`;
}

/**
 * Dissolves the open batches that the notifications are members of; with a type, only batches of that: digests stay for
 * what they hold of other types.
 */
export async function dissolveBatchesOf(
  db: Db,
  tenantId: string,
  { notificationIds, type }: { notificationIds: readonly string[]; type: string },
  now: Date,
): Promise<Dissolved> {
  const ids = plain(notificationIds);
  const theirs = sql`id = any(array(
    select distinct n.batch_id from notifications n
    where n.tenant_id = ${tenantId}::uuid and n.id = any(${ids}::uuid[]) and n.status = ${Status.BATCHED}
      and n.batch_role = ${BatchRole.MEMBER}))`;
  return dissolve(db, tenantId, type === "" ? theirs : sql`${theirs} and type = ${type}`, now);
}

/**
 * Takes back the batches that these have opened, who do not go at once after all. Whoever has joined one meanwhile is
 * decided anew as if it had not.
 */
export async function dissolveLed(
  db: Db,
  tenantId: string,
  { userIds, leaderIds }: { userIds: readonly string[]; leaderIds: readonly string[] },
  now: Date,
): Promise<void> {
  const led = sql`user_id = any(${texts(userIds)}::text[]) and leader_id = any(${plain(leaderIds)}::uuid[])`;
  await db.execute(sql`
    delete from batches where tenant_id = ${tenantId}::uuid and joined = 0 and state = 1 and id = any(array(
      select id from batches
      where tenant_id = ${tenantId}::uuid and state = 1 and ${led} order by user_id, key, id for update))`);
  await dissolve(db, tenantId, led, now, sql`, batched_at = null`);
}

/** Dissolves a batch that cannot be closed: its members go as themselves and join none again. */
export async function dissolveForGood(db: Db, tenantId: string, id: string, now: Date): Promise<Dissolved> {
  return dissolve(db, tenantId, sql`id = ${id}::uuid`, now, sql`, batch_role = ${BatchRole.ALONE}`);
}

async function dissolve(db: Db, tenantId: string, which: SQL, now: Date, also: SQL = sql``): Promise<Dissolved> {
  const at = sql`${now.toISOString()}::timestamptz`;
  // The batches first, then their members by id: the order in which everybody locks these. In two statements, because
  // the second has to see who joined while the first waited.
  const gone = await end(db, tenantId, which, now);
  if (gone.length === 0) return [];
  await db.execute(sql`
    update notifications set due_at = ${at} ${also}
    where tenant_id = ${tenantId}::uuid and id = any(array(
      select id from notifications
      where tenant_id = ${tenantId}::uuid and batch_id = any(${plain(gone.map(({ id }) => id))}::uuid[])
        and status = ${Status.BATCHED} and batch_role = ${BatchRole.MEMBER}
      order by id for update))`);
  return gone.map(({ kind }) => kind);
}

async function end(db: Db, tenantId: string, which: SQL, now: Date): Promise<{ id: string; kind: BatchKind }[]> {
  const at = sql`${now.toISOString()}::timestamptz`;
  return db.execute<{ id: string; kind: BatchKind }>(sql`
    update batches set state = ${BatchState.DISSOLVED}, ended_at = ${at}
    where tenant_id = ${tenantId}::uuid and id = any(array(
      select id from batches
      where tenant_id = ${tenantId}::uuid and state in (1, 2) and ${which} order by user_id, key, id for update))
    returning id, kind`);
}
