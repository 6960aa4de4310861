import { Priority, type Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { followWholes, type MaybeWhole } from "#src/batches/follow.ts";
import { BatchRole } from "#src/batches/role.ts";
import { uuidFloor } from "#src/store/partitions.ts";
import type { Store, Tx } from "#src/store/store.ts";

/** Whose waiting notifications. */
export type OpenOf = { userId: string } | { type: string };

export type Ending = {
  reason: Reason;
  /** For the timeline: who caused it. */
  actor: string;
  /** When it happens. */
  now: Date;
};

/**
 * Ids say when they were accepted by the clock of the process that did it, which may be ahead of ours. There is an end
 * all the same, or a flood of sends could keep this busy for ever.
 */
const CLOCK_SKEW_MS = 60_000;

/** Notifications looked at by one transaction. Few enough that those who wait for its locks hardly notice. */
const PAGE = 2000;

/**
 * Ends what waits (ACCEPTED, SCHEDULED, HELD, BATCHED or PROCESSING) of a user or of a type as SUPPRESSED, with timeline
 * and counters. Runs in short transactions, each complete in itself; safe to repeat after a failure. Answers how many it ended.
 *
 * Members of closed batches share their batch's fate, whatever their type.
 *
 * What a worker is deciding at this very moment is either ended or decided, never both; what is accepted while this runs
 * may be ended too.
 */
export async function endOpen(
  store: Store,
  tenantId: string,
  of: OpenOf,
  ending: Ending,
  signal: AbortSignal,
): Promise<number> {
  let total = 0;
  for (;;) {
    // What a worker releases between two pages moves to where was looked before: look until nothing is found.
    const ended = await endOnce(store, tenantId, of, ending, signal);
    if (ended === 0) return total;
    total += ended;
  }
}

async function endOnce(
  store: Store,
  tenantId: string,
  of: OpenOf,
  ending: Ending,
  signal: AbortSignal,
): Promise<number> {
  let ended = 0;
  for (const where of "userId" in of ? [EVERYTHING] : WAITING) {
    for (let after: string | undefined = FIRST; after !== undefined; ) {
      signal.throwIfAborted();
      const from: string = after;
      const page = await store.tenant(tenantId, (tx) => endPage(tx, tenantId, of, where, from, ending));
      ended += page.ended;
      after = page.last;
    }
  }
  return ended;
}

const FIRST = "00000000-0000-0000-0000-000000000000";
const EVERYTHING = { status: undefined, priority: undefined };
// The waiting of a type are not indexed by it, but the waiting are few beside all others and indexed in these orders.
export const WAITING = [
  ...[Priority.CRITICAL, Priority.HIGH, Priority.NORMAL, Priority.LOW].map((priority) => ({
    status: Status.ACCEPTED,
    priority,
  })),
  { status: Status.SCHEDULED, priority: undefined },
  { status: Status.HELD, priority: undefined },
  { status: Status.BATCHED, priority: undefined },
  { status: Status.PROCESSING, priority: undefined },
];

type Where = { status: Status | undefined; priority: Priority | undefined };

async function endPage(
  tx: Tx,
  tenantId: string,
  of: OpenOf,
  where: Where,
  after: string,
  ending: Ending,
): Promise<{ ended: number; last: string | undefined }> {
  const before = uuidFloor(new Date(ending.now.getTime() + CLOCK_SKEW_MS));
  // Literals: only those let Postgres use the partial indexes.
  const status = where.status === undefined ? tx`` : tx`and status = ${tx.unsafe(String(where.status))}`;
  const priority = where.priority === undefined ? tx`` : tx`and priority = ${where.priority}`;
  const user = "userId" in of ? tx`and user_id = ${of.userId}` : tx``;
  const wanted = "userId" in of ? tx`true` : tx`type = ${of.type}`;
  const [page] = await tx<{ open: string[] | null; last: string | null; seen: number }[]>`
    with page as (
      select id, status in (1, 2, 3, 4, 5) and ${notMerged(tx)} and ${wanted} as open from notifications
      where tenant_id = ${tenantId} ${user} ${status} ${priority} and id > ${after}::uuid and id < ${before}::uuid
      order by id limit ${PAGE}
    )
    select array_agg(id order by id) filter (where open) as open, (array_agg(id order by id desc))[1] as last,
      count(*)::int as seen from page`;
  const last = page === undefined || page.seen < PAGE || page.last === null ? undefined : page.last;
  const ended = page?.open == null ? 0 : await endThese(tx, tenantId, page.open, ending);
  return { ended, last };
}

/**
 * Ends those of the notifications that still wait. Locks them in the order of their ids, as everything does that locks
 * several, and looks again at what they are once it has them.
 */
async function endThese(tx: Tx, tenantId: string, ids: string[], { reason, actor, now }: Ending): Promise<number> {
  const hour = new Date(Math.floor(now.getTime() / 3_600_000) * 3_600_000);
  // The range lets the planner leave out the months that hold none of them.
  const these = tx`tenant_id = ${tenantId} and id = any (${ids}::uuid[])
    and id between ${ids[0] ?? null}::uuid and ${ids.at(-1) ?? null}::uuid and status in (1, 2, 3, 4, 5)
    and ${notMerged(tx)}`;
  const [, [result]] = await Promise.all([
    tx`select count(*) from (select from notifications where ${these} order by id for update) locked`,
    tx<{ ended: number; wholes: MaybeWhole[] | null }[]>`
      with ended as (
        update notifications set status = ${Status.SUPPRESSED}, reason = ${reason}, due_at = null, updated_at = ${now}
        where ${these}
        returning id, type, batch_id, batch_role
      ),
      told as (
        insert into timeline (tenant_id, notification_id, at, status, channel, reason, actor)
        select ${tenantId}::uuid, id, ${now}, ${Status.SUPPRESSED}, 0, ${reason}, ${actor} from ended
      ),
      counted as (
        insert into counters (tenant_id, hour, type, channel, status, slot, count)
        select ${tenantId}::uuid, ${hour}, type, 0, ${Status.SUPPRESSED}, 0, count(*) from ended
        group by type order by type
        on conflict (tenant_id, hour, type, channel, status, slot) do update set count = counters.count + excluded.count
      )
      select count(*)::int as ended,
        json_agg(json_build_object('id', id, 'batchId', batch_id, 'batchRole', batch_role))
          filter (where batch_role = ${BatchRole.WHOLE}) as wholes
      from ended`,
  ]);
  await followWholes(tx, tenantId, result?.wholes ?? [], now, 0);
  return result?.ended ?? 0;
}

function notMerged(tx: Tx) {
  return tx`batch_role is distinct from ${BatchRole.MERGED}`;
}
