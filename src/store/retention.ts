import postgres, { type Sql } from "postgres";
import { WITH_ARRAYS } from "./array-types.ts";
import { MIGRATION_LOCK } from "./migrate.ts";
import type { PARTITIONED } from "./partitions.ts";

export type Retention = {
  /** Notifications, their timelines and the audit log. */
  days: number;
  /** Inbox entries; at most `days`, because they show the notifications' content. */
  inboxDays: number;
};

const DAY_MS = 86_400_000;

/** Entries first, and histories last: notifications stay for their entries, and their histories with them. */
const IN_ORDER = ["inbox", "notifications", "timeline", "audit_entries"] as const satisfies Partitioned[];
type Partitioned = (typeof PARTITIONED)[number]["table"];

/**
 * Drops the months whose last day is older than the retention, and returns their tables' names. A month that still holds
 * an open notification (one may be scheduled 400 days ahead), or one whose entry is in an inbox and shows its content,
 * stays until that has ended. Inboxes' counts are corrected in the transaction that drops their entries, and cursors
 * before them are told of it (Reset). Needs the tables' owner.
 *
 * A month is first detached, which blocks nobody, and then dropped; a crash in between is finished by the next run.
 */
export async function dropExpired(databaseUrl: string, now: Date, retention: Retention): Promise<string[]> {
  const sql = postgres(databaseUrl, { max: 1, onnotice: () => undefined, connect_timeout: 10, ...WITH_ARRAYS });
  try {
    await sql`select pg_advisory_lock(${MIGRATION_LOCK})`;
    const dropped: string[] = [];
    for (const table of IN_ORDER) {
      const days = table === "inbox" ? Math.min(retention.inboxDays, retention.days) : retention.days;
      for (const month of await monthsBefore(sql, table, new Date(now.getTime() - days * DAY_MS))) {
        if (table === "notifications" && (await isNeeded(sql, month.name))) continue;
        if (table === "timeline" && (await exists(sql, month.name.replace(table, "notifications")))) continue;
        await detach(sql, table, month);
        await sql.begin(async (tx) => {
          if (table === "inbox") await forgetEntries(tx as unknown as Sql, month.name);
          await tx.unsafe(`drop table ${month.name}`);
        });
        dropped.push(month.name);
      }
    }
    return dropped;
  } finally {
    await sql.end({ timeout: 5 });
  }
}

type Month = { name: string; attached: boolean; detaching: boolean };

/** A table's months that ended before an instant. The names say which month they hold. */
async function monthsBefore(sql: Sql, table: string, before: Date): Promise<Month[]> {
  const rows = await sql<Month[]>`
    select c.relname as name, i.inhrelid is not null as attached, coalesce(i.inhdetachpending, false) as detaching
    from pg_class c left join pg_inherits i on i.inhrelid = c.oid
    where c.relnamespace = current_schema()::regnamespace and c.relkind = 'r'
      and c.relname ~ ${`^${table}_[0-9]{4}_[0-9]{2}$`}
    order by c.relname`;
  return rows.filter(({ name }) => {
    const [year = 0, month = 0] = name
      .slice(table.length + 1)
      .split("_")
      .map(Number);
    return Date.UTC(year, month, 1) <= before.getTime();
  });
}

async function isNeeded(sql: Sql, name: string): Promise<boolean> {
  const [row] = await sql.unsafe(`
    select exists (select from ${name} where status in (1, 2, 3, 4, 5)) or exists (
      select from ${name} n join inbox i on i.tenant_id = n.tenant_id and i.user_id = n.user_id and i.seq = n.inbox_seq
    ) as needed`);
  return row?.needed === true;
}

async function exists(sql: Sql, name: string): Promise<boolean> {
  return (await sql`select from pg_class where oid = to_regclass(${name})`).length > 0;
}

async function detach(sql: Sql, table: string, { name, attached, detaching }: Month): Promise<void> {
  if (detaching) await sql.unsafe(`alter table ${table} detach partition ${name} finalize`);
  else if (attached) await sql.unsafe(`alter table ${table} detach partition ${name} concurrently`);
}

/** Takes a detached month's entries out of their inboxes' counts. */
async function forgetEntries(tx: Sql, name: string): Promise<void> {
  await tx.unsafe(`
    update inbox_heads h set
      unread = h.unread - e.unread, total = h.total - e.total, archived = h.archived - e.archived,
      snoozed = h.snoozed - e.snoozed, trimmed_seq = greatest(h.trimmed_seq, e.last)
    from (
      select tenant_id, user_id, max(seq) as last,
        count(*) filter (where read_at is null and archived_at is null and snoozed_until is null) as unread,
        count(*) filter (where archived_at is null and snoozed_until is null) as total,
        count(*) filter (where archived_at is not null) as archived,
        count(*) filter (where snoozed_until is not null) as snoozed
      from ${name} group by tenant_id, user_id
    ) e
    where h.tenant_id = e.tenant_id and h.user_id = e.user_id`);
}
