import { and, eq, inArray, sql } from "drizzle-orm";
import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { writeAudit } from "#src/audit/queries.ts";
import { publishChange } from "#src/auth/changes.ts";
import { dissolveBatches } from "#src/batches/dissolve.ts";
import type { Invalidations } from "#src/broker/invalidations.ts";
import { changeEntries, findPlaces } from "#src/inbox/changes.ts";
import { endOpen } from "#src/notifications/end-open.ts";
import { leaveSchedules } from "#src/schedules/queries.ts";
import { batches } from "#src/store/schema/batches.ts";
import { escalations, handOvers } from "#src/store/schema/escalations.ts";
import { deadlines } from "#src/store/schema/schedules.ts";
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

/** Entries removed by one transaction, which holds the lock that deliveries to this user wait for. */
const INBOX_CHUNK = 1000;

/**
 * Deletes a user and all that hangs on them, in short transactions. First of all the user is gone and their tokens with
 * them; a failure after that leaves work that the same call, repeated, ends.
 */
export async function deleteUser(
  deps: DeleteUserDeps,
  tenantId: string,
  userId: string,
  by: { auditId: string; actor: string; now: Date; signal: AbortSignal },
): Promise<void> {
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
  await endOpen(store, tenantId, { userId }, { reason: Reason.USER_DELETED, actor: by.actor, now: by.now }, by.signal);
  await store.tenantDb(tenantId, async (db) => {
    // What has joined one since the end of the others must not be left without it.
    await dissolveBatches(db, tenantId, [userId], by.now);
    await db.delete(batches).where(and(eq(batches.tenantId, tenantId), eq(batches.userId, userId)));
    for (const table of [escalations, handOvers])
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
  await db.delete(ruleChanges).where(and(eq(ruleChanges.tenantId, tenantId), eq(ruleChanges.userId, userId)));
  await forgetUser(db, tenantId, userId);
  await db.delete(deadlines).where(and(eq(deadlines.tenantId, tenantId), eq(deadlines.userId, userId)));
  await leaveSchedules(db, tenantId, userId);
  await db
    .insert(tokenRevocations)
    .values({ tenantId, userId, notBefore: now })
    .onConflictDoUpdate({
      target: [tokenRevocations.tenantId, tokenRevocations.userId],
      set: { notBefore: sql`greatest(${tokenRevocations.notBefore}, excluded.not_before)` },
    });
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
