import { texts } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import { contractLocks } from "#src/types/payload/locks.ts";
import { StaleContract } from "#src/types/payload/stale.ts";

/** Encoded content, and the contract that judged its payload; undefined: none. */
export type Judged = { readonly type: string; readonly contractId: string | undefined; readonly content: Uint8Array };

/**
 * Makes sure that what judged payloads is current when the transaction ends: a push waits for it, and then finds what it
 * has stored. What has no contract costs nothing. Throws StaleContract.
 *
 * By advisory locks that all share: a share lock on the type's row would be written into the row, and to disk, by every
 * group. Two statements in one round trip: the second sees what was committed while the first waited.
 */
export async function fenceContracts(tx: Tx, tenantId: string, drafts: readonly Judged[]): Promise<void> {
  const judged = drafts.filter(({ contractId }) => contractId !== undefined);
  if (judged.length === 0) return;
  const types = [...new Set(judged.map(({ type }) => type))];
  const [, rows] = await Promise.all([
    tx`
      select pg_advisory_xact_lock_shared(lock) from (
        select distinct hashtextextended(name, 0) as lock from unnest(${texts(contractLocks(tenantId, types))}::text[])
          as t (name) order by lock) as locks`,
    tx<{ key: string; id: string | null }[]>`
      select key, payload_id as id from types where tenant_id = ${tenantId} and key = any (${texts(types)}::text[])`,
  ]);
  const current = new Map(rows.map(({ key, id }) => [key, id]));
  const changed = judged.filter(({ type, contractId }) => current.get(type) !== contractId);
  if (changed.length > 0) throw new StaleContract([...new Set(changed.map(({ type }) => type))]);
}
