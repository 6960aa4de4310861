import { uuidFloor } from "#src/store/partitions.ts";
import type { Store, Tx } from "#src/store/store.ts";
import { WAITING } from "./end-open.ts";
import { cancelByIds, conditions, type Filter } from "./queries.ts";

type By = { actor: string; now: Date; slot: number };
type Cancelled = { id: string; userId: string };

/** As for what else ends what waits (end-open.ts). */
const CLOCK_SKEW_MS = 60_000;
const PAGE = 2000;
const FIRST = "00000000-0000-0000-0000-000000000000";

/**
 * Cancels what of a tenant waits and matches a filter, whatever that is about, in short transactions: it looks at what
 * waits, which is little beside what was sent and indexed. Tells of each transaction's when it is committed. Answers how
 * many; with `most` or more of them, there may be others.
 */
export async function cancelWaiting(
  store: Store,
  tenantId: string,
  filter: Filter,
  { by, told, most, signal }: { by: By; told(cancelled: Cancelled[]): void; most: number; signal: AbortSignal },
): Promise<number> {
  const places = WAITING.filter(({ status }) => filter.statuses.length === 0 || filter.statuses.includes(status));
  let total = 0;
  for (let before = -1; total > before && total < most; ) {
    // What is released between two pages moves to where was looked before: look until nothing is found.
    before = total;
    for (const place of places) {
      for (let after: string | undefined = FIRST; after !== undefined && total < most; ) {
        signal.throwIfAborted();
        const from: string = after;
        const page = await store.tenant(tenantId, (tx) => cancelPage(tx, tenantId, filter, place, from, by));
        if (page.cancelled.length > 0) told(page.cancelled);
        total += page.cancelled.length;
        after = page.last;
      }
    }
  }
  return total;
}

async function cancelPage(
  tx: Tx,
  tenantId: string,
  filter: Filter,
  { status, priority }: (typeof WAITING)[number],
  after: string,
  by: By,
): Promise<{ cancelled: Cancelled[]; last: string | undefined }> {
  const before = uuidFloor(new Date(by.now.getTime() + CLOCK_SKEW_MS));
  // A literal: only that lets Postgres use the partial indexes.
  const [page] = await tx<{ wanted: string[] | null; last: string | null; seen: number }[]>`
    with page as (
      select n.id, true ${conditions(tx, { ...filter, statuses: [] })} as wanted from notifications n
      where n.tenant_id = ${tenantId} and n.status = ${tx.unsafe(String(status))}
        ${priority === undefined ? tx`` : tx`and n.priority = ${priority}`}
        and n.id > ${after}::uuid and n.id < ${before}::uuid
      order by n.id limit ${PAGE}
    )
    select array_agg(id order by id) filter (where wanted) as wanted, (array_agg(id order by id desc))[1] as last,
      count(*)::int as seen from page`;
  const last = page === undefined || page.seen < PAGE || page.last === null ? undefined : page.last;
  return { cancelled: page?.wanted == null ? [] : await cancelByIds(tx, tenantId, page.wanted, by), last };
}
