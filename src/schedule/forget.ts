import type { Store } from "#src/store/store.ts";

const DAY_MS = 86_400_000;

/** Deletes up to `limit` fan-outs that ended before the retention and whose notifications are gone; returns how many. */
export async function forgetFanouts(store: Store, now: Date, retentionDays: number, limit: number): Promise<number> {
  const before = new Date(now.getTime() - retentionDays * DAY_MS);
  const result = await store.system(
    (tx) => tx`
      delete from fanouts where (tenant_id, id) in (
        select f.tenant_id, f.id from fanouts f
        where f.ended_at < ${before}
          and not exists (select from notifications n where n.tenant_id = f.tenant_id and n.fanout_id = f.id)
        order by f.ended_at limit ${limit} for update skip locked)`,
  );
  return result.count;
}

/** Deletes up to `limit` batches that ended before the retention; returns how many. */
export async function forgetBatches(store: Store, now: Date, retentionDays: number, limit: number): Promise<number> {
  const before = new Date(now.getTime() - retentionDays * DAY_MS);
  const result = await store.system(
    (tx) => tx`
      delete from batches where (tenant_id, id) in (
        select tenant_id, id from batches where ended_at < ${before} order by ended_at limit ${limit}
        for update skip locked)`,
  );
  return result.count;
}

/** Deletes up to `limit` revisions of preferences that were replaced before the retention; returns how many. */
export async function forgetPreferences(
  store: Store,
  now: Date,
  retentionDays: number,
  limit: number,
): Promise<number> {
  const before = new Date(now.getTime() - retentionDays * DAY_MS);
  const result = await store.system(
    (tx) => tx`
      delete from preference_revisions where (tenant_id, user_id, revision) in (
        select tenant_id, user_id, revision from preference_revisions where replaced_at < ${before}
        order by replaced_at limit ${limit} for update skip locked)`,
  );
  return result.count;
}

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

/** Deletes up to `limit` each of the deadlines and the schedules that ended before the retention; returns the greater number. */
export async function forgetSchedules(store: Store, now: Date, retentionDays: number, limit: number): Promise<number> {
  const before = new Date(now.getTime() - retentionDays * DAY_MS);
  const counts = await store.system((tx) =>
    Promise.all([
      tx`delete from deadlines where (tenant_id, user_id, key) in (
        select tenant_id, user_id, key from deadlines where at < ${before} order by at limit ${limit}
        for update skip locked)`,
      tx`delete from schedules where (tenant_id, key) in (
        select tenant_id, key from schedules where ended_at < ${before} order by ended_at limit ${limit}
        for update skip locked)`,
    ]),
  );
  return Math.max(...counts.map((result) => result.count));
}

/** Deletes up to `limit` groups of inboxes that take in nothing more, as their windows are a day at most; how many. */
export async function forgetGroups(store: Store, now: Date, limit: number): Promise<number> {
  const before = new Date(now.getTime() - 2 * DAY_MS);
  const result = await store.system(
    (tx) => tx`
      delete from inbox_groups where (tenant_id, user_id, key) in (
        select tenant_id, user_id, key from inbox_groups where opened_at < ${before} order by opened_at limit ${limit}
        for update skip locked)`,
  );
  return result.count;
}

/** Deletes up to `limit` escalations that ended before the retention, or whose notification is as old; how many. */
export async function forgetEscalations(
  store: Store,
  now: Date,
  retentionDays: number,
  limit: number,
): Promise<number> {
  const before = new Date(now.getTime() - retentionDays * DAY_MS);
  const result = await store.system(
    (tx) => tx`
      delete from escalations where (tenant_id, notification_id) in (
        select tenant_id, notification_id from escalations
        where ended_at < ${before} or due_at < ${before} limit ${limit} for update skip locked)`,
  );
  return result.count;
}
