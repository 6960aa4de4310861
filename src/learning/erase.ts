import { writeAudit } from "#src/audit/queries.ts";
import type { ChangeDeps } from "#src/preferences/change.ts";
import { raiseFence } from "#src/preferences/fence.ts";
import { lockPreferences, type Owner, touchPreferences } from "#src/preferences/queries.ts";
import type { Counts } from "#src/preferences/reconciled.ts";
import { eraseLooks } from "./queries.ts";

/**
 * Forgets when a user looks, writes that into the audit log, and decides anew what waits for them, in one transaction.
 * Undefined: nothing was learnt. No decision drawn from it is stored afterwards.
 */
export async function eraseLearnt(
  deps: ChangeDeps,
  owner: Owner,
  by: { actor: string; reason: string },
): Promise<Counts | undefined> {
  const { tenantId, userId } = owner;
  await deps.aboutToChange(owner);
  try {
    const reconciled = await deps.store.tenantDb(tenantId, async (db) => {
      const now = deps.clock();
      await lockPreferences(db, owner, now);
      await raiseFence(db, tenantId, [userId]);
      if (!(await eraseLooks(db, tenantId, userId))) return undefined;
      await touchPreferences(db, owner);
      const reconciled = await deps.reconcile(db, tenantId, [userId], now);
      await writeAudit(db, {
        ...by,
        tenantId,
        id: deps.newId(),
        action: "learnt_timing.delete",
        target: `user:${userId}`,
      });
      return reconciled;
    });
    reconciled?.announce();
    if (reconciled !== undefined) deps.preferencesChanged(tenantId, userId, ["learnt_timing"], reconciled.counts);
    return reconciled?.counts;
  } finally {
    // After a failure too: whether it was committed is not always known.
    deps.invalidations.publish("preferences", tenantId, userId);
  }
}
