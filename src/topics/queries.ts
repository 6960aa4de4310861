import { type AnyColumn, and, asc, eq, gt, type SQL, sql } from "drizzle-orm";
import { topicMembers, topics } from "#src/store/schema/users.ts";
import type { Db } from "#src/store/store.ts";

/** Told after the commit which users have joined or left a topic. */
export type MembershipChanged = (tenantId: string, topic: string, userIds: readonly string[]) => void;

export type TopicRow = typeof topics.$inferSelect;

/** Memberships removed by one transaction. */
const CHUNK = 1000;

// Every change of a topic's members holds the lock of the topic's row, so that its count is the number of its members at
// every commit. Who changes several topics at once locks them in the order of their keys.

export async function upsertTopic(db: Db, topic: Omit<TopicRow, "memberCount">): Promise<TopicRow> {
  const [row] = await db
    .insert(topics)
    .values(topic)
    .onConflictDoUpdate({
      target: [topics.tenantId, topics.key],
      set: { description: topic.description, openToUsers: topic.openToUsers },
    })
    .returning();
  if (row === undefined) throw new Error("an upsert returned no row");
  return row;
}

export async function findTopic(db: Db, tenantId: string, key: string): Promise<TopicRow | undefined> {
  const [row] = await db.select().from(topics).where(one(tenantId, key));
  return row;
}

export async function isMember(db: Db, tenantId: string, key: string, userId: string): Promise<boolean> {
  const rows = await db
    .select({ userId: topicMembers.userId })
    .from(topicMembers)
    .where(and(members(tenantId, key), eq(topicMembers.userId, userId)));
  return rows.length > 0;
}

/** Up to `limit` topics after a key, in the order of keys. */
export async function pageTopics(db: Db, tenantId: string, afterKey: string, limit: number): Promise<TopicRow[]> {
  return db
    .select()
    .from(topics)
    .where(and(eq(topics.tenantId, tenantId), gt(topics.key, afterKey)))
    .orderBy(asc(topics.key))
    .limit(limit);
}

/** Those who were not members before; undefined when there is no such topic. */
export async function addMembers(
  db: Db,
  tenantId: string,
  key: string,
  userIds: readonly string[],
): Promise<string[] | undefined> {
  if (!(await lockTopic(db, tenantId, key))) return undefined;
  const added = await db.execute<{ user_id: string }>(sql`
    insert into topic_members (tenant_id, topic, user_id)
    select ${tenantId}::uuid, ${key}, member from unnest(${textArray(userIds)}) as member
    on conflict do nothing
    returning user_id`);
  await count(db, tenantId, key, added.length);
  return added.map((row) => row.user_id);
}

/** Those who were members before; undefined when there is no such topic. */
export async function removeMembers(
  db: Db,
  tenantId: string,
  key: string,
  userIds: readonly string[],
): Promise<string[] | undefined> {
  if (!(await lockTopic(db, tenantId, key))) return undefined;
  const removed = await db
    .delete(topicMembers)
    .where(and(members(tenantId, key), anyOf(topicMembers.userId, userIds)))
    .returning({ userId: topicMembers.userId });
  await count(db, tenantId, key, -removed.length);
  return removed.map(({ userId }) => userId);
}

/** Removes a chunk of a topic's members and, with the last, the topic. Call until it says it is gone. */
export async function removeTopic(
  db: Db,
  tenantId: string,
  key: string,
): Promise<{ removed: string[]; gone: boolean }> {
  if (!(await lockTopic(db, tenantId, key))) return { removed: [], gone: true };
  const chunk = await pageMemberIds(db, tenantId, key, "", CHUNK);
  if (chunk.length > 0) {
    await db.delete(topicMembers).where(and(members(tenantId, key), anyOf(topicMembers.userId, chunk)));
    await count(db, tenantId, key, -chunk.length);
  }
  const gone = chunk.length < CHUNK;
  if (gone) await db.delete(topics).where(one(tenantId, key));
  return { removed: chunk, gone };
}

/** Takes a user out of a chunk of their topics and answers which. Call until it is done. */
export async function leaveTopics(
  db: Db,
  tenantId: string,
  userId: string,
): Promise<{ left: string[]; done: boolean }> {
  const keys = await pageUserTopics(db, tenantId, userId, "", CHUNK);
  await db
    .select({ key: topics.key })
    .from(topics)
    .where(and(eq(topics.tenantId, tenantId), anyOf(topics.key, keys)))
    .orderBy(asc(topics.key))
    .for("update");
  const left = await db
    .delete(topicMembers)
    .where(and(eq(topicMembers.tenantId, tenantId), eq(topicMembers.userId, userId), anyOf(topicMembers.topic, keys)))
    .returning({ topic: topicMembers.topic });
  const leftKeys = left.map(({ topic }) => topic);
  await db
    .update(topics)
    .set({ memberCount: sql`${topics.memberCount} - 1` })
    .where(and(eq(topics.tenantId, tenantId), anyOf(topics.key, leftKeys)));
  return { left: leftKeys, done: keys.length < CHUNK };
}

/** Up to `limit` member ids after one, in order. */
export async function pageMemberIds(
  db: Db,
  tenantId: string,
  key: string,
  afterUserId: string,
  limit: number,
): Promise<string[]> {
  const rows = await db
    .select({ userId: topicMembers.userId })
    .from(topicMembers)
    .where(and(members(tenantId, key), gt(topicMembers.userId, afterUserId)))
    .orderBy(asc(topicMembers.userId))
    .limit(limit);
  return rows.map(({ userId }) => userId);
}

/** Up to `limit` keys of a user's topics after one, in order. */
export async function pageUserTopics(
  db: Db,
  tenantId: string,
  userId: string,
  afterKey: string,
  limit: number,
): Promise<string[]> {
  const rows = await db
    .select({ topic: topicMembers.topic })
    .from(topicMembers)
    .where(and(eq(topicMembers.tenantId, tenantId), eq(topicMembers.userId, userId), gt(topicMembers.topic, afterKey)))
    .orderBy(asc(topicMembers.topic))
    .limit(limit);
  return rows.map(({ topic }) => topic);
}

/** Keeps a topic and its members as they are until the transaction ends; false when there is none. */
export async function lockTopic(db: Db, tenantId: string, key: string): Promise<boolean> {
  const rows = await db.select({ key: topics.key }).from(topics).where(one(tenantId, key)).for("update");
  return rows.length > 0;
}

async function count(db: Db, tenantId: string, key: string, change: number): Promise<void> {
  if (change === 0) return;
  await db
    .update(topics)
    .set({ memberCount: sql`${topics.memberCount} + ${change}` })
    .where(one(tenantId, key));
}

function one(tenantId: string, key: string) {
  return and(eq(topics.tenantId, tenantId), eq(topics.key, key));
}

function members(tenantId: string, topic: string) {
  return and(eq(topicMembers.tenantId, tenantId), eq(topicMembers.topic, topic));
}

/** One parameter, however many there are. */
function textArray(texts: readonly string[]): SQL {
  return sql`${sql.param(texts)}::text[]`;
}

function anyOf(column: AnyColumn, texts: readonly string[]): SQL {
  return sql`${column} = any (${textArray(texts)})`;
}
