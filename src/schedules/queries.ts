import { and, asc, eq, gt, isNotNull, isNull, lte, ne, sql } from "drizzle-orm";
import { Tenant_State } from "#gen/posthorn/v1/admin_service_pb.ts";
import { schedules } from "#src/store/schema/schedules.ts";
import type { Db, Tx } from "#src/store/store.ts";
import type { ScheduleDefinition, ScheduleRow, Standing } from "./schedule.ts";
import type { Step } from "./timing.ts";

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
    .values({ tenantId, ...definition, ...standing, revision: 1, createdAt: now, updatedAt: now })
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
  changes: Partial<ScheduleDefinition & Standing>,
  now: Date,
): Promise<ScheduleRow> {
  const [changed] = await db
    .update(schedules)
    .set({ ...changes, revision: row.revision + 1, updatedAt: now })
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
 * Takes a user out of all schedules, and deletes those that had only this one to send to. That is a change like any other:
 * a change that was merged from what was there before must not write the user back.
 */
export async function leaveSchedules(db: Db, tenantId: string, userId: string): Promise<void> {
  const left = await db
    .update(schedules)
    .set({ userIds: sql`array_remove(${schedules.userIds}, ${userId})`, revision: sql`${schedules.revision} + 1` })
    .where(and(eq(schedules.tenantId, tenantId), sql`${userId} = any (${schedules.userIds})`))
    .returning({ key: schedules.key, userIds: schedules.userIds, alone: schedules.usersOnly });
  for (const { key, userIds, alone } of left)
    if (alone && userIds.length === 0) await removeSchedule(db, tenantId, key);
}

export type Due = { tenantId: string; key: string };

/**
 * Schedules of which an occurrence has come, the longest due first, of all tenants that may send.
 * Claims nothing.
 */
export function dueSchedules(tx: Tx, now: Date, limit: number): Promise<Due[]> {
  return tx<Due[]>`
    select tenant_id as "tenantId", key from schedules s where fires_at <= ${now}
      and not exists (select from tenants t where t.id = s.tenant_id and t.state = ${Tenant_State.SUSPENDED})
    order by fires_at limit ${limit}`;
}

export type Firing = Pick<
  ScheduleRow,
  "key" | "request" | "userIds" | "rule" | "startTime" | "timeZone" | "finalTime" | "notBefore" | "revision"
> & { occurrence: string };

/** What is to fire now; undefined when it has, or no longer is to. */
export async function readFiring(tx: Tx, tenantId: string, key: string, now: Date): Promise<Firing | undefined> {
  const [row] = await tx<Firing[]>`
    select key, request, user_ids as "userIds", rule, start_time as "startTime", time_zone as "timeZone", final_time as "finalTime",
      not_before as "notBefore", revision, occurrence
    from schedules where tenant_id = ${tenantId} and key = ${key} and fires_at <= ${now}`;
  return row;
}

/** Whether the occurrence is the caller's, until the transaction ends. Nobody else's, nor changed since it was read. */
export async function claimFiring(tx: Tx, tenantId: string, firing: Firing): Promise<boolean> {
  const mine = await tx`
    select from schedules where tenant_id = ${tenantId} and key = ${firing.key} and revision = ${firing.revision}
      and occurrence = ${firing.occurrence} and user_ids = ${firing.userIds}::text[] for update skip locked`;
  return mine.length > 0;
}

/** Moves a claimed schedule on. It is ACTIVE (1), and ENDED (3) when there is no next occurrence. */
export async function moveOn(
  tx: Tx,
  tenantId: string,
  key: string,
  { next, firesAt, missed, sent }: Pick<Step, "next" | "missed"> & { firesAt: Date | null; sent: string | null },
  now: Date,
): Promise<void> {
  const ended = next === undefined;
  await tx`
    update schedules set occurrence = ${next ?? null}, fires_at = ${firesAt}, state = ${ended ? 3 : 1},
      ended_at = ${ended ? now : null}, last_occurrence = coalesce(${sent}, last_occurrence),
      fired = fired + ${sent === null ? 0 : 1}, missed = missed + ${missed}
    where tenant_id = ${tenantId} and key = ${key}`;
}

/** Looks at a due schedule again only at an instant. Its occurrence stays what it is. */
export async function putOff(tx: Tx, tenantId: string, key: string, until: Date, now: Date): Promise<void> {
  await tx`
    update schedules set fires_at = ${until} where tenant_id = ${tenantId} and key = ${key} and fires_at <= ${now}`;
}

function one(tenantId: string, key: string) {
  return and(eq(schedules.tenantId, tenantId), eq(schedules.key, key));
}
