import { and, asc, eq, gte, inArray, lte, sql } from "drizzle-orm";
import type { PgColumn } from "drizzle-orm/pg-core";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { counters } from "#src/store/schema/tenants.ts";
import type { Db } from "#src/store/store.ts";

/** In the order in which rows are sorted. */
export const DIMENSIONS = ["hour", "type", "channel", "status"] as const;
export type CounterDimension = (typeof DIMENSIONS)[number];

export type CounterQuery = {
  /** Starts of the first and the last hour. */
  from: Date;
  to: Date;
  groupBy: ReadonlySet<CounterDimension>;
  /** Empty lists stand for all. */
  types: readonly string[];
  channels: readonly number[];
  statuses: readonly number[];
};

export type CounterRow = {
  hour: Date | null;
  type: string | null;
  channel: number | null;
  status: number | null;
  count: string;
};

/** Sums over the writers' slots, one row per combination of the dimensions; without dimensions exactly one row. */
export async function sumCounters(db: Db, tenantId: string, query: CounterQuery, limit: number): Promise<CounterRow[]> {
  const grouped: PgColumn[] = DIMENSIONS.filter((each) => query.groupBy.has(each)).map((each) => counters[each]);
  const rows = db
    .select({
      hour: query.groupBy.has("hour") ? counters.hour : sql<null>`null`,
      type: query.groupBy.has("type") ? counters.type : sql<null>`null`,
      channel: query.groupBy.has("channel") ? counters.channel : sql<null>`null`,
      status: query.groupBy.has("status") ? counters.status : sql<null>`null`,
      count: sql<string>`coalesce(sum(${counters.count}), 0)::bigint`,
    })
    .from(counters)
    .where(
      and(
        eq(counters.tenantId, tenantId),
        gte(counters.hour, query.from),
        lte(counters.hour, query.to),
        query.types.length > 0 ? inArray(counters.type, [...query.types]) : undefined,
        query.channels.length > 0 ? inArray(counters.channel, [...query.channels]) : undefined,
        query.statuses.length > 0 ? inArray(counters.status, [...query.statuses]) : undefined,
      ),
    );
  if (grouped.length === 0) return rows;
  return rows
    .groupBy(...grouped)
    .orderBy(...grouped.map((column) => asc(column)))
    .limit(limit);
}

const LOOKED_BACK = "30 days";

/**
 * The latest hour, up to this one, in which notifications of a type were accepted; undefined: not in the last 30 days. Looks
 * each hour up by its key, from this one back: of the tenant's other types nothing is read.
 */
export async function lastAcceptHour(db: Db, tenantId: string, type: string, hour: Date): Promise<Date | undefined> {
  const now = sql`${hour.toISOString()}::timestamptz`;
  const [row] = await db.execute<{ ms: number }>(sql`
    select extract(epoch from h.hour)::float8 * 1000 as ms
    from generate_series(${now}, ${now} - ${LOOKED_BACK}::interval, -interval '1 hour') as h (hour)
    where exists (select from counters c where c.tenant_id = ${tenantId}::uuid and c.hour = h.hour and c.type = ${type}
      and c.channel = 0 and c.status = ${Status.ACCEPTED})
    limit 1`);
  return row && new Date(row.ms);
}
