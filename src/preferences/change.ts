import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import type { Preferences } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { writeAudit } from "#src/audit/queries.ts";
import type { Invalidations } from "#src/broker/invalidations.ts";
import type { Clock } from "#src/clock.ts";
import { Fault } from "#src/errors.ts";
import type { NewId } from "#src/ids.ts";
import { eraseUnwanted } from "#src/learning/queries.ts";
import type { Store } from "#src/store/store.ts";
import { checkPreferences } from "./check.ts";
import { changedPaths, etagOf, type Stored, withoutEmpty } from "./document.ts";
import { lockPreferences, type Owner, savePreferences } from "./queries.ts";
import {
  type Counts,
  type Reconcile,
  type Reconciled,
  type ReconcileReminders,
  together,
  UNTOUCHED,
} from "./reconciled.ts";
import { keepRevision } from "./revisions.ts";
import { recordRuleChange } from "./rule-changes.ts";

export type ChangeDeps = {
  store: Store;
  clock: Clock;
  newId: NewId;
  invalidations: Invalidations;
  /** Keeps caches from holding on to the old value if this process dies between commit and invalidation. */
  aboutToChange(owner: Owner): Promise<void>;
  /** Decides anew what waits for the user. */
  reconcile: Reconcile;
  /** Gives the user's deadlines the reminders that new offsets ask for. */
  reconcileReminders: ReconcileReminders;
  /** Tells the user's streams. Called after the commit, for users, not for the tenant's defaults. */
  preferencesChanged(tenantId: string, userId: string, changedFields: string[], reconciled: Counts | undefined): void;
};

export type Change = {
  actor: string;
  action: "preferences.update" | "preferences.reset" | "default_preferences.update";
  /** Why; empty when users change their own. */
  reason: string;
  /** Change only this state; empty: any. */
  etag: string;
  edit(before: Preferences): Preferences;
};

/** Fields that decide about nothing that waits: how what comes is shown. */
const UNDECIDING = /^(language$|grouping\b)/;

/** `reconciled` for users only, when something changed. */
export type Changed = { stored: Stored; changedFields: string[]; reconciled: Counts | undefined };

/**
 * Changes a user's preferences, or the tenant's defaults, and writes that into the audit log with the same commit; which
 * also decides anew what waits for the user. What waits for all users of a tenant is decided anew by the scheduler.
 * Concurrent changes take turns; each sees the one before. What changes nothing leaves no trace.
 *
 * Throws ABORTED (ETAG_MISMATCH) when they changed since the etag was read, INVALID_REQUEST when the result breaks a
 * rule.
 */
export async function changePreferences(deps: ChangeDeps, owner: Owner, change: Change): Promise<Changed> {
  const { store, clock, newId } = deps;
  const { tenantId, userId } = owner;
  await deps.aboutToChange(owner);
  try {
    const changed = await store.tenantDb(tenantId, async (db) => {
      const now = clock();
      const before = await lockPreferences(db, owner, now);
      if (change.etag !== "" && change.etag !== etagOf(before)) throw new Fault(ErrorReason.ETAG_MISMATCH);
      const preferences = withoutEmpty(change.edit(before.preferences));
      const changedFields = changedPaths(before.preferences, preferences);
      if (changedFields.length === 0) return { stored: before, changedFields, reconciled: undefined };
      checkPreferences(preferences, changedFields);
      const stored = { preferences, revision: before.revision + 1, updatedAt: now };
      await keepRevision(db, owner, before, now);
      await savePreferences(db, owner, stored);
      const { actor, action, reason } = change;
      let reconciled: Reconciled | undefined;
      if (userId === "") await recordRuleChange(db, { tenantId, userId, type: "" }, now);
      else if (changedFields.every((path) => UNDECIDING.test(path))) reconciled = UNTOUCHED;
      else {
        const offsets = changedFields.some((path) => path.endsWith(".reminder_offsets"));
        const reminders = offsets ? await deps.reconcileReminders(db, tenantId, userId, { actor, now }) : undefined;
        reconciled = together(await deps.reconcile(db, tenantId, [userId], now, reminders?.fresh), reminders);
        // Behind the fence that this has raised.
        if (changedFields.includes("timing.learning")) await eraseUnwanted(db, tenantId, userId);
      }
      const target = userId === "" ? "default_preferences" : `user:${userId}`;
      await writeAudit(db, { tenantId, id: newId(), actor, action, target, reason });
      return { stored, changedFields, reconciled };
    });
    const { reconciled, ...rest } = changed;
    if (reconciled !== undefined) {
      reconciled.announce();
      deps.preferencesChanged(tenantId, userId, changed.changedFields, reconciled.counts);
    }
    return { ...rest, reconciled: reconciled?.counts };
  } finally {
    // After a failure too: whether it was committed is not always known.
    deps.invalidations.publish("preferences", tenantId, userId);
  }
}
