import { and, asc, eq, gt, isNotNull, isNull, lte, ne, sql } from "drizzle-orm";
import { Tenant_State } from "#gen/posthorn/v1/admin_service_pb.ts";
import { Schedule_State as State } from "#gen/posthorn/v1/schedule_service_pb.ts";
import { plain, texts } from "#src/store/arrays.ts";
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
  changes: Partial<ScheduleDefinition & Standing & Pick<ScheduleRow, "lastOccurrence">>,
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

export type Due = { tenantId: string; key: string };

/** Schedules of which an occurrence has come, the longest due first, of all tenants. Claims nothing. */
export function dueSchedules(tx: Tx, now: Date, limit: number): Promise<(Due & { suspended: boolean })[]> {
  return tx<(Due & { suspended: boolean })[]>`
    select tenant_id as "tenantId", key,
      exists (select from tenants t where t.id = s.tenant_id and t.state = ${Tenant_State.SUSPENDED}) as suspended
    from schedules s where fires_at <= ${now} order by fires_at limit ${limit}`;
}

/**
 * Puts due schedules of suspended tenants aside, so that nobody comes by them at each look. The tenants stay as they are
 * meanwhile: whoever resumes one finds what was put aside before (`bringBack`), and nothing is after.
 */
export async function putAside(tx: Tx, due: readonly Due[], now: Date): Promise<void> {
  if (due.length === 0) return;
  const tenants = plain([...new Set(due.map(({ tenantId }) => tenantId))].sort());
  await tx`
    with suspended as materialized (
      select id from tenants where id = any(${tenants}::uuid[]) and state = ${Tenant_State.SUSPENDED} order by id for share
    ), mine as materialized (
      select s.tenant_id, s.key from unnest(
        ${plain(due.map(({ tenantId }) => tenantId))}::uuid[], ${texts(due.map(({ key }) => key))}::text[]
      ) as d (tenant_id, key)
      join suspended on suspended.id = d.tenant_id
      join schedules s on s.tenant_id = d.tenant_id and s.key = d.key
      where s.fires_at <= ${now} for update of s skip locked
    )
    update schedules s set fires_at = null from mine where s.tenant_id = mine.tenant_id and s.key = mine.key`;
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

export type Firing = Pick<
  ScheduleRow,
  "key" | "request" | "userIds" | "rule" | "startTime" | "timeZone" | "finalTime" | "notBefore"
> & {
  occurrence: string;
  /** Since when it may be sent. */
  firesAt: Date;
  /** Of the row (xmin): another one after any change, or when it was deleted and another made with its key. */
  version: string;
};

/** What is to fire now; undefined when it has, or no longer is to. */
export async function readFiring(tx: Tx, tenantId: string, key: string, now: Date): Promise<Firing | undefined> {
  const [row] = await tx<Firing[]>`
    select key, request, user_ids as "userIds", rule, start_time as "startTime", time_zone as "timeZone", final_time as "finalTime",
      not_before as "notBefore", occurrence, fires_at as "firesAt", xmin::text as version
    from schedules where tenant_id = ${tenantId} and key = ${key} and fires_at <= ${now}`;
  return row;
}

/** Whether the occurrence is the caller's, until the transaction ends. Nobody else's, nor changed since it was read. */
export async function claimFiring(tx: Tx, tenantId: string, firing: Firing): Promise<boolean> {
  const mine = await tx`
    select from schedules where tenant_id = ${tenantId} and key = ${firing.key} and xmin = ${firing.version}::xid
    for update skip locked`;
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
