import type { Sql } from "postgres";

/** Tables partitioned by month: what the partition key is tells how a month's bounds are written. */
export const PARTITIONED = [
  { table: "notifications", key: "uuid" },
  { table: "timeline", key: "uuid" },
  { table: "audit_entries", key: "uuid" },
  { table: "inbox", key: "time" },
] as const;

/**
 * Creates the partitions of last month (for rows accepted before midnight and stored after), this month and the two to
 * come. Idempotent; needs the tables' owner. A month is UTC's.
 */
export async function createPartitions(sql: Sql, now: Date): Promise<string[]> {
  const created: string[] = [];
  for (let offset = -1; offset <= 2; offset++) {
    const from = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + offset, 1));
    const to = new Date(Date.UTC(from.getUTCFullYear(), from.getUTCMonth() + 1, 1));
    const suffix = from.toISOString().slice(0, 7).replace("-", "_");
    for (const { table, key } of PARTITIONED) {
      const name = `${table}_${suffix}`;
      const exists = await sql`select from pg_class where oid = to_regclass(${name})`;
      if (exists.length > 0) continue;
      const bound = (at: Date) => (key === "uuid" ? uuidFloor(at) : at.toISOString());
      await sql.unsafe(
        `create table if not exists ${name} partition of ${table} for values from ('${bound(from)}') to ('${bound(to)}')`,
      );
      created.push(name);
    }
  }
  return created;
}

/**
 * The smallest UUIDv7 of a millisecond (RFC 9562 §5.7), to compare ids with instants. Of instants before 1970 and after
 * 10889, when no id can have been made, the smallest and the greatest.
 */
export function uuidFloor(at: Date): string {
  const hex = Math.min(Math.max(at.getTime(), 0), 2 ** 48 - 1)
    .toString(16)
    .padStart(12, "0");
  return `${hex.slice(0, 8)}-${hex.slice(8)}-7000-8000-000000000000`;
}

/** The instant a UUIDv7 was made. */
export function uuidTime(id: string): Date {
  return new Date(Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16));
}
