import type { Tx } from "#src/store/store.ts";

/** The notification that stands for another with the same dedup key, for one that came at this instant. */
export async function findDuplicate(
  tx: Tx,
  tenantId: string,
  { userId, key }: { userId: string; key: string },
  at: Date,
): Promise<string | undefined> {
  const [row] = await tx<{ id: string }[]>`
    select notification_id as id from dedup_keys
    where tenant_id = ${tenantId} and user_id = ${userId} and key = ${key} and expires_at > ${at}`;
  return row?.id;
}
