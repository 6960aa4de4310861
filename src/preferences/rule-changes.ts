import { sql } from "drizzle-orm";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { texts } from "#src/store/arrays.ts";
import type { Db, Tx } from "#src/store/store.ts";

/** Whose rules changed: a user's, or with the empty user id those of all, or of all for one type. */
export type RuleChange = { tenantId: string; userId: string; type: string };

/** How far what waits has been decided anew: everything of the status up to the id. */
export type Progress = { status: number; after: string };

const FIRST = "00000000-0000-0000-0000-000000000000";

/** Stands for what has been decided, of which only steps of escalations still wait. */
export const DECIDED = Status.DELIVERED;

const ORDER: readonly number[] = [Status.SCHEDULED, Status.HELD, Status.BATCHED, DECIDED];

/** Where to begin: with what waits in this status first. */
export const BEGIN: Progress = { status: Status.SCHEDULED, after: FIRST };

/** What waits, status by status: what comes after a status when all of it has been looked at. */
export function following(status: number): Progress | undefined {
  const next = ORDER[ORDER.indexOf(status) + 1];
  return next === undefined ? undefined : { status: next, after: FIRST };
}

/** Has what waits decided anew, from the start if that had begun. In the transaction that changes the rules. */
export async function recordRuleChange(db: Db, { tenantId, userId, type }: RuleChange, now: Date): Promise<void> {
  await recordForUsers(db, tenantId, [userId], type, BEGIN, now);
}

/** The same for users whose first notifications, up to an id, have been decided anew. */
export async function recordRest(
  db: Db,
  tenantId: string,
  userIds: readonly string[],
  after: string,
  now: Date,
): Promise<void> {
  await recordForUsers(db, tenantId, userIds, "", { status: BEGIN.status, after }, now);
}

async function recordForUsers(
  db: Db,
  tenantId: string,
  userIds: readonly string[],
  type: string,
  { status, after }: Progress,
  now: Date,
): Promise<void> {
  await db.execute(sql`
    insert into rule_changes (tenant_id, user_id, type, status, after, changed_at)
    select ${tenantId}::uuid, user_id, ${type}, ${status}::smallint, ${after}::uuid, ${now.toISOString()}::timestamptz
    from unnest(${texts(userIds)}::text[]) as t (user_id) order by user_id
    on conflict (tenant_id, user_id, type) do update
      set status = excluded.status, after = excluded.after, changed_at = excluded.changed_at`);
}

/**
 * Gives what the tenant's users have in common a new version, so that no decision drawn from the former types is stored:
 * call it in the transaction that changes one, and then `recordRuleChange`.
 */
export async function touchDefaults(db: Db, tenantId: string, now: Date): Promise<void> {
  await db.execute(sql`
    insert into default_preferences (tenant_id, document, revision, updated_at)
    values (${tenantId}::uuid, '{}', 0, ${now.toISOString()}::timestamptz)
    on conflict (tenant_id) do update set revision = default_preferences.revision`);
}

/** Those of all tenants' changes that nobody has been at for longest. */
export async function oldestRuleChanges(tx: Tx, limit: number): Promise<RuleChange[]> {
  return tx<RuleChange[]>`
    select tenant_id as "tenantId", user_id as "userId", type from rule_changes order by changed_at limit ${limit}`;
}

/** Takes a change for the length of the transaction; undefined when it is done with or somebody else is at it. */
export async function takeRuleChange(db: Db, change: RuleChange): Promise<Progress | undefined> {
  const [row] = await db.execute<Progress>(sql`
    select status, after from rule_changes where ${same(change)} for update skip locked`);
  return row;
}

/** Writes down how far a taken change has come, behind all that wait; undefined: it is done. */
export async function moveRuleChange(db: Db, change: RuleChange, to: Progress | undefined, now: Date): Promise<void> {
  if (to === undefined) await db.execute(sql`delete from rule_changes where ${same(change)}`);
  else {
    await db.execute(sql`
      update rule_changes
      set status = ${to.status}::smallint, after = ${to.after}::uuid, changed_at = ${now.toISOString()}::timestamptz
      where ${same(change)}`);
  }
}

/** Lets all that wait come before a change that could not be worked on. */
export async function postponeRuleChange(db: Db, change: RuleChange, now: Date): Promise<void> {
  await db.execute(sql`
    update rule_changes set changed_at = ${now.toISOString()}::timestamptz where ${same(change)}`);
}

function same({ tenantId, userId, type }: RuleChange) {
  return sql`tenant_id = ${tenantId}::uuid and user_id = ${userId} and type = ${type}`;
}
