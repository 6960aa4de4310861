import { open } from "#src/notifications/queries.ts";
import { plain } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import type { DeadlineDefinition, DeadlineRow } from "./deadline.ts";
import type { Reminder } from "./plan.ts";

/** The deadline, made if there was none; its row stays locked, so that its reminders change one change at a time. */
export async function lockDeadline(
  tx: Tx,
  tenantId: string,
  wanted: DeadlineDefinition,
  now: Date,
): Promise<{ row: DeadlineRow; isNew: boolean }> {
  const { userId, key, type, at, content, priority, offsetsMs } = wanted;
  const made = await tx`
    insert into deadlines (tenant_id, user_id, key, type, at, content, priority, offsets_ms, reminders, revision,
      created_at, updated_at)
    values (${tenantId}, ${userId}, ${key}, ${type}, ${at}, ${content as Buffer}, ${priority},
      ${offsetsMs === null ? null : plain(offsetsMs)}::bigint[], '[]', 1, ${now}, ${now})
    on conflict (tenant_id, user_id, key) do nothing returning key`;
  const row = await findDeadline(tx, tenantId, userId, key, true);
  // Deleted between the two: whoever calls again makes it anew.
  if (row === undefined) return lockDeadline(tx, tenantId, wanted, now);
  return { row, isNew: made.length > 0 };
}

export async function findDeadline(
  tx: Tx,
  tenantId: string,
  userId: string,
  key: string,
  lock = false,
): Promise<DeadlineRow | undefined> {
  const [row] = await tx<DeadlineRow[]>`
    select ${columns(tx)} from deadlines where tenant_id = ${tenantId} and user_id = ${userId} and key = ${key}
    ${lock ? tx`for update` : tx``}`;
  return row;
}

/** Up to `limit` deadlines of a user after a key, in the order of keys. */
export async function pageDeadlines(
  tx: Tx,
  tenantId: string,
  userId: string,
  after: string,
  limit: number,
): Promise<DeadlineRow[]> {
  return tx<DeadlineRow[]>`
    select ${columns(tx)} from deadlines where tenant_id = ${tenantId} and user_id = ${userId} and key > ${after}
    order by key limit ${limit}`;
}

/** Changes a locked deadline. */
export async function changeDeadline(
  tx: Tx,
  tenantId: string,
  { userId, key, type, at, content, priority, offsetsMs }: DeadlineDefinition,
  { reminders, revision }: { reminders: readonly Reminder[]; revision: number },
  now: Date,
): Promise<void> {
  await tx`
    update deadlines set type = ${type}, at = ${at}, content = ${content as Buffer}, priority = ${priority},
      offsets_ms = ${offsetsMs === null ? null : plain(offsetsMs)}::bigint[], reminders = ${tx.json([...reminders])},
      revision = ${revision}, updated_at = ${now}
    where tenant_id = ${tenantId} and user_id = ${userId} and key = ${key}`;
}

/** Removes a deadline and answers it, if there was one. */
export async function removeDeadline(
  tx: Tx,
  tenantId: string,
  userId: string,
  key: string,
): Promise<DeadlineRow | undefined> {
  const [row] = await tx<DeadlineRow[]>`
    delete from deadlines where tenant_id = ${tenantId} and user_id = ${userId} and key = ${key}
    returning ${columns(tx)}`;
  return row;
}

/** Those of the notifications that are not handed over yet. They stay so until the transaction ends. */
export async function lockOpen(tx: Tx, tenantId: string, ids: readonly string[]): Promise<Set<string>> {
  if (ids.length === 0) return new Set();
  const rows = await tx<{ id: string }[]>`
    select id from notifications where tenant_id = ${tenantId} and id = any(${plain(ids)}::uuid[]) and ${open(tx)}
    order by id for update`;
  return new Set(rows.map(({ id }) => id));
}

function columns(tx: Tx) {
  return tx`tenant_id as "tenantId", user_id as "userId", key, type, at, content, priority,
    offsets_ms::float8[] as "offsetsMs", reminders, revision, created_at as "createdAt", updated_at as "updatedAt"`;
}
