import type { Store, Tx } from "#src/store/store.ts";

/**
 * A tenant's transaction for statements that find their rows by key. Two things the planner gets wrong for them, told
 * before the first statement and in the same round trip:
 *
 * - It plans them anew each time, because it takes a page's limit for a tenth of the inbox; with a year of months that is
 *   2 ms of planning for 0.5 ms of work. So: one plan per connection.
 * - A plan made while a month is empty reads that month from end to end, and is kept while it fills. So: by index.
 */
export function byKey<T>(store: Store, tenantId: string, work: (tx: Tx) => Promise<T>): Promise<T> {
  return store.tenant(tenantId, async (tx) => {
    // Put on the way here, before `work` begins: a statement otherwise waits to be awaited.
    const told = tx`
      select set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true)`.execute();
    const [, result] = await Promise.all([told, work(tx)]);
    return result;
  });
}
