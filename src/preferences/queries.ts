import type { JsonValue } from "@bufbuild/protobuf";
import { and, asc, eq, inArray, sql } from "drizzle-orm";
import { texts } from "#src/store/arrays.ts";
import { defaultPreferences, preferences, subscriptions, types, users } from "#src/store/schema/users.ts";
import type { Db, Tx } from "#src/store/store.ts";
import type { Kind, Wish } from "#src/subscriptions/rules.ts";
import type { Revisions } from "./compile.ts";
import { fromDocument, nothingStored, type Stored, toDocument } from "./document.ts";
import type { Levels } from "./merge.ts";

/** Whose preferences: a user's, or with the empty user id the tenant's defaults. */
export type Owner = { tenantId: string; userId: string };

export async function findPreferences(db: Db, owner: Owner): Promise<Stored> {
  const [row] =
    owner.userId === ""
      ? await db.select().from(defaultPreferences).where(eq(defaultPreferences.tenantId, owner.tenantId))
      : await db.select().from(preferences).where(ofUser(owner));
  return toStored(row);
}

/** Reads them and keeps others from changing them until the transaction ends, whether they exist or not. */
export async function lockPreferences(db: Db, owner: Owner, now: Date): Promise<Stored> {
  const { tenantId, userId } = owner;
  // A row of revision 0 stands for "never set": it is there to be locked.
  const nothing = { tenantId, document: {}, revision: 0, updatedAt: now };
  if (userId === "") {
    await db.insert(defaultPreferences).values(nothing).onConflictDoNothing();
    const found = await db
      .select()
      .from(defaultPreferences)
      .where(eq(defaultPreferences.tenantId, tenantId))
      .for("update");
    return toStored(found[0]);
  }
  await db
    .insert(preferences)
    .values({ ...nothing, userId })
    .onConflictDoNothing();
  const [row] = await db.select().from(preferences).where(ofUser(owner)).for("update");
  return toStored(row);
}

/** Replaces preferences that the transaction has locked. */
export async function savePreferences(db: Db, owner: Owner, { preferences: given, ...rest }: Stored): Promise<void> {
  const { revision, updatedAt = new Date(0) } = rest;
  const values = { document: toDocument(given), revision, updatedAt };
  if (owner.userId === "") {
    await db.update(defaultPreferences).set(values).where(eq(defaultPreferences.tenantId, owner.tenantId));
  } else await db.update(preferences).set(values).where(ofUser(owner));
}

/**
 * Gives preferences that the transaction has locked a new version, so that no decision drawn from what the user had before
 * is stored: for changes of what belongs to them and stands elsewhere.
 */
export async function touchPreferences(db: Db, owner: Owner): Promise<void> {
  await db
    .update(preferences)
    .set({ revision: sql`${preferences.revision}` })
    .where(ofUser(owner));
}

/** Locks the preferences that users have, in the order of their ids, and gives them new versions as `touchPreferences` does. */
export async function touchPreferencesOf(db: Db, tenantId: string, userIds: readonly string[]): Promise<void> {
  await db.execute(sql`
    update preferences set revision = revision
    where tenant_id = ${tenantId}::uuid and user_id = any(array(
      select user_id from preferences
      where tenant_id = ${tenantId}::uuid and user_id = any(${texts(userIds)}::text[]) order by user_id for update))`);
}

/**
 * What users' values are drawn from, as the transaction sees it, their subscriptions, and the tenant's opt-in types.
 * Answers for any user among the given.
 */
export async function readLevels(
  db: Db,
  tenantId: string,
  userIds: readonly string[],
): Promise<{
  levels(userId: string): Levels;
  subscriptions(userId: string): Wish[];
  revisions(userId: string): Revisions;
  optIn: Set<string>;
}> {
  const ids = userIds as string[];
  const set = await db
    .select()
    .from(preferences)
    .where(and(eq(preferences.tenantId, tenantId), inArray(preferences.userId, ids)));
  const profiles = await db
    .select({ id: users.id, language: users.locale, timeZone: users.timeZone })
    .from(users)
    .where(and(eq(users.tenantId, tenantId), inArray(users.id, ids)));
  const wished = await db
    .select({
      userId: subscriptions.userId,
      id: subscriptions.id,
      kind: subscriptions.kind,
      key: subscriptions.key,
      filter: subscriptions.filter,
    })
    .from(subscriptions)
    .where(and(eq(subscriptions.tenantId, tenantId), inArray(subscriptions.userId, ids)))
    .orderBy(asc(subscriptions.id));
  const optIn = await db
    .select({ key: types.key })
    .from(types)
    .where(and(eq(types.tenantId, tenantId), eq(types.optIn, true)));
  const ofAll = await findPreferences(db, { tenantId, userId: "" });
  const tenant = ofAll.preferences;
  const setBy = new Map(set.map((row) => [row.userId, row]));
  const profileOf = new Map(profiles.map((row) => [row.id, row]));
  const wishesBy = Map.groupBy(wished, (row) => row.userId);
  return {
    levels: (userId) => ({
      tenant,
      profile: profileOf.get(userId) ?? { language: "", timeZone: "" },
      user: toStored(setBy.get(userId)).preferences,
    }),
    subscriptions: (userId) =>
      (wishesBy.get(userId) ?? []).map(({ kind, key, filter, id }): Wish => [kind as Kind, key, filter, id]),
    revisions: (userId) => ({ user: setBy.get(userId)?.revision ?? 0, tenant: ofAll.revision }),
    optIn: new Set(optIn.map(({ key }) => key)),
  };
}

/** All that is needed to work out what holds for a user; with the empty user id, what the tenant gives all its users. */
export type Copy = {
  userId: string;
  /** Protobuf JSON of posthorn.v1.Preferences; null: nothing set. */
  document: JsonValue;
  language: string;
  timeZone: string;
  /** Of the tenant only: keys of its opt-in types. */
  optIn: string[];
  /** Of the row of preferences (or defaults): differs after every change of it or of subscriptions; "0": there is none. */
  version: string;
  /** How often it was changed; 0: nothing was ever set. */
  revision: number;
  subscriptions: Wish[];
};

/** Reads the copies of many users, and of the tenant where the empty id is among them. One answer for every id. */
export async function readCopies(tx: Tx, tenantId: string, userIds: readonly string[]): Promise<Copy[]> {
  return tx<Copy[]>`
    select asked.id as "userId", coalesce(p.document, d.document) as document,
      coalesce(u.locale, '') as language, coalesce(u.time_zone, '') as "timeZone",
      case when asked.id = '' then array(select key from types t where t.tenant_id = ${tenantId} and t.opt_in order by key)
        else '{}' end as "optIn",
      coalesce(p.xmin, d.xmin, '0'::xid)::text as version, coalesce(p.revision, d.revision, 0) as revision,
      coalesce((select jsonb_agg(jsonb_build_array(s.kind, s.key, s.filter, s.id) order by s.id) from subscriptions s
        where s.tenant_id = ${tenantId} and s.user_id = asked.id), '[]') as subscriptions
    from unnest(${userIds as string[]}::text[]) as asked (id)
    left join preferences p on p.tenant_id = ${tenantId} and p.user_id = asked.id
    left join users u on u.tenant_id = ${tenantId} and u.id = asked.id
    left join default_preferences d on asked.id = '' and d.tenant_id = ${tenantId}`;
}

function ofUser({ tenantId, userId }: Owner) {
  return and(eq(preferences.tenantId, tenantId), eq(preferences.userId, userId));
}

function toStored(row: { document: unknown; revision: number; updatedAt: Date } | undefined): Stored {
  if (row === undefined || row.revision === 0) return nothingStored();
  return { preferences: fromDocument(row.document as JsonValue), revision: row.revision, updatedAt: row.updatedAt };
}
