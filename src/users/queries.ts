import { and, asc, eq, gt, sql } from "drizzle-orm";
import { userRoles, users } from "#src/store/schema/users.ts";
import type { Db } from "#src/store/store.ts";
import type { Profile, StoredUser } from "./user.ts";

/**
 * Creates users or replaces what is known of them, and their roles with them. Ids must differ. Concurrent calls for the
 * same user take turns; exactly one creates. Answers who was created when and what changed for the rules, by id.
 */
export async function upsertUsers(
  db: Db,
  tenantId: string,
  profiles: readonly Profile[],
  now: Date,
): Promise<Map<string, Upserted>> {
  const made = await db.execute<{ id: string }>(sql`
    with given as materialized (${given(profiles)}),
    made as (
      insert into users
        (tenant_id, id, display_name, email, phone, locale, time_zone, roles, attributes, created_at, updated_at)
      select ${tenantId}::uuid, id, display_name, email, phone, locale, time_zone, roles, attributes,
        ${now.toISOString()}::timestamptz, ${now.toISOString()}::timestamptz
      from given order by id
      -- Changes nothing but locks the rows that exist, so that the next statement sees what they really hold.
      on conflict (tenant_id, id) do update set id = excluded.id where false
      returning id, roles
    ),
    joined as (
      insert into user_roles (tenant_id, role, user_id)
      select ${tenantId}::uuid, role, made.id from made, unnest(made.roles) as role
      on conflict do nothing
    )
    select id from made`);
  const created = new Set(made.map(({ id }) => id));
  const stored = new Map<string, Upserted>();
  for (const { id, timeZone, locale } of profiles) {
    if (!created.has(id)) continue;
    stored.set(id, {
      created: true,
      createdAt: now,
      changed: changesOf({ timeZone: "", locale: "" }, { timeZone, locale }),
    });
  }
  const existing = profiles.filter(({ id }) => !stored.has(id));
  if (existing.length === 0) return stored;
  const replaced = await replaceUsers(db, tenantId, existing, now);
  for (const [id, what] of replaced) stored.set(id, { created: false, ...what });
  return stored;
}

export type Upserted = Replaced & { created: boolean };
export type Replaced = { createdAt: Date; changed: ProfileChange[] };
/** What of a profile preferences are drawn from, by the preference it gives. */
export type ProfileChange = "time_zone" | "language";

type Drawn = Pick<Profile, "timeZone" | "locale">;

function changesOf(before: Drawn, after: Drawn): ProfileChange[] {
  const changed: ProfileChange[] = [];
  if (before.locale !== after.locale) changed.push("language");
  if (before.timeZone !== after.timeZone) changed.push("time_zone");
  return changed;
}

/**
 * Replaces users whose rows the transaction has locked, and their roles. Answers when each was created, and what changed
 * for the rules.
 */
export async function replaceUsers(
  db: Db,
  tenantId: string,
  profiles: readonly Profile[],
  now: Date,
): Promise<Map<string, Replaced>> {
  const rows = await db.execute<{ id: string; created_at: string; was_in: string; was: string }>(sql`
    with given as materialized (${given(profiles)}),
    old as materialized (
      select u.id, u.roles, u.time_zone, u.locale from users u join given g on g.id = u.id where u.tenant_id = ${tenantId}::uuid
    ),
    dropped as (
      delete from user_roles r
      using old join given g on g.id = old.id cross join unnest(old.roles) as gone
      where r.tenant_id = ${tenantId}::uuid and r.role = gone and r.user_id = old.id and gone <> all (g.roles)
    ),
    joined as (
      insert into user_roles (tenant_id, role, user_id)
      select ${tenantId}::uuid, role, g.id from old join given g on g.id = old.id cross join unnest(g.roles) as role
      where role <> all (old.roles)
      on conflict do nothing
    )
    update users u set display_name = g.display_name, email = g.email, phone = g.phone, locale = g.locale,
      time_zone = g.time_zone, roles = g.roles, attributes = g.attributes, updated_at = ${now.toISOString()}::timestamptz
    from given g join old on old.id = g.id
    where u.tenant_id = ${tenantId}::uuid and u.id = g.id
    returning u.id, u.created_at, old.time_zone as was_in, old.locale as was`);
  const before = new Map(rows.map((row) => [row.id, row]));
  const replaced = new Map<string, Replaced>();
  for (const profile of profiles) {
    const row = before.get(profile.id);
    if (row === undefined) continue;
    const changed = changesOf({ timeZone: row.was_in, locale: row.was }, profile);
    replaced.set(profile.id, { createdAt: new Date(row.created_at), changed });
  }
  return replaced;
}

/** One parameter however many users: lists of lists cannot be unnested row by row, JSON can. */
function given(profiles: readonly Profile[]) {
  const rows = profiles.map((profile) => ({
    id: profile.id,
    display_name: profile.displayName,
    email: profile.email,
    phone: profile.phone,
    locale: profile.locale,
    time_zone: profile.timeZone,
    roles: profile.roles,
    attributes: profile.attributes,
  }));
  return sql`select * from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) as item(id text, display_name text,
    email text, phone text, locale text, time_zone text, roles text[], attributes jsonb)`;
}

const columns = {
  id: users.id,
  displayName: users.displayName,
  email: users.email,
  phone: users.phone,
  locale: users.locale,
  timeZone: users.timeZone,
  roles: users.roles,
  attributes: sql<StoredUser["attributes"]>`${users.attributes}`,
  createdAt: users.createdAt,
  updatedAt: users.updatedAt,
};

export async function findUser(db: Db, tenantId: string, id: string): Promise<StoredUser | undefined> {
  const [row] = await db
    .select(columns)
    .from(users)
    .where(and(eq(users.tenantId, tenantId), eq(users.id, id)));
  return row;
}

/** The user, whose row stays locked until the transaction ends. */
export async function lockUser(db: Db, tenantId: string, id: string): Promise<StoredUser | undefined> {
  const [row] = await db
    .select(columns)
    .from(users)
    .where(and(eq(users.tenantId, tenantId), eq(users.id, id)))
    .for("update");
  return row;
}

/** Up to `limit` users after an id, in the order of ids; with a role, only its holders. */
export async function pageUsers(
  db: Db,
  tenantId: string,
  role: string,
  afterId: string,
  limit: number,
): Promise<StoredUser[]> {
  if (role === "") {
    return db
      .select(columns)
      .from(users)
      .where(and(eq(users.tenantId, tenantId), gt(users.id, afterId)))
      .orderBy(asc(users.id))
      .limit(limit);
  }
  return db
    .select(columns)
    .from(userRoles)
    .innerJoin(users, and(eq(users.tenantId, userRoles.tenantId), eq(users.id, userRoles.userId)))
    .where(and(eq(userRoles.tenantId, tenantId), eq(userRoles.role, role), gt(userRoles.userId, afterId)))
    .orderBy(asc(userRoles.userId))
    .limit(limit);
}
