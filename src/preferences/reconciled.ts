import type { Db } from "#src/store/store.ts";

/** What a change of rules made of what waited. */
export type Counts = {
  suppressed: number;
  moved: number;
  released: number;
  rebatched: number;
  unchanged: number;
  /** Reminders that there were not before. */
  added: number;
  more: boolean;
};

export type Reconciled = {
  counts: Counts;
  /** Tells the users' streams what was ended or moved. Call it after the commit. */
  announce(): void;
};

/** What a change that decides about nothing makes of what waits. */
export const UNTOUCHED: Reconciled = {
  counts: { suppressed: 0, moved: 0, released: 0, rebatched: 0, unchanged: 0, added: 0, more: false },
  announce: () => undefined,
};

/**
 * Decides anew what waits for users, by the rules as the transaction sees them: call it in the transaction that changes
 * them, after the change. No decision drawn from the former rules comes to wait after it. Looks at 1,000 notifications;
 * with more than that the rest follows from the scheduler's next tick on. `fresh`: ids that the change itself has stored.
 */
export type Reconcile = (
  db: Db,
  tenantId: string,
  userIds: readonly string[],
  now: Date,
  fresh?: ReadonlySet<string>,
) => Promise<Reconciled>;

/** What new offsets made of a user's reminders, and the ids of those that are new. */
export type RemindersReconciled = {
  counts: Pick<Counts, "suppressed" | "moved" | "added">;
  fresh: ReadonlySet<string>;
  announce(): void;
};

/**
 * Gives the deadlines of a user, where they say none themselves, the reminders that the user's offsets ask for, as the
 * transaction sees them: call it in the transaction that changes them, after the change and before `Reconcile`.
 */
export type ReconcileReminders = (
  db: Db,
  tenantId: string,
  userId: string,
  by: { actor: string; now: Date },
) => Promise<RemindersReconciled>;

/** Both together, counted and told as one. */
export function together({ counts, announce }: Reconciled, reminders: RemindersReconciled | undefined): Reconciled {
  if (reminders === undefined) return { counts, announce };
  const { suppressed, moved, added } = reminders.counts;
  return {
    counts: { ...counts, suppressed: counts.suppressed + suppressed, moved: counts.moved + moved, added },
    announce() {
      reminders.announce();
      announce();
    },
  };
}
