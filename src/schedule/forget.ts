import type { Store } from "#src/store/store.ts";

/** Deletes up to `limit` each of the idempotency and dedup keys whose time is over; returns the greater number. */
export async function forgetKeys(store: Store, now: Date, limit: number): Promise<number> {
  const counts = await store.system((tx) =>
    Promise.all([
      tx`delete from idempotency_keys where (tenant_id, key) in (
        select tenant_id, key from idempotency_keys where expires_at <= ${now} order by expires_at limit ${limit}
        for update skip locked)`,
      tx`delete from dedup_keys where (tenant_id, user_id, key) in (
        select tenant_id, user_id, key from dedup_keys where expires_at <= ${now} order by expires_at limit ${limit}
        for update skip locked)`,
    ]),
  );
  return Math.max(...counts.map((result) => result.count));
}
