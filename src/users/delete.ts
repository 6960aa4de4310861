import { and, eq, inArray, sql } from "drizzle-orm";
import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { writeAudit } from "#src/audit/queries.ts";
import { publishChange } from "#src/auth/changes.ts";
import { dissolveBatches } from "#src/batches/dissolve.ts";
import type { Invalidations } from "#src/broker/invalidations.ts";
import { removeDeadlines } from "#src/deadlines/queries.ts";
import type { NewId } from "#src/ids.ts";
import { changeEntries, findPlaces } from "#src/inbox/changes.ts";
import { eraseLooks } from "#src/learning/queries.ts";
import { endOpen } from "#src/notifications/end-open.ts";
import { raiseFence } from "#src/preferences/fence.ts";
import { forgetRevisions } from "#src/preferences/revisions.ts";
import { leaveSchedules } from "#src/schedules/queries.ts";
import { batches } from "#src/store/schema/batches.ts";
import { escalations, handOvers } from "#src/store/schema/escalations.ts";
import { tokenRevocations } from "#src/store/schema/tenants.ts";
import { preferences, ruleChanges, userRoles, users } from "#src/store/schema/users.ts";
import type { Db, Store, Tx } from "#src/store/store.ts";
import { forgetUser } from "#src/subscriptions/queries.ts";
import { leaveTopics, type MembershipChanged } from "#src/topics/queries.ts";
import { lockUser } from "./queries.ts";

export type DeleteUserDeps = {
  store: Store;
  invalidations: Invalidations;
  membershipChanged: MembershipChanged;
};

type By = { auditId: string; newId: NewId; actor: string; now: Date; signal: AbortSignal };

const DEADLINES_CHUNK = 1000;
const SCHEDULES_CHUNK = 100;
/** Entries removed by one transaction, which holds the lock that deliveries to this user wait for. */
const INBOX_CHUNK = 1000;

/**
 * Deletes a user and all that hangs on them, in short transactions. First of all the user is gone and their tokens with
 * them; a failure after that leaves work that the same call, repeated, ends.
 */
export async function deleteUser(deps: DeleteUserDeps, tenantId: string, userId: string, by: By): Promise<void> {
  const { store, invalidations } = deps;
  await store.tenantDb(tenantId, async (db) => {
    await deleteRecord(db, tenantId, userId, by.now);
    const target = `user:${userId}`;
    await writeAudit(db, { tenantId, id: by.auditId, actor: by.actor, action: "user.delete", target });
  });
  invalidations.publish("user", tenantId, userId);
  invalidations.publish("preferences", tenantId, userId);
  publishChange(invalidations, tenantId, { kind: "user", userId });
  for (let all = false; !all; ) {
    by.signal.throwIfAborted();
    const { left, done } = await store.tenantDb(tenantId, (db) => leaveTopics(db, tenantId, userId));
    for (const topic of left) deps.membershipChanged(tenantId, topic, [userId]);
    all = done;
  }
  await endDeadlines(deps, tenantId, userId, by.signal);
  await endSchedules(deps, tenantId, userId, by);
  await endOpen(store, tenantId, { userId }, { reason: Reason.USER_DELETED, actor: by.actor, now: by.now }, by.signal);
  await store.tenantDb(tenantId, async (db) => {
    // What has joined one since the end of the others must not be left without it.
    await dissolveBatches(db, tenantId, [userId], by.now);
    await db.delete(batches).where(and(eq(batches.tenantId, tenantId), eq(batches.userId, userId)));
    // In this order: so does whoever notes what came of a hand-over lock them, or cancels.
    const theirs = sql`tenant_id = ${tenantId}::uuid and user_id = ${userId}`;
    await db.execute(sql`select count(*) from (
      select from hand_overs where ${theirs} order by notification_id, step, channel for update) locked`);
    await db.execute(sql`select count(*) from (
      select from escalations where ${theirs} order by notification_id for update) locked`);
    for (const table of [handOvers, escalations])
      await db.delete(table).where(and(eq(table.tenantId, tenantId), eq(table.userId, userId)));
  });
  for (let emptied = false; !emptied; ) {
    by.signal.throwIfAborted();
    emptied = await store.tenant(tenantId, (tx) => emptyInbox(tx, tenantId, userId, by.now));
  }
}

async function deleteRecord(db: Db, tenantId: string, userId: string, now: Date): Promise<void> {
  const user = await lockUser(db, tenantId, userId);
  if (user !== undefined) {
    await db.delete(users).where(and(eq(users.tenantId, tenantId), eq(users.id, userId)));
    await db
      .delete(userRoles)
      .where(and(eq(userRoles.tenantId, tenantId), inArray(userRoles.role, user.roles), eq(userRoles.userId, userId)));
  }
  // In this order: so does a change of preferences or of subscriptions lock them.
  await db.delete(preferences).where(and(eq(preferences.tenantId, tenantId), eq(preferences.userId, userId)));
  await forgetRevisions(db, { tenantId, userId });
  await db.delete(ruleChanges).where(and(eq(ruleChanges.tenantId, tenantId), eq(ruleChanges.userId, userId)));
  await forgetUser(db, tenantId, userId);
  await raiseFence(db, tenantId, [userId]);
  await eraseLooks(db, tenantId, userId);
  await db
    .insert(tokenRevocations)
    .values({ tenantId, userId, notBefore: now })
    .onConflictDoUpdate({
      target: [tokenRevocations.tenantId, tokenRevocations.userId],
      set: { notBefore: sql`greatest(${tokenRevocations.notBefore}, excluded.not_before)` },
    });
}

/** Their reminders end with all that waits for the user. */
async function endDeadlines({ store }: DeleteUserDeps, tenantId: string, userId: string, signal: AbortSignal) {
  for (let gone = DEADLINES_CHUNK; gone === DEADLINES_CHUNK; ) {
    signal.throwIfAborted();
    gone = await store.tenant(tenantId, (tx) => removeDeadlines(tx, tenantId, userId, DEADLINES_CHUNK));
  }
}

/** Each schedule that loses the user, or ends with them, stands in the audit log: it is changed, by whoever deletes the user. */
async function endSchedules(
  { store }: DeleteUserDeps,
  tenantId: string,
  userId: string,
  { actor, newId, signal }: By,
): Promise<void> {
  const reason = "a user whom it names was deleted";
  for (let after: string | undefined = ""; after !== undefined; ) {
    signal.throwIfAborted();
    const from: string = after;
    const left = await store.tenantDb(tenantId, async (db) => {
      const left = await leaveSchedules(db, tenantId, userId, from, SCHEDULES_CHUNK);
      for (const { key, deleted } of left) {
        const action = deleted ? "schedule.delete" : "schedule.update";
        await writeAudit(db, { tenantId, id: newId(), actor, action, target: `schedule:${key}`, reason });
      }
      return left;
    });
    after = left.length < SCHEDULES_CHUNK ? undefined : left.at(-1)?.key;
  }
}

/**
 * Removes one chunk of an inbox and, with the last, its head; true when nothing is left. From the first lock of the head
 * to the commit nothing arrives, so that nothing slips in between.
 */
async function emptyInbox(tx: Tx, tenantId: string, userId: string, now: Date): Promise<boolean> {
  const owner = { tenantId, userId };
  const places = await findPlaces(tx, owner, tx``, undefined, INBOX_CHUNK);
  await changeEntries(tx, owner, { places }, { kind: "delete" }, now);
  const left = await tx`select 1 from inbox where tenant_id = ${tenantId} and user_id = ${userId} limit 1`;
  if (left.length > 0) return false;
  await tx`delete from inbox_groups where tenant_id = ${tenantId} and user_id = ${userId}`;
  await tx`delete from inbox_heads where tenant_id = ${tenantId} and user_id = ${userId}`;
  return true;
}
