import type { Invalidations } from "#src/broker/invalidations.ts";
import type { Owner } from "#src/preferences/queries.ts";
import type { Counts, Reconcile } from "#src/preferences/reconciled.ts";
import type { Db } from "#src/store/store.ts";
import type { Replaced } from "./queries.ts";

export type ProfileRulesDeps = {
  invalidations: Invalidations;
  /** Keeps caches from holding on to old profiles if this process dies between commit and invalidation. */
  aboutToChange(owner: Owner): Promise<void>;
  /** Decides anew what waits for users. */
  reconcile: Reconcile;
  /** Tells a user's streams; without counts where many users were changed together. */
  preferencesChanged(tenantId: string, userId: string, changedFields: string[], reconciled: Counts | undefined): void;
};

/** Changes profiles, and has every cache forget them: after a failure too, since whether it was committed is not always known. */
export async function changingProfiles<T>(
  { aboutToChange, invalidations }: ProfileRulesDeps,
  tenantId: string,
  userIds: readonly string[],
  change: () => Promise<T>,
): Promise<T> {
  await Promise.all(userIds.map((userId) => aboutToChange({ tenantId, userId })));
  try {
    return await change();
  } finally {
    for (const userId of userIds) invalidations.publish("user", tenantId, userId);
  }
}

/**
 * What follows from users' profiles for their rules: in another time zone what waits is decided anew. In the transaction
 * that stores them; call what it answers after the commit.
 */
export async function followProfiles(
  deps: ProfileRulesDeps,
  db: Db,
  tenantId: string,
  stored: ReadonlyMap<string, Replaced & { created?: boolean }>,
  now: Date,
): Promise<() => void> {
  const moved = [...stored].flatMap(([id, { changed }]) => (changed.includes("time_zone") ? [id] : []));
  const reconciled = moved.length === 0 ? undefined : await deps.reconcile(db, tenantId, moved, now);
  return () => {
    reconciled?.announce();
    const counts = stored.size === 1 ? (reconciled?.counts ?? NOTHING) : undefined;
    for (const [id, { changed, created }] of stored) {
      if (changed.length > 0 && !created) deps.preferencesChanged(tenantId, id, changed, counts);
    }
  };
}

const NOTHING: Counts = { suppressed: 0, moved: 0, released: 0, rebatched: 0, unchanged: 0, added: 0, more: false };
