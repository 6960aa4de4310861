import { texts } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import { StaleContract } from "#src/types/payload/stale.ts";

/** Encoded content, and the contract that judged its payload; undefined: none. */
export type Judged = { readonly type: string; readonly contractId: string | undefined; readonly content: Uint8Array };

/**
 * Makes sure that what judged payloads is current when the transaction ends: a push waits for it, and then finds what it
 * has stored. What has no contract costs nothing. Throws StaleContract.
 */
export async function fenceContracts(tx: Tx, tenantId: string, drafts: readonly Judged[]): Promise<void> {
  const judged = drafts.filter(({ contractId }) => contractId !== undefined);
  if (judged.length === 0) return;
  const types = [...new Set(judged.map(({ type }) => type))].sort();
  // What it has waited for it reads anew.
  const rows = await tx<{ key: string; id: string | null }[]>`
    select key, payload_id as id from types
    where tenant_id = ${tenantId} and key = any (${texts(types)}::text[]) order by key for share`;
  const current = new Map(rows.map(({ key, id }) => [key, id]));
  const changed = judged.filter(({ type, contractId }) => current.get(type) !== contractId);
  if (changed.length > 0) throw new StaleContract([...new Set(changed.map(({ type }) => type))]);
}
