import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { writeAudit } from "#src/audit/queries.ts";
import { invalidField, notFound } from "#src/errors.ts";
import { endOpen } from "#src/notifications/end-open.ts";
import type { ChangeDeps } from "#src/preferences/change.ts";
import { lockPreferences, savePreferences, touchPreferences } from "#src/preferences/queries.ts";
import type { Counts, Reconciled } from "#src/preferences/reconciled.ts";
import { keepRevision } from "#src/preferences/revisions.ts";
import type { Db } from "#src/store/store.ts";
import {
  addMembers,
  findTopic,
  isMember,
  leaveTopics,
  lockTopic,
  type MembershipChanged,
  removeMembers,
} from "#src/topics/queries.ts";
import { findType } from "#src/types/queries.ts";
import {
  findSubscription,
  forgetUser,
  insertSubscription,
  type Owner,
  pageSubscriptions,
  removeSubscription,
  type SubscriptionRow,
  saveFilter,
} from "./queries.ts";
import { Kind } from "./rules.ts";

export type SubscriptionDeps = ChangeDeps & { membershipChanged: MembershipChanged };

/** Who changes it and why; the reason is empty when users change their own. */
export type By = { actor: string; reason: string };

/** As the contract says. */
const MAX_SUBSCRIPTIONS = 50;
const MAX_OF_TARGET = 10;

type Edited<T> = { value: T; changed: boolean; topic?: string };

/** `reconciled`: what became of what waited for the user; undefined when nothing changed. */
export type Changed<T> = { value: T; reconciled: Counts | undefined };

export function createSubscription(
  deps: SubscriptionDeps,
  owner: Owner,
  { kind, key, filter }: Pick<SubscriptionRow, "kind" | "key" | "filter">,
  by: By,
): Promise<Changed<SubscriptionRow>> {
  const first = (db: Db) => lockTarget(db, owner, kind, key);
  return change(deps, owner, { ...by, action: "subscription.create", first }, async (db, now) => {
    const topic = await checkTarget(db, owner, kind, key);
    const all = await pageSubscriptions(db, owner, "", MAX_SUBSCRIPTIONS);
    const alike = all.filter((row) => row.kind === kind && row.key === key);
    const same = alike.find((row) => row.filter === filter);
    if (same !== undefined) return { value: same, changed: false };
    if (all.length >= MAX_SUBSCRIPTIONS || alike.length >= MAX_OF_TARGET) {
      const most = alike.length >= MAX_OF_TARGET ? `${MAX_OF_TARGET} with this target` : `${MAX_SUBSCRIPTIONS}`;
      throw invalidField("subscription", `would be one more than ${most}; delete one first`);
    }
    const row = { ...owner, id: deps.newId(), kind, key, filter, createdAt: now, updatedAt: now };
    const joined = topic === undefined ? [] : await addMembers(db, owner.tenantId, topic, [owner.userId]);
    if (joined === undefined) throw notFound("topic");
    await insertSubscription(db, row);
    return { value: row, changed: true, ...(topic !== undefined && joined.length > 0 ? { topic } : {}) };
  });
}

export function updateSubscription(
  deps: SubscriptionDeps,
  owner: Owner,
  id: string,
  filter: string,
  by: By,
): Promise<Changed<SubscriptionRow>> {
  return change(deps, owner, { ...by, action: "subscription.update" }, async (db, now) => {
    const row = await findSubscription(db, owner, id);
    if (row === undefined) throw notFound("subscription");
    if (row.filter === filter) return { value: row, changed: false };
    await saveFilter(db, owner, id, filter, now);
    return { value: { ...row, filter, updatedAt: now }, changed: true };
  });
}

export function deleteSubscription(
  deps: SubscriptionDeps,
  owner: Owner,
  id: string,
  by: By,
): Promise<Changed<undefined>> {
  const first = async (db: Db) => {
    const row = await findSubscription(db, owner, id);
    if (row !== undefined) await lockTarget(db, owner, row.kind, row.key);
  };
  return change(deps, owner, { ...by, action: "subscription.delete", first }, async (db) => {
    const all = await pageSubscriptions(db, owner, "", MAX_SUBSCRIPTIONS);
    const row = all.find((each) => each.id === id);
    if (row === undefined) return { value: undefined, changed: false };
    const { kind, key } = row;
    const last = !all.some((each) => each.id !== id && each.kind === kind && each.key === key);
    const left = kind === Kind.TOPIC && last ? await removeMembers(db, owner.tenantId, key, [owner.userId]) : [];
    await removeSubscription(db, owner, id);
    return { value: undefined, changed: true, ...(left !== undefined && left.length > 0 ? { topic: key } : {}) };
  });
}

/** How much it ended. */
export type Unsubscribed = { subscriptions: number; topics: number; notifications: number };

/**
 * Opts a user out of everything, in short transactions. First of all nothing more is wanted; a failure after that leaves
 * work that the same call, repeated, ends.
 */
export async function unsubscribeAll(
  deps: SubscriptionDeps,
  owner: Owner,
  by: By,
  signal: AbortSignal,
): Promise<Unsubscribed> {
  const { store, clock } = deps;
  const { tenantId, userId } = owner;
  const action = "preferences.unsubscribe_all";
  const { value: subscriptions } = await guarded(deps, owner, async (db) => {
    const now = clock();
    const before = await lockPreferences(db, owner, now);
    const { preferences, revision } = before;
    const optsOut = preferences.enabled !== false;
    if (optsOut) {
      const optedOut = { ...preferences, enabled: false };
      await keepRevision(db, owner, before, now);
      await savePreferences(db, owner, { preferences: optedOut, revision: revision + 1, updatedAt: now });
    }
    const removed = await forgetUser(db, tenantId, userId);
    if (!optsOut && removed > 0) await touchPreferences(db, owner);
    await writeAudit(db, { ...by, tenantId, id: deps.newId(), action, target: `user:${userId}` });
    const fields = [...(optsOut ? ["enabled"] : []), ...(removed > 0 ? ["subscriptions"] : [])];
    return { value: removed, fields };
  });
  let topics = 0;
  for (let all = false; !all; ) {
    signal.throwIfAborted();
    const { left, done } = await store.tenantDb(tenantId, (db) => leaveTopics(db, tenantId, userId));
    for (const topic of left) deps.membershipChanged(tenantId, topic, [userId]);
    topics += left.length;
    all = done;
  }
  const ending = { reason: Reason.UNSUBSCRIBED, actor: by.actor, now: clock() };
  const notifications = await endOpen(store, tenantId, { userId }, ending, signal);
  return { subscriptions, topics, notifications };
}

/** A topic is locked before the preferences: whoever takes members out of it holds its lock, and then asks for these. */
async function lockTarget(db: Db, { tenantId }: Owner, kind: number, key: string): Promise<void> {
  if (kind === Kind.TOPIC) await lockTopic(db, tenantId, key);
}

/** Answers the topic, where it is one. Throws NOT_FOUND for what there is not, or not for this user. */
async function checkTarget(db: Db, { tenantId, userId }: Owner, kind: number, key: string) {
  if (kind === Kind.TYPE && (await findType(db, tenantId, key)) === undefined) throw notFound("type");
  if (kind !== Kind.TOPIC) return undefined;
  const topic = await findTopic(db, tenantId, key);
  const open = topic !== undefined && (topic.openToUsers || (await isMember(db, tenantId, key, userId)));
  if (!open) throw notFound("topic");
  return key;
}

/**
 * Changes a user's subscriptions, one change after the other, and writes that into the audit log with the same commit. What
 * changes nothing leaves no trace; what waits for the user is decided anew with that commit too, and nothing that was decided
 * by the former subscriptions is stored after it.
 */
async function change<T>(
  deps: SubscriptionDeps,
  owner: Owner,
  { action, first, ...by }: By & { action: string; first?: (db: Db) => Promise<void> },
  edit: (db: Db, now: Date) => Promise<Edited<T>>,
): Promise<Changed<T>> {
  const { tenantId, userId } = owner;
  let topic: string | undefined;
  const changed = await guarded(deps, owner, async (db) => {
    const now = deps.clock();
    await first?.(db);
    await lockPreferences(db, owner, now);
    const edited = await edit(db, now);
    topic = edited.topic;
    if (!edited.changed) return { value: edited.value, fields: [] };
    await touchPreferences(db, owner);
    const reconciled = await deps.reconcile(db, tenantId, [userId], now);
    await writeAudit(db, { ...by, tenantId, id: deps.newId(), action, target: `user:${userId}` });
    return { value: edited.value, fields: ["subscriptions"], reconciled };
  });
  if (topic !== undefined) deps.membershipChanged(tenantId, topic, [userId]);
  return changed;
}

/** Keeps caches from holding on to the old state, and tells the user's streams what changed. */
async function guarded<T>(
  deps: SubscriptionDeps,
  owner: Owner,
  work: (db: Db) => Promise<{ value: T; fields: string[]; reconciled?: Reconciled }>,
): Promise<Changed<T>> {
  const { tenantId, userId } = owner;
  await deps.aboutToChange(owner);
  try {
    const { value, fields, reconciled } = await deps.store.tenantDb(tenantId, work);
    reconciled?.announce();
    if (fields.length > 0) deps.preferencesChanged(tenantId, userId, fields, reconciled?.counts);
    return { value, reconciled: reconciled?.counts };
  } finally {
    // After a failure too: whether it was committed is not always known.
    deps.invalidations.publish("preferences", tenantId, userId);
  }
}
