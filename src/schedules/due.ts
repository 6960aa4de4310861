import { Tenant_State } from "#gen/posthorn/v1/admin_service_pb.ts";
import { Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { instants, plain, texts } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import type { NotificationTypeRow } from "#src/types/type.ts";
import type { ScheduleRow } from "./schedule.ts";

/** A tenant that has schedules of a priority due. */
export type DueTenant = { tenantId: string; lane: number; count: number; suspended: boolean };

const URGENCY = [Priority.CRITICAL, Priority.HIGH, Priority.NORMAL, Priority.LOW];
/** Due schedules of one priority that a look goes through: a tenant behind more than these is not seen before some are sent. */
const SEEN = 100_000;

/** Tenants with schedules of which an occurrence has come: the most urgent first, then who waits longest. Claims nothing. */
export function dueTenants(tx: Tx, now: Date, limit: number): Promise<DueTenant[]> {
  return tx<DueTenant[]>`
    select due.tenant_id as "tenantId", lane, due.count,
      exists (select from tenants t where t.id = due.tenant_id and t.state = ${Tenant_State.SUSPENDED}) as suspended
    from unnest(${plain(URGENCY)}::smallint[]) as l (lane) cross join lateral (
      select tenant_id, count(*)::int as count, min(fires_at) as since from (
        select s.tenant_id, s.fires_at from schedules s where s.lane = l.lane and s.fires_at <= ${now}
        order by s.fires_at limit ${SEEN}
      ) seen group by tenant_id order by since, tenant_id limit ${limit}
    ) due
    order by lane desc, since, due.tenant_id`;
}

/**
 * Puts up to `limit` due schedules of each of these tenants aside if it is suspended, so that nobody comes by them at each
 * look. The tenants stay as they are meanwhile: whoever resumes one finds what was put aside before (`bringBack`), and
 * nothing is after. Answers how many.
 */
export async function putAside(tx: Tx, tenantIds: readonly string[], now: Date, limit: number): Promise<number> {
  const tenants = plain([...new Set(tenantIds)].sort());
  const aside = await tx`
    with suspended as materialized (
      select id from tenants where id = any(${tenants}::uuid[]) and state = ${Tenant_State.SUSPENDED} order by id for share
    ), mine as materialized (
      select due.* from suspended cross join lateral (
        select s.tenant_id, s.key from schedules s where s.tenant_id = suspended.id and s.fires_at <= ${now}
        limit ${limit} for update skip locked
      ) due
    )
    update schedules s set fires_at = null from mine where s.tenant_id = mine.tenant_id and s.key = mine.key`;
  return aside.count;
}

export type Firing = Pick<
  ScheduleRow,
  "key" | "request" | "userIds" | "rule" | "startTime" | "timeZone" | "finalTime" | "notBefore" | "lane"
> & {
  occurrence: string;
  /** Since when it may be sent. */
  firesAt: Date;
  /** As it is now; null: there is none. */
  type: FiringType | null;
};

/** What a type gives a send. */
type FiringType = Pick<
  NotificationTypeRow,
  | ("key" | "category" | "defaultPriority" | "defaultChannels" | "defaultTtlMs" | "group" | "deprecation")
  | ("payloadId" | "payloadVersion")
> & {
  /** In hexadecimal, as Postgres has bytes in JSON. */
  wording: string | null;
};

/** One transaction stores about so many notifications, and reads about so many bytes of requests. */
const MOST_USERS = 1000;
const MOST_BYTES = 2 ** 22;

/**
 * Due schedules of a tenant, the longest due first: the caller's until the transaction ends. Those that others have at
 * hand are left to them. At least one, if there is one, and no more than are stored in one go; with a `key`, that one.
 */
export async function claimFirings(
  tx: Tx,
  { tenantId, lane, size, key }: { tenantId: string; lane: number; size: number; key: string | undefined },
  now: Date,
): Promise<Firing[]> {
  const firings = await tx<(Firing & { deprecation: Uint8Array | null })[]>`
    with mine as materialized (
      select * from schedules s where s.tenant_id = ${tenantId} and s.lane = ${lane} and s.fires_at <= ${now}
        ${key === undefined ? tx`` : tx`and s.key = ${key}`}
      order by s.fires_at limit ${size} for update skip locked
    ), taken as (
      select *, sum(cardinality(user_ids)) over earlier as users, sum(octet_length(request)) over earlier as bytes from mine
      window earlier as (order by fires_at, key rows between unbounded preceding and 1 preceding)
    )
    select s.key, s.request, s.user_ids as "userIds", s.rule, s.start_time as "startTime", s.time_zone as "timeZone",
      s.final_time as "finalTime", s.not_before as "notBefore", s.occurrence, s.lane, s.fires_at as "firesAt",
      case when t.key is not null then jsonb_build_object('key', t.key, 'category', t.category,
        'defaultPriority', t.default_priority, 'defaultChannels', t.default_channels,
        'defaultTtlMs', t.default_ttl_ms, 'group', t.group_similar, 'payloadId', t.payload_id,
        'payloadVersion', t.payload_version, 'wording', encode(t.wording, 'hex')) end as type, t.deprecation
    from taken s left join types t on t.tenant_id = ${tenantId} and t.key = s.type
    where coalesce(s.users, 0) < ${MOST_USERS} and coalesce(s.bytes, 0) < ${MOST_BYTES}
    order by s.fires_at, s.key`;
  // Bytes, which JSON has none of.
  return firings.map(({ deprecation, type, ...firing }) => ({ ...firing, type: type && { ...type, deprecation } }));
}

/** How a schedule goes on after an occurrence. */
export type Move = {
  key: string;
  /** Undefined: there is no next occurrence. */
  next: string | undefined;
  firesAt: Date | undefined;
  /** Undefined: it was sent to nobody. */
  sent: string | undefined;
  missed: number;
  lane: number;
};

/** Moves claimed schedules on. They are ACTIVE (1), and ENDED (3) when there is no next occurrence. */
export async function moveOn(tx: Tx, tenantId: string, moves: readonly Move[], now: Date): Promise<void> {
  if (moves.length === 0) return;
  await tx`
    update schedules s set occurrence = m.next, fires_at = m.fires_at, lane = m.lane,
      state = case when m.next is null then 3 else 1 end,
      ended_at = case when m.next is null then ${now}::timestamptz end,
      last_occurrence = coalesce(m.sent, s.last_occurrence),
      fired = s.fired + case when m.sent is null then 0 else 1 end, missed = s.missed + m.missed
    from unnest(
      ${texts(moves.map(({ key }) => key))}::text[],
      ${texts(moves.map(({ next }) => next))}::text[],
      ${instants(moves.map((move) => move.firesAt))}::timestamptz[],
      ${texts(moves.map(({ sent }) => sent))}::text[],
      ${plain(moves.map(({ missed }) => missed))}::int[],
      ${plain(moves.map(({ lane }) => lane))}::smallint[]
    ) as m (key, next, fires_at, sent, missed, lane)
    where s.tenant_id = ${tenantId} and s.key = m.key`;
}

/** Looks at claimed or due schedules again only at an instant. Their occurrences stay what they are. */
export async function putOff(tx: Tx, tenantId: string, keys: readonly string[], until: Date, now: Date): Promise<void> {
  if (keys.length === 0) return;
  await tx`
    update schedules set fires_at = ${until}
    where tenant_id = ${tenantId} and key = any(${texts(keys)}::text[]) and fires_at <= ${now}`;
}
