import { and, eq, inArray, sql } from "drizzle-orm";
import { fenceNames, sharedFence } from "#src/preferences/fence.ts";
import { instants, plain, texts } from "#src/store/arrays.ts";
import { looks } from "#src/store/schema/users.ts";
import type { Db, Store, Tx } from "#src/store/store.ts";
import { CELLS, HALF_LIFE_MS, type Looks } from "./looks.ts";

const DAY_MS = 86_400_000;

/** That a user looked: at that instant, in the hour of their clock that began at another. */
export type Look = { userId: string; cell: number; hour: Date; at: Date };

/**
 * Counts looks, one of a user at most, where that hour of theirs is not counted yet and they may be learnt from. By what
 * is committed when the statement begins, behind the fence: of a change that forbids it or deletes the user, either this
 * sees what it has committed, or it deletes what this has written.
 *
 * A clock that is far ahead would have an hour yet to come outweigh all others, and none counted until then: what lies
 * more than a day ahead of the database's clock is not counted where something nearer is known, and gives way to it.
 */
export async function countLooks(tx: Tx, tenantId: string, seen: readonly Look[]): Promise<void> {
  const fences = fenceNames(
    tenantId,
    seen.map(({ userId }) => userId),
  );
  const far = tx`now() + interval '1 day'`;
  await Promise.all([
    tx`select ${sharedFence(tx, fences)}`.execute(),
    tx`
      insert into looks as l (tenant_id, user_id, weights, since, last_hour)
      select ${tenantId}, t.user_id, array(
          select case when cell = t.cell then 1 else 0 end::float8 from generate_series(0, ${CELLS - 1}::int) as cell),
        t.hour, t.hour
      from unnest(
        ${texts(seen.map(({ userId }) => userId))}::text[], ${plain(seen.map(({ cell }) => cell))}::int[],
        ${instants(seen.map(({ hour }) => hour))}::timestamptz[], ${instants(seen.map(({ at }) => at))}::timestamptz[]
      ) as t (user_id, cell, hour, at)
      where coalesce(
          (select (document #>> '{timing,learning}')::boolean from preferences p
            where p.tenant_id = ${tenantId} and p.user_id = t.user_id),
          (select (document #>> '{timing,learning}')::boolean from default_preferences d
            where d.tenant_id = ${tenantId}), true)
        and not exists (select from token_revocations r
          where r.tenant_id = ${tenantId} and r.user_id = t.user_id and r.not_before >= t.at)
      order by t.user_id
      on conflict (tenant_id, user_id) do update set last_hour = excluded.last_hour,
        since = case when l.last_hour > ${far} and excluded.last_hour <= ${far} then excluded.since else l.since end,
        weights = case when l.last_hour > ${far} and excluded.last_hour <= ${far} then excluded.weights else array(
          select was + now * 2 ^ (extract(epoch from excluded.last_hour - l.since)::float8 * 1000 / ${HALF_LIFE_MS}::float8)
          from unnest(l.weights, excluded.weights) with ordinality as w (was, now, cell) order by cell) end
      where case when (l.last_hour > ${far}) = (excluded.last_hour > ${far}) then l.last_hour < excluded.last_hour
        else excluded.last_hour <= ${far} end`.execute(),
  ]);
}

/** What is known of users: nothing for those who have not looked. By key, for the hot path. */
export async function readLooks(tx: Tx, tenantId: string, userIds: readonly string[]): Promise<Looks[]> {
  return tx<Looks[]>`
    select user_id as "userId", weights, since, last_hour as "lastHour" from looks
    where tenant_id = ${tenantId} and user_id = any(${texts(userIds)}::text[])`;
}

/** The same in a transaction of Drizzle's. */
export async function findLooks(db: Db, tenantId: string, userIds: readonly string[]): Promise<Looks[]> {
  return db
    .select({ userId: looks.userId, weights: looks.weights, since: looks.since, lastHour: looks.lastHour })
    .from(looks)
    .where(and(eq(looks.tenantId, tenantId), inArray(looks.userId, userIds as string[])));
}

/** Whether there was anything. Behind the fence of the user's rules (preferences/fence.ts), as `eraseUnwanted`. */
export async function eraseLooks(db: Db, tenantId: string, userId: string): Promise<boolean> {
  const erased = await db
    .delete(looks)
    .where(and(eq(looks.tenantId, tenantId), eq(looks.userId, userId)))
    .returning({ userId: looks.userId });
  return erased.length > 0;
}

/**
 * Deletes up to `limit` rows of who has not looked within the retention, and as many of who is not to be learnt from by
 * their tenant's default: their own word forgets at once. Answers how many of the one or the other; fewer than `limit`:
 * there are no more.
 */
export async function forgetLooks(store: Store, now: Date, retentionDays: number, limit: number): Promise<number> {
  const before = new Date(now.getTime() - retentionDays * DAY_MS);
  return store.system(async (tx) => {
    const old = await tx`
      delete from looks where (tenant_id, user_id) in (
        select tenant_id, user_id from looks where last_hour < ${before}
        order by last_hour limit ${limit} for update skip locked)`;
    const unwanted = await tx`
      delete from looks where (tenant_id, user_id) in (
        select l.tenant_id, l.user_id from default_preferences d join looks l on l.tenant_id = d.tenant_id
        left join preferences p on p.tenant_id = l.tenant_id and p.user_id = l.user_id
        where not (d.document #>> '{timing,learning}')::boolean
          and (p.document #>> '{timing,learning}')::boolean is not true
        limit ${limit} for update of l skip locked)`;
    return Math.max(old.count, unwanted.count);
  });
}

/** Deletes what was learnt of a user who may not be learnt from any more, as the transaction sees it. */
export async function eraseUnwanted(db: Db, tenantId: string, userId: string): Promise<void> {
  await db.execute(sql`
    delete from looks l where l.tenant_id = ${tenantId}::uuid and l.user_id = ${userId} and not coalesce(
      (select (document #>> '{timing,learning}')::boolean from preferences p
        where p.tenant_id = l.tenant_id and p.user_id = l.user_id),
      (select (document #>> '{timing,learning}')::boolean from default_preferences d
        where d.tenant_id = l.tenant_id), true)`);
}
