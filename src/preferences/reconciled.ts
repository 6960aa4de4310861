import type { Db } from "#src/store/store.ts";

/** What a change of rules made of what waited. */
export type Counts = {
  suppressed: number;
  moved: number;
  released: number;
  rebatched: number;
  unchanged: number;
  more: boolean;
};

export type Reconciled = {
  counts: Counts;
  /** Tells the users' streams what was ended or moved. Call it after the commit. */
  announce(): void;
};

/**
 * Decides anew what waits for users, by the rules as the transaction sees them: call it in the transaction that changes
 * them, after the change. No decision drawn from the former rules comes to wait after it. Looks at 1,000 notifications;
 * with more than that the rest follows from the scheduler's next tick on.
 */
export type Reconcile = (db: Db, tenantId: string, userIds: readonly string[], now: Date) => Promise<Reconciled>;
