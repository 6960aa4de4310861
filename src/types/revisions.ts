import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { and, desc, eq, inArray, lt, lte } from "drizzle-orm";
import { NotificationTypeSchema, type TypeRevision, TypeRevisionSchema } from "#gen/posthorn/v1/type_service_pb.ts";
import { typeRevisions } from "#src/store/schema/users.ts";
import type { Db } from "#src/store/store.ts";
import { type Difference, differences } from "./differences.ts";
import { findType } from "./queries.ts";
import { definitionOf, type NotificationTypeRow, rulesOf, type TypeRules, toType } from "./type.ts";

export type TypeRevisionRow = typeof typeRevisions.$inferSelect;

/** Of each type. Older ones go as new ones come, so that a tenant that changes types all day keeps no more. */
const KEPT = 100;

/** Fields that change with every revision, and say nothing about it. */
const OWN: ReadonlySet<string> = new Set(["revision", "create_time", "update_time"]);

/** What a change made of a type, without what every change does. */
export function changesBetween(before: NotificationTypeRow, after: NotificationTypeRow): Difference[] {
  const all = differences(NotificationTypeSchema, toType(before), toType(after));
  return all.filter(({ path }) => !OWN.has(path));
}

/** Writes down types that are new, in the transaction that creates them. */
export async function recordCreated(db: Db, rows: readonly NotificationTypeRow[], actor: string): Promise<void> {
  if (rows.length > 0)
    await insert(
      db,
      rows.map((row) => revisionOf(row, actor, [])),
    );
}

/** Writes down what a type has become, in the transaction that changes it, whose lock it holds. */
export async function recordChanged(
  db: Db,
  before: NotificationTypeRow,
  after: NotificationTypeRow,
  changes: Difference[],
  actor: string,
): Promise<void> {
  // Types that are older than this table come into it with what they were.
  await insert(db, [revisionOf(before, "", []), revisionOf(after, actor, changes)]);
  const { tenantId, key, revision } = typeRevisions;
  await db
    .delete(typeRevisions)
    .where(and(eq(tenantId, after.tenantId), eq(key, after.key), lte(revision, after.revision - KEPT)));
}

/** A type's revisions below one, newest first; undefined: the newest of all. */
export async function pageRevisions(
  db: Db,
  row: NotificationTypeRow,
  before: number | undefined,
  limit: number,
): Promise<TypeRevisionRow[]> {
  const { tenantId, key, revision } = typeRevisions;
  const rows = await db
    .select()
    .from(typeRevisions)
    .where(and(eq(tenantId, row.tenantId), eq(key, row.key), before === undefined ? undefined : lt(revision, before)))
    .orderBy(desc(revision))
    .limit(limit);
  // One that nobody has changed since this table came has none yet.
  return rows.length === 0 && before === undefined ? [revisionOf(row, "", [])] : rows;
}

export function toRevision({ type, actor, changes }: TypeRevisionRow): TypeRevision {
  const fields = changes as Difference[];
  return create(TypeRevisionSchema, { type: fromBinary(NotificationTypeSchema, type), actor, changes: fields });
}

/** What a type decided by, and from when on. */
export type TypeThen = { rules: TypeRules; optIn: boolean; since: Date };

/** Those of a type's revisions that are known, the present one among them. */
export async function readTypesThen(
  db: Db,
  tenantId: string,
  key: string,
  revisions: readonly number[],
): Promise<Map<number, TypeThen>> {
  if (revisions.length === 0) return new Map();
  const rows = await db
    .select()
    .from(typeRevisions)
    .where(
      and(
        eq(typeRevisions.tenantId, tenantId),
        eq(typeRevisions.key, key),
        inArray(typeRevisions.revision, [...revisions]),
      ),
    );
  const present = await findType(db, tenantId, key);
  return new Map([
    ...rows.map(({ revision, type: bytes }) => {
      const type = fromBinary(NotificationTypeSchema, bytes);
      const since = type.updateTime === undefined ? new Date(0) : timestampDate(type.updateTime);
      return [revision, { rules: rulesOf(definitionOf(type)), optIn: type.optIn, since }] as const;
    }),
    ...(present === undefined
      ? []
      : [[present.revision, { rules: rulesOf(present), optIn: present.optIn, since: present.updatedAt }] as const]),
  ]);
}

/** With the type goes what it was: one that is created anew begins with its first revision. */
export async function removeRevisions(db: Db, tenantId: string, key: string): Promise<void> {
  await db.delete(typeRevisions).where(and(eq(typeRevisions.tenantId, tenantId), eq(typeRevisions.key, key)));
}

function revisionOf(row: NotificationTypeRow, actor: string, changes: Difference[]): TypeRevisionRow {
  const { tenantId, key, revision } = row;
  return { tenantId, key, revision, type: toBinary(NotificationTypeSchema, toType(row)), actor, changes };
}

async function insert(db: Db, rows: TypeRevisionRow[]): Promise<void> {
  await db.insert(typeRevisions).values(rows).onConflictDoNothing();
}
