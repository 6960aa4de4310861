import type { JsonValue } from "@bufbuild/protobuf";
import { and, eq, inArray, lte, or } from "drizzle-orm";
import { preferenceRevisions as past } from "#src/store/schema/users.ts";
import type { Db } from "#src/store/store.ts";
import { fromDocument, type Stored, toDocument } from "./document.ts";
import type { Owner } from "./queries.ts";

/** Of each owner, besides what is in force. */
const KEPT = 100;

/** Keeps what is about to be replaced, in the transaction that holds its lock; older revisions go as new ones come. */
export async function keepRevision(db: Db, owner: Owner, before: Stored, now: Date): Promise<void> {
  const { revision, preferences, updatedAt } = before;
  if (revision === 0 || updatedAt === undefined) return;
  await db
    .insert(past)
    .values({ ...owner, revision, document: toDocument(preferences), updatedAt, replacedAt: now })
    .onConflictDoNothing();
  await db.delete(past).where(and(of(owner), lte(past.revision, revision - KEPT)));
}

/** Those of the revisions of a user, and of the tenant's defaults, that were replaced and are kept. */
export async function readRevisions(
  db: Db,
  tenantId: string,
  userId: string,
  wanted: { user: readonly number[]; tenant: readonly number[] },
): Promise<{ user: Map<number, Stored>; tenant: Map<number, Stored> }> {
  const one = (owner: Owner, revisions: readonly number[]) =>
    and(of(owner), inArray(past.revision, revisions.length > 0 ? [...revisions] : [0]));
  const rows = await db
    .select()
    .from(past)
    .where(or(one({ tenantId, userId }, wanted.user), one({ tenantId, userId: "" }, wanted.tenant)));
  const by = (id: string) =>
    new Map(
      rows
        .filter((row) => row.userId === id)
        .map(({ revision, document, updatedAt }) => {
          const preferences = fromDocument(document as JsonValue);
          return [revision, { preferences, revision, updatedAt }] as const;
        }),
    );
  return { user: by(userId), tenant: by("") };
}

/** A user's, with the rest of what is theirs. */
export async function forgetRevisions(db: Db, owner: Owner): Promise<void> {
  await db.delete(past).where(of(owner));
}

function of({ tenantId, userId }: Owner) {
  return and(eq(past.tenantId, tenantId), eq(past.userId, userId));
}
