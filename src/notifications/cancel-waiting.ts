import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { BatchRole } from "#src/batches/role.ts";
import { plain } from "#src/store/arrays.ts";
import { uuidFloor } from "#src/store/partitions.ts";
import type { Store, Tx } from "#src/store/store.ts";
import { type By, type Cancelled, cancelByFilter, cancelByIds } from "./cancel.ts";
import { WAITING } from "./end-open.ts";
import { conditions, type Filter } from "./queries.ts";

/** As for what else ends what waits (end-open.ts). */
const CLOCK_SKEW_MS = 60_000;
const PAGE = 2000;
/** Of a user's, a fan-out's or a batch's in one transaction. */
const AT_ONCE = 1000;
const FIRST = "00000000-0000-0000-0000-000000000000";

/** `most`: no more than so many. */
type Many = { by: By; told(cancelled: Cancelled[]): void; most: number; signal: AbortSignal };
/** A page of what waits at one place, after an id: those that match, and the last; undefined when there is no more. */
type Page = (tx: Tx, after: string) => Promise<{ wanted: string[]; last: string | undefined }>;

/**
 * Cancels what of a tenant waits and matches a filter, whatever that is about, in short transactions: it looks at what
 * waits, which is little beside what was sent and indexed, and of a user, fan-out or batch at what is theirs. Tells of each
 * transaction's when it is committed. Answers how many; with `most` or more of them, there may be others.
 */
export async function cancelWaiting(store: Store, tenantId: string, filter: Filter, many: Many): Promise<number> {
  const outside = outsidePages(tenantId, filter);
  if (filter.userId !== undefined || filter.fanoutId !== undefined || filter.batchId !== undefined) {
    const open = await cancelTheirs(store, tenantId, filter, many);
    return open + (await cancelPages(store, tenantId, filter, outside, { ...many, most: many.most - open }));
  }
  const places = WAITING.filter(({ status }) => isAsked(filter, [status]));
  const pages = places.map(
    (place): Page =>
      (tx, after) =>
        waitingPage(tx, tenantId, filter, place, after, many.by.now),
  );
  return cancelPages(store, tenantId, filter, [...pages, ...outside], many);
}

/** What is still to be decided of a user, fan-out or batch. */
async function cancelTheirs(
  store: Store,
  tenantId: string,
  filter: Filter,
  { by, told, most, signal }: Many,
): Promise<number> {
  let total = 0;
  for (let isMore = true; isMore && total < most; ) {
    signal.throwIfAborted();
    const limit = Math.min(AT_ONCE, most - total);
    const page = await store.tenant(tenantId, (tx) => cancelByFilter(tx, tenantId, filter, limit, by));
    if (page.length > 0) told(page);
    total += page.length;
    isMore = page.length === limit;
  }
  return total;
}

async function cancelPages(
  store: Store,
  tenantId: string,
  filter: Filter,
  pages: readonly Page[],
  { by, told, most, signal }: Many,
): Promise<number> {
  let total = 0;
  for (let before = -1; total > before && total < most; ) {
    // What is released between two pages moves to where was looked before: look until nothing is found.
    before = total;
    for (const page of pages) {
      for (let after: string | undefined = FIRST; after !== undefined && total < most; ) {
        signal.throwIfAborted();
        const from: string = after;
        const { cancelled, last } = await store.tenant(tenantId, async (tx) => {
          const { wanted, last } = await page(tx, from);
          const some = wanted.slice(0, most - total);
          const upTo = some.length < wanted.length ? some.at(-1) : last;
          return { cancelled: await cancelByIds(tx, tenantId, some, by, filter), last: upTo };
        });
        if (cancelled.length > 0) told(cancelled);
        total += cancelled.length;
        after = last;
      }
    }
  }
  return total;
}

const isAsked = ({ statuses }: Filter, some: readonly Status[]) =>
  statuses.length === 0 || some.some((status) => statuses.includes(status));

type PageRow = { wanted: string[] | null; last: string | null; seen: number };

const pageOf = (row: PageRow | undefined) => ({
  wanted: row?.wanted ?? [],
  last: row === undefined || row.seen < PAGE ? undefined : (row.last ?? undefined),
});

async function waitingPage(
  tx: Tx,
  tenantId: string,
  filter: Filter,
  { status, priority }: (typeof WAITING)[number],
  after: string,
  now: Date,
) {
  const before = uuidFloor(new Date(now.getTime() + CLOCK_SKEW_MS));
  // A literal: only that lets Postgres use the partial indexes.
  const [page] = await tx<PageRow[]>`
    with page as (
      select n.id, true ${conditions(tx, { ...filter, statuses: [] })} as wanted from notifications n
      where n.tenant_id = ${tenantId} and n.status = ${tx.unsafe(String(status))}
        ${priority === undefined ? tx`` : tx`and n.priority = ${priority}`}
        and n.id > ${after}::uuid and n.id < ${before}::uuid
      order by n.id limit ${PAGE}
    )
    select array_agg(id order by id) filter (where wanted) as wanted, (array_agg(id order by id desc))[1] as last,
      count(*)::int as seen from page`;
  return pageOf(page);
}

const REACHED = [Status.PROCESSING, Status.DELIVERED, Status.READ];

function outsidePages(tenantId: string, filter: Filter): Page[] {
  if (!isAsked(filter, REACHED)) return [];
  if (filter.batchId !== undefined) return [(tx, after) => batchPage(tx, tenantId, filter, after)];
  const handOvers = (tx: Tx) => tx`hand_overs o where o.cancelled_by is null`;
  // Of those that are WAITING, and of no others: there is an index of these.
  const escalations = (tx: Tx) => tx`escalations o where o.due_at is not null`;
  return [handOvers, escalations].map(
    (from): Page =>
      async (tx, after) => {
        const user = filter.userId === undefined ? tx`` : tx`and o.user_id = ${filter.userId}`;
        const [page] = await tx<PageRow[]>`
      with page as materialized (
        select distinct o.notification_id as id from ${from(tx)} and o.tenant_id = ${tenantId} ${user}
          and o.notification_id > ${after}::uuid
        order by o.notification_id limit ${PAGE}
      )
      select (select array_agg(id order by id desc) from page)[1] as last,
        (select count(*)::int from page) as seen, array_agg(n.id order by n.id) as wanted
      from notifications n
      where n.tenant_id = ${tenantId} and n.id = any(array(select id from page))
        and n.batch_role is distinct from ${BatchRole.MERGED} ${conditions(tx, filter)}`;
        return pageOf(page);
      },
  );
}

/** From its few members, whatever else of the tenant waits. */
async function batchPage(tx: Tx, tenantId: string, filter: Filter, after: string) {
  const found = await tx<{ id: string }[]>`
    select n.id from notifications n
    where n.tenant_id = ${tenantId} ${conditions(tx, filter)} and n.id > ${after}::uuid
      and n.status + 0 = any(${plain(REACHED)}::int[]) and n.batch_role is distinct from ${BatchRole.MERGED}
      and (
        exists (select from hand_overs o where o.tenant_id = n.tenant_id and o.notification_id = n.id and o.cancelled_by is null)
        or exists (select from escalations e where e.tenant_id = n.tenant_id and e.notification_id = n.id and e.due_at is not null)
      )
    order by n.id limit ${PAGE}`;
  const wanted = found.map(({ id }) => id);
  return { wanted, last: wanted.length < PAGE ? undefined : wanted.at(-1) };
}
