import { create, toBinary } from "@bufbuild/protobuf";
import postgres from "postgres";
import { Channel, ContentSchema, Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { channelBits } from "#src/notifications/channel-bits.ts";

/** Inboxes of one tenant that were filled over the last days, written straight into the tables. */
export type Rows = AsyncDisposable & {
  /** Brings every user's inbox to so many entries, in the order in which time would have brought them. */
  growTo(perUser: number): Promise<void>;
};

/** So many sequences of every user in one statement: what a disk takes in a few seconds. */
const ROWS_AT_ONCE = 250_000;

/** As arrivals spread over the partitions of this month and the last. */
const DAYS = 20;

const CONTENT = toBinary(
  ContentSchema,
  create(ContentSchema, {
    title: "Your order",
    body: "The order has been shipped and is on its way to you.",
    data: { order: "12345", status: "shipped" },
  }),
);

/** One entry in ten is unread. */
const UNREAD = 10;

export function rowsOf(databaseUrl: string, tenantId: string, users: number, totalPerUser: number): Rows {
  const sql = postgres(databaseUrl, { max: 1, onnotice: () => undefined });
  const spanMs = DAYS * 86_400_000;
  const from = Date.now() - spanMs;
  const stepMs = spanMs / (totalPerUser * users);
  let filled = 0;

  /** A UUIDv7 (RFC 9562 §5.7) of the millisecond at which the row arrived; the rest is of its place. */
  const place = sql`
    select 'u' || u as user_id, seq, ms,
      (lpad(to_hex(ms), 12, '0') || '7' || substr(hash, 1, 3) || '8' || substr(hash, 4, 15))::uuid as id,
      to_timestamp(ms / 1000.0)::timestamptz(3) as at
    from (
      select u, seq, (${from}::float8 + ((seq - 1) * ${users}::float8 + u) * ${stepMs}::float8)::bigint as ms,
        md5(u || '/' || seq) as hash`;

  async function insert(first: number, last: number): Promise<void> {
    await sql`
      with place as materialized (
        ${place}
          from generate_series(${first}::int, ${last}::int) seq cross join generate_series(0, ${users - 1}::int) u
        ) numbered
      ), notification as (
        insert into notifications (tenant_id, id, user_id, type, category, priority, status, channels, content,
          delivered_at, updated_at, inbox_seq)
        select ${tenantId}, id, user_id, 'general', 'general', ${Priority.NORMAL},
          case when seq % ${UNREAD} = 0 then ${Status.DELIVERED}::int else ${Status.READ}::int end,
          ${channelBits([Channel.IN_APP])}, ${CONTENT}::bytea, at, at, seq
        from place order by id
      )
      insert into inbox (tenant_id, user_id, seq, arrived_at, notification_id, type, category, priority, read_at)
      select ${tenantId}, user_id, seq, at, id, 'general', 'general', ${Priority.NORMAL},
        case when seq % ${UNREAD} = 0 then null else at end
      from place order by id`;
  }

  return {
    async growTo(perUser) {
      const step = Math.max(Math.floor(ROWS_AT_ONCE / users), 1);
      for (let first = filled + 1; first <= perUser; first += step)
        await insert(first, Math.min(first + step - 1, perUser));
      filled = perUser;
      const unread = Math.floor(perUser / UNREAD);
      await sql`
        insert into inbox_heads (tenant_id, user_id, epoch, seq, seen_seq, unread, total)
        select ${tenantId}, 'u' || u, 1, ${perUser}, ${perUser}, ${unread}, ${perUser}
        from generate_series(0, ${users - 1}::int) u
        on conflict (tenant_id, user_id) do update
        set seq = excluded.seq, seen_seq = excluded.seen_seq, unread = excluded.unread, total = excluded.total`;
      // As autovacuum does in time.
      await sql`vacuum (analyze) notifications, inbox, inbox_heads`;
    },
    [Symbol.asyncDispose]: () => sql.end({ timeout: 2 }),
  };
}
