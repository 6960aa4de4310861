import { and, asc, eq, gt, sql } from "drizzle-orm";
import { touchPreferencesOf } from "#src/preferences/queries.ts";
import { subscriptions } from "#src/store/schema/users.ts";
import type { Db } from "#src/store/store.ts";
import { Kind } from "./rules.ts";

// Locks are taken in one order: the topic's row, then the users' preferences, then their subscriptions.

/** Whose subscriptions. */
export type Owner = { tenantId: string; userId: string };

export type SubscriptionRow = typeof subscriptions.$inferSelect;

const FIRST = "00000000-0000-0000-0000-000000000000";

export async function findSubscription(db: Db, owner: Owner, id: string): Promise<SubscriptionRow | undefined> {
  const [row] = await db.select().from(subscriptions).where(one(owner, id));
  return row;
}

/** Up to `limit` of a user's subscriptions after an id, "" for the first, oldest first. */
export async function pageSubscriptions(
  db: Db,
  owner: Owner,
  after: string,
  limit: number,
): Promise<SubscriptionRow[]> {
  return db
    .select()
    .from(subscriptions)
    .where(and(of(owner), gt(subscriptions.id, after || FIRST)))
    .orderBy(asc(subscriptions.id))
    .limit(limit);
}

export async function insertSubscription(db: Db, row: SubscriptionRow): Promise<void> {
  await db.insert(subscriptions).values(row);
}

export async function saveFilter(db: Db, owner: Owner, id: string, filter: string, now: Date): Promise<void> {
  await db.update(subscriptions).set({ filter, updatedAt: now }).where(one(owner, id));
}

export async function removeSubscription(db: Db, owner: Owner, id: string): Promise<void> {
  await db.delete(subscriptions).where(one(owner, id));
}

/** Removes all of a user's and answers how many there were. */
export async function forgetUser(db: Db, tenantId: string, userId: string): Promise<number> {
  const removed = await db.delete(subscriptions).where(of({ tenantId, userId })).returning({ id: subscriptions.id });
  return removed.length;
}

/**
 * Removes the subscriptions of users who have left a topic, whose row is locked, and answers whose there were; nothing that
 * was decided by them is stored any more. What waits need not be decided anew: it has passed their filters, and without
 * them only more passes.
 */
export async function forgetTopic(db: Db, tenantId: string, topic: string, userIds: readonly string[]) {
  const toTopic = (ids: readonly string[]) =>
    and(
      eq(subscriptions.tenantId, tenantId),
      sql`${subscriptions.kind} = ${sql.raw(String(Kind.TOPIC))}`,
      eq(subscriptions.key, topic),
      sql`${subscriptions.userId} = any (${sql.param(ids)}::text[])`,
    );
  // Nobody gets one while the topic is locked.
  const rows = await db.selectDistinct({ userId: subscriptions.userId }).from(subscriptions).where(toTopic(userIds));
  const theirs = rows.map(({ userId }) => userId);
  if (theirs.length === 0) return [];
  await touchPreferencesOf(db, tenantId, theirs);
  await db.delete(subscriptions).where(toTopic(theirs));
  return theirs;
}

function of({ tenantId, userId }: Owner) {
  return and(eq(subscriptions.tenantId, tenantId), eq(subscriptions.userId, userId));
}

function one(owner: Owner, id: string) {
  return and(of(owner), eq(subscriptions.id, id));
}
