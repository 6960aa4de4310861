import type { Head } from "#src/inbox/entry.ts";
import { readHeads } from "#src/inbox/queries.ts";
import type { Store } from "#src/store/store.ts";

/** What a stream needs to know of its user to begin. */
export type Opening = { head: Head | undefined; topics: string[] };

type Asked = { userId: string; resolve: (opening: Opening) => void; reject: (error: unknown) => void };

/** Users read in one statement. */
const BATCH = 500;
/** A user's announcements come from at most this many topics. */
const MAX_TOPICS = 500;

/**
 * Reads openings, those asked for at the same time together: when a server restarts, its ten thousand clients come back
 * within seconds, and a query for each would be what keeps them waiting. One batch a tenant is read at a time; what is
 * asked meanwhile forms the next.
 */
export function openingReader(store: Store): (tenantId: string, userId: string) => Promise<Opening> {
  const tenants = new Map<string, { asked: Asked[]; reading: boolean }>();

  async function readAll(tenantId: string): Promise<void> {
    const tenant = tenants.get(tenantId);
    if (tenant === undefined || tenant.reading) return;
    tenant.reading = true;
    // Let what comes with the same packet join the first batch.
    await new Promise((resolve) => setImmediate(resolve));
    while (tenant.asked.length > 0) {
      const batch = tenant.asked.splice(0, BATCH);
      try {
        const openings = await readOpenings(store, tenantId, [...new Set(batch.map((asked) => asked.userId))]);
        for (const { userId, resolve } of batch) resolve(openings(userId));
      } catch (error) {
        for (const { reject } of batch) reject(error);
      }
    }
    tenants.delete(tenantId);
  }

  return (tenantId, userId) =>
    new Promise((resolve, reject) => {
      const tenant = tenants.get(tenantId) ?? { asked: [], reading: false };
      tenants.set(tenantId, tenant);
      tenant.asked.push({ userId, resolve, reject });
      void readAll(tenantId);
    });
}

async function readOpenings(store: Store, tenantId: string, userIds: string[]): Promise<(userId: string) => Opening> {
  const [heads, memberships] = await store.tenantAtOnce(tenantId, (tx) =>
    Promise.all([
      readHeads(tx, tenantId, userIds),
      tx<{ userId: string; topics: string[] }[]>`
        select user_id as "userId", (array_agg(topic order by topic))[1:${MAX_TOPICS}] as topics from topic_members
        where tenant_id = ${tenantId} and user_id = any(${userIds}::text[]) group by user_id`,
    ]),
  );
  const topics = new Map(memberships.map((row) => [row.userId, row.topics]));
  return (userId) => ({ head: heads.get(userId), topics: topics.get(userId) ?? [] });
}
