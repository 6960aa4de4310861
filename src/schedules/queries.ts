import { and, asc, eq, gt, isNotNull, isNull, lte, ne, sql } from "drizzle-orm";
import { Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { Schedule_State as State } from "#gen/posthorn/v1/schedule_service_pb.ts";
import { schedules } from "#src/store/schema/schedules.ts";
import { types } from "#src/store/schema/users.ts";
import type { Db } from "#src/store/store.ts";
import type { ScheduleDefinition, ScheduleRow, Standing } from "./schedule.ts";

/** Lets nobody else add a schedule to the tenant until the transaction ends, so that they can be counted. */
export async function lockSchedules(db: Db, tenantId: string): Promise<void> {
  await db.execute(sql`select pg_advisory_xact_lock(hashtextextended(${`${tenantId} schedules`}, 0))`);
}

/** Whether the tenant has more than so many schedules that have not ended. */
export async function hasMoreSchedules(db: Db, tenantId: string, most: number): Promise<boolean> {
  const found = await db
    .select({ key: schedules.key })
    .from(schedules)
    .where(and(eq(schedules.tenantId, tenantId), ne(schedules.state, State.ENDED)))
    .limit(most + 1);
  return found.length > most;
}

/** Undefined when the key is taken. */
export async function insertSchedule(
  db: Db,
  tenantId: string,
  definition: ScheduleDefinition,
  standing: Standing,
  now: Date,
): Promise<ScheduleRow | undefined> {
  const [row] = await db
    .insert(schedules)
    .values({
      tenantId,
      ...{ ...definition, ...standing, lane: laneOf(tenantId, definition) },
      ...{ revision: 1, createdAt: now, updatedAt: now },
    })
    .onConflictDoNothing()
    .returning();
  return row;
}

export async function findSchedule(db: Db, tenantId: string, key: string): Promise<ScheduleRow | undefined> {
  const [row] = await db.select().from(schedules).where(one(tenantId, key));
  return row;
}

/** The schedule, whose row stays locked until the transaction ends: meanwhile it does not fire. */
export async function lockSchedule(db: Db, tenantId: string, key: string): Promise<ScheduleRow | undefined> {
  const [row] = await db.select().from(schedules).where(one(tenantId, key)).for("update");
  return row;
}

/** Up to `limit` schedules after a key, in the order of keys; none after those that come to more than `maxBytes` together. */
export async function pageSchedules(
  db: Db,
  tenantId: string,
  after: string,
  { limit, maxBytes }: { limit: number; maxBytes: number },
): Promise<ScheduleRow[]> {
  const size = sql<number>`octet_length(${schedules.request}) + octet_length(array_to_string(${schedules.userIds}, ','))`;
  const page = db
    .select({
      key: schedules.key,
      before: sql<number>`sum(${size}) over (order by ${schedules.key}) - (${size})`.as("before"),
    })
    .from(schedules)
    .where(and(eq(schedules.tenantId, tenantId), gt(schedules.key, after)))
    .orderBy(asc(schedules.key))
    .limit(limit)
    .as("page");
  const found = await db
    .select({ schedule: schedules })
    .from(page)
    .innerJoin(schedules, and(eq(schedules.tenantId, tenantId), eq(schedules.key, page.key)))
    .where(lte(page.before, maxBytes))
    .orderBy(asc(schedules.key));
  return found.map(({ schedule }) => schedule);
}

/** What a schedule brings to a page, as the page counts it. */
export function sizeOf({ request, userIds }: ScheduleRow): number {
  return request.byteLength + Buffer.byteLength(userIds.join(","));
}

/** Changes a schedule whose row the transaction has locked. */
export async function changeSchedule(
  db: Db,
  row: ScheduleRow,
  changes: Partial<ScheduleDefinition & Standing & Pick<ScheduleRow, "lastOccurrence">>,
  now: Date,
): Promise<ScheduleRow> {
  const [changed] = await db
    .update(schedules)
    .set({
      ...changes,
      lane: laneOf(row.tenantId, { ...row, ...changes }),
      revision: row.revision + 1,
      updatedAt: now,
    })
    .where(one(row.tenantId, row.key))
    .returning();
  if (changed === undefined) throw new Error("a locked schedule is gone");
  return changed;
}

/** Whether there was one. */
export async function removeSchedule(db: Db, tenantId: string, key: string): Promise<boolean> {
  const removed = await db.delete(schedules).where(one(tenantId, key)).returning({ key: schedules.key });
  return removed.length > 0;
}

/**
 * Takes a user out of up to `limit` schedules after a key, and deletes those that had only this one to send to. That is a
 * change like any other: a change that was merged from what was there before must not write the user back.
 */
export async function leaveSchedules(
  db: Db,
  tenantId: string,
  userId: string,
  after: string,
  limit: number,
): Promise<{ key: string; deleted: boolean }[]> {
  const found = await db
    .select({ key: schedules.key, userIds: schedules.userIds, alone: schedules.usersOnly })
    .from(schedules)
    .where(and(eq(schedules.tenantId, tenantId), gt(schedules.key, after), sql`${userId} = any (${schedules.userIds})`))
    .orderBy(asc(schedules.key))
    .limit(limit)
    .for("update");
  const left: { key: string; deleted: boolean }[] = [];
  for (const { key, userIds, alone } of found) {
    const others = userIds.filter((each) => each !== userId);
    const deleted = alone && others.length === 0;
    if (deleted) await removeSchedule(db, tenantId, key);
    else
      await db
        .update(schedules)
        .set({ userIds: others, revision: sql`${schedules.revision} + 1` })
        .where(one(tenantId, key));
    left.push({ key, deleted });
  }
  return left;
}

/** Has the schedules that go by a type's priority looked for by another one from now on. */
export async function followType(db: Db, tenantId: string, type: string, priority: number): Promise<void> {
  const following = and(
    eq(schedules.tenantId, tenantId),
    eq(schedules.type, type),
    eq(schedules.priority, 0),
    ne(schedules.lane, priority),
  );
  // In the order in which others lock several.
  const found = db
    .select({ key: schedules.key })
    .from(schedules)
    .where(following)
    .orderBy(asc(schedules.key))
    .for("update");
  await db
    .update(schedules)
    .set({ lane: priority })
    .where(and(eq(schedules.tenantId, tenantId), sql`${schedules.key} = any (array(${found}))`));
}

/** Has what was put aside looked at again: call it in the transaction that resumes the tenant. */
export async function bringBack(db: Db, tenantId: string, now: Date): Promise<void> {
  await db
    .update(schedules)
    .set({ firesAt: now })
    .where(
      and(
        eq(schedules.tenantId, tenantId),
        eq(schedules.state, State.ACTIVE),
        isNull(schedules.firesAt),
        isNotNull(schedules.occurrence),
      ),
    );
}

/** The priority with which a schedule's occurrences are sent, as its type is now. */
function laneOf(tenantId: string, { type, priority }: Pick<ScheduleRow, "type" | "priority">) {
  if (priority !== 0) return priority;
  return sql<number>`coalesce(
    (select ${types.defaultPriority} from ${types} where ${eq(types.tenantId, tenantId)} and ${eq(types.key, type)}),
    ${Priority.NORMAL}
  )`;
}

function one(tenantId: string, key: string) {
  return and(eq(schedules.tenantId, tenantId), eq(schedules.key, key));
}
