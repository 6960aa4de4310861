import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { plain } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import { BatchRole } from "./role.ts";

/** A batch as stored. */
export type BatchRow = {
  id: string;
  userId: string;
  kind: number;
  type: string;
  priority: number;
  state: number;
  openedAt: Date;
  flushAt: Date;
  maxSize: number;
  joined: number;
  size: number;
  notificationId: string | null;
  endedAt: Date | null;
};

/** What became of the members that it closed with. */
export type Outcome = { batchId: string; delivered: number; failed: number; latencyMs: number | null };

/** What an inbox entry tells of the batch that it is. */
export type BatchSummary = { id: string; kind: number; size: number; notificationIds: string[] };

const MAX_MEMBERS = 100;

/** What whoever joins finds of the open batch of a user and key; undefined: they open it. */
export type OpenBatch = Pick<BatchRow, "id" | "kind" | "openedAt" | "flushAt" | "maxSize" | "joined"> & {
  latestFlushAt: Date;
};

export async function findOpenBatch(
  tx: Tx,
  tenantId: string,
  userId: string,
  key: string,
): Promise<OpenBatch | undefined> {
  const [row] = await tx<OpenBatch[]>`
    select id, kind, opened_at as "openedAt", flush_at as "flushAt", latest_flush_at as "latestFlushAt", max_size as "maxSize", joined
    from batches where tenant_id = ${tenantId} and user_id = ${userId} and key = ${key} and state = 1`;
  return row;
}

/** Of a notification called `n`: the summary of the batch that it is, as JSON; null for all others, which cost nothing. */
export function summaryOf(tx: Tx, tenantId: string) {
  return tx`case when n.batch_role = ${BatchRole.WHOLE} then (
    select json_build_object('id', b.id, 'kind', b.kind, 'size', b.size, 'notificationIds', array(
      select m.id from notifications m
      where m.tenant_id = ${tenantId} and m.batch_id = b.id and m.batch_role = ${BatchRole.MERGED}
      order by m.id limit ${MAX_MEMBERS}))
    from batches b where b.tenant_id = ${tenantId} and b.id = n.batch_id) end`;
}

/** The summaries of those of the notifications that are batches, by their ids. */
export async function readSummaries(
  tx: Tx,
  tenantId: string,
  ids: readonly string[],
): Promise<Map<string, BatchSummary>> {
  const rows = await tx<{ id: string; summary: BatchSummary | null }[]>`
    select n.id, ${summaryOf(tx, tenantId)} as summary from notifications n
    where n.tenant_id = ${tenantId} and n.id = any(${plain(ids)}::uuid[])`;
  return new Map(rows.flatMap(({ id, summary }) => (summary === null ? [] : [[id, summary] as const])));
}

export type BatchFilter = { userId: string; type: string; kind: number; state: number };

export async function findBatch(tx: Tx, tenantId: string, id: string): Promise<BatchRow | undefined> {
  const [row] = await tx<BatchRow[]>`select ${columns(tx)} from batches where tenant_id = ${tenantId} and id = ${id}`;
  return row;
}

/** A page, newest first, below the id `before`. */
export function pageBatches(
  tx: Tx,
  tenantId: string,
  { userId, type, kind, state }: BatchFilter,
  before: string | undefined,
  limit: number,
): Promise<BatchRow[]> {
  return tx<BatchRow[]>`
    select ${columns(tx)} from batches
    where tenant_id = ${tenantId}
      ${userId === "" ? tx`` : tx`and user_id = ${userId}`}
      ${type === "" ? tx`` : tx`and type = ${type}`}
      ${kind === 0 ? tx`` : tx`and kind = ${kind}`}
      ${state === 0 ? tx`` : tx`and state = ${state}`}
      ${before === undefined ? tx`` : tx`and id < ${before}`}
    order by id desc limit ${limit}`;
}

/** Counted from the members, so that it is never at odds with them. Nothing for batches that are not closed. */
export async function findOutcomes(tx: Tx, tenantId: string, ids: readonly string[]): Promise<Map<string, Outcome>> {
  const rows = await tx<Outcome[]>`
    select batch_id as "batchId",
      count(*) filter (where status in (${Status.DELIVERED}, ${Status.READ}))::int as delivered,
      count(*) filter (where status > ${Status.READ})::int as failed,
      avg(extract(epoch from delivered_at) * 1000 - greatest(
        ('x' || translate(left(id::text, 13), '-', ''))::bit(48)::bigint,
        extract(epoch from scheduled_at) * 1000))::float8 as "latencyMs"
    from notifications
    where tenant_id = ${tenantId} and batch_id = any(${plain(ids)}::uuid[])
      and batch_role in (${BatchRole.MERGED}, ${BatchRole.ALONE})
    group by batch_id`;
  return new Map(rows.map((row) => [row.batchId, row]));
}

function columns(tx: Tx) {
  return tx`id, user_id as "userId", kind, type, priority, state, opened_at as "openedAt", flush_at as "flushAt",
    max_size as "maxSize", joined, size, notification_id as "notificationId", ended_at as "endedAt"`;
}
