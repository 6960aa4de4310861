import { sql } from "drizzle-orm";
import { texts } from "#src/store/arrays.ts";
import type { Db, Tx } from "#src/store/store.ts";

// Who decides by rules that are being changed must not have the last word. Two things see to it.
//
// Each decision carries the version of the rules it was drawn from, and is stored only if they are still the same: that is
// enough for what is final. What shall wait could still be missed by a change that looks for it at the same moment: neither
// would see the other's rows. So the two meet at a lock:
//
//     a decision that waits:  lock, shared ──▶ compare versions, store ──▶ commit
//     a change of rules:      lock, alone  ──▶ change, decide anew all that waits ──▶ commit
//
// Whoever comes second sees what the first has committed. The locks come before any lock of a notification.

/** What decisions were drawn from. Versions are of rows (xmin), "0" where there is none. */
export type RulesVersion = {
  /** Of the user's preferences, which get a new one with every change of their subscriptions too. */
  readonly user: string;
  /** Of the tenant's defaults, which get a new one with every type that changes too. */
  readonly tenant: string;
  /** The zone that the user's profile names. */
  readonly zone: string;
};

/** Whether what was drawn from these rules still holds by those that there are. Undefined: nobody asks. */
export function isDrawnFrom(version: RulesVersion | undefined, { user, tenant, zone }: RulesVersion): boolean {
  return version === undefined || (version.user === user && version.tenant === tenant && version.zone === zone);
}

/** The versions that there are, by user. Behind the fence they stay so until the transaction ends. */
export async function readVersions(
  tx: Tx,
  tenantId: string,
  userIds: readonly string[],
): Promise<ReadonlyMap<string, RulesVersion>> {
  const rows = await tx<(RulesVersion & { userId: string })[]>`
    select asked.id as "userId",
      coalesce((select p.xmin::text from preferences p where p.tenant_id = ${tenantId} and p.user_id = asked.id), '0')
        as user,
      coalesce((select d.xmin::text from default_preferences d where d.tenant_id = ${tenantId}), '0') as tenant,
      coalesce((select u.time_zone from users u where u.tenant_id = ${tenantId} and u.id = asked.id), '') as zone
    from unnest(${texts(userIds)}::text[]) as asked (id)`;
  return new Map(rows.map(({ userId, ...rules }) => [userId, rules]));
}

/** A chunk with a hold for each of its users must not fill the table of locks; a few users may share one. */
const BUCKETS = 64;

/** Names of the locks for users' rules; with the empty id, for what the tenant gives to all. Sorted, without repeats. */
export function fenceNames(tenantId: string, userIds: readonly string[]): string[] {
  const names = userIds.map((userId) => `${tenantId} rules ${userId === "" ? "of all" : bucketOf(userId)}`);
  return [...new Set(names)].sort();
}

/** FNV-1a. */
function bucketOf(userId: string): number {
  let hash = 0x811c9dc5;
  for (let n = 0; n < userId.length; n++) hash = Math.imul(hash ^ userId.charCodeAt(n), 0x01000193);
  return (hash >>> 0) % BUCKETS;
}

/**
 * Waits until no decision drawn from the present rules of these users can still begin to wait, and lets none until the
 * transaction ends. Call it before the transaction locks any notification.
 */
export async function raiseFence(db: Db, tenantId: string, userIds: readonly string[]): Promise<void> {
  const names = texts(fenceNames(tenantId, userIds));
  await db.execute(sql`
    select pg_advisory_xact_lock(lock) from (
      select distinct hashtextextended(name, 0) as lock from unnest(${names}::text[]) as t (name) order by lock) as locks`);
}

/** The locks of a decision that waits, as part of a select; `names` by fenceNames. */
export function sharedFence(tx: Tx, names: readonly string[]) {
  return tx`pg_advisory_xact_lock_shared(lock) from (
    select distinct hashtextextended(name, 0) as lock from unnest(${texts(names)}::text[]) as t (name)
    order by lock) as locks`;
}
