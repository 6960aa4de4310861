import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { closeIfEmpty, type Joined, type Joining, moveIntoBatches, openBatches } from "#src/batches/join.ts";
import type { BatchPlan } from "#src/batches/plan.ts";
import { BatchRole } from "#src/batches/role.ts";
import type { NewId } from "#src/ids.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import { fenceNames, isDrawnFrom, readVersions, sharedFence } from "#src/preferences/fence.ts";
import type { Tx } from "#src/store/store.ts";
import type { NotificationTypeRow } from "#src/types/type.ts";
import type { Refusal } from "./closing.ts";
import { applyMoves, type DueBatch, type MemberRow, type Moved } from "./queries.ts";

// A batch that the hourly cap has no room for does not wait for a turn of its own: several of them would come an hour apart.
// What is left of it goes where single notifications go that the cap refuses: into the user's digest of the next full
// hour. All in one transaction, which holds the batch, the digest and the members, in the order in which everybody locks
// these: so whoever cancels, closes or changes rules at the same time finds each of them in one of the two.

export type PourDeps = {
  newId: NewId;
  slot: number;
  /** What becomes of a member whose batch the hourly cap has refused. */
  intoDigest(
    member: MemberRow,
    rules: { preferences: CompiledPreferences; type: NotificationTypeRow | undefined },
    refusal: Refusal,
    now: Date,
  ):
    | { kind: "joins"; plan: BatchPlan; detailIn(digest: { id: string; flushAt: Date }): Uint8Array | undefined }
    | { kind: "ends"; status: Status; reason: number; detail: Uint8Array | undefined }
    | { kind: "goes" };
};

/** A batch that the hourly cap has refused, and who is left of it. */
export type Refused = { batch: Pick<DueBatch, "id" | "userId" | "type">; members: readonly MemberRow[]; by: Refusal };

type Rules = {
  preferences: ReadonlyMap<string, CompiledPreferences>;
  types: ReadonlyMap<string, NotificationTypeRow | undefined>;
};

/** What has become of those that were refused, to be told. */
export type Poured = {
  digests: readonly Omit<Joined, "members" | "leaderless">[];
  members: readonly { id: string; userId: string; priority: number; status: Status; reason: number; until?: Date }[];
};

/**
 * Opens and locks the digests that these go into, as far as can be seen by now, behind the fence of what waits. Before the
 * transaction locks the batches and their members. `outdated`: the rules of these users have changed since; what waits by
 * them is not to be moved. `opened`: to be handed to `pour`.
 */
export async function openDigests(
  deps: PourDeps,
  tx: Tx,
  tenantId: string,
  refused: readonly Refused[],
  rules: Rules,
  now: Date,
): Promise<{ outdated: ReadonlySet<string>; opened: readonly string[] }> {
  if (refused.length === 0) return { outdated: new Set(), opened: [] };
  const userIds = [...new Set(refused.map(({ batch }) => batch.userId))];
  await tx`select ${sharedFence(tx, fenceNames(tenantId, ["", ...userIds]))}`;
  const present = await readVersions(tx, tenantId, userIds);
  const outdated = new Set(
    userIds.filter((userId) => {
      const versions = present.get(userId);
      return versions !== undefined && !isDrawnFrom(rules.preferences.get(userId)?.version, versions);
    }),
  );
  const joining = outcomesOf(deps, refused, rules, now).flatMap(({ member, outcome }) =>
    outcome.kind === "joins" && !outdated.has(member.userId) ? [joiningOf(member, outcome.plan)] : [],
  );
  return { outdated, opened: await openBatches(tx, tenantId, joining, { now, newId: deps.newId }) };
}

/**
 * Moves what is left of the refused batches, which the transaction has locked with their members: into the digests, but for
 * what would expire before these and what does not wait for them. The batches are DISSOLVED; one of which nothing is left
 * is forgotten.
 */
export async function pour(
  deps: PourDeps,
  tx: Tx,
  tenantId: string,
  { refused, opened }: { refused: readonly Refused[]; opened: readonly string[] },
  rules: Rules,
  now: Date,
): Promise<Poured> {
  const outcomes = outcomesOf(deps, refused, rules, now);
  const joining = outcomes.flatMap(({ member, outcome }) =>
    outcome.kind === "joins" ? [joiningOf(member, outcome.plan)] : [],
  );
  const digests = await moveIntoBatches(tx, tenantId, joining, { now, newId: deps.newId });
  await closeIfEmpty(tx, tenantId, opened);
  const digestOf = new Map(digests.flatMap((digest) => digest.members.map((id) => [id, digest] as const)));
  const moved = outcomes.map(({ member: { id, userId, priority }, by, outcome }): Moved & Poured["members"][number] => {
    const own = { id, userId, priority };
    if (outcome.kind === "ends") {
      const { status, reason, detail } = outcome;
      return { ...own, status, reason, detail, role: BatchRole.MEMBER, batchId: undefined };
    }
    if (outcome.kind === "goes")
      return {
        ...own,
        status: Status.ACCEPTED,
        reason: 0,
        detail: undefined,
        role: BatchRole.ALONE,
        batchId: undefined,
      };
    const digest = digestOf.get(id);
    if (digest === undefined) throw new Error("one that moves into a digest has none");
    const waits = { status: Status.BATCHED, reason: by.reason, role: BatchRole.MEMBER, until: digest.flushAt };
    return { ...own, ...waits, batchId: digest.id, detail: outcome.detailIn(digest) };
  });
  const left = new Set(outcomes.flatMap(({ batchId, outcome }) => (outcome.kind === "ends" ? [] : [batchId])));
  const ids = refused.map(({ batch }) => batch.id);
  const batches = { ended: ids.filter((id) => left.has(id)), empty: ids.filter((id) => !left.has(id)) };
  if (ids.length > 0) await applyMoves(tx, tenantId, moved, batches, { now, slot: deps.slot });
  return { digests, members: moved };
}

function outcomesOf(deps: PourDeps, refused: readonly Refused[], { preferences, types }: Rules, now: Date) {
  return refused.flatMap(({ batch, members, by }) => {
    const own = preferences.get(batch.userId);
    if (own === undefined) throw new Error("preferences missing for a user of a batch");
    const rules = { preferences: own, type: types.get(batch.type) };
    return members.map((member) => ({
      ...{ member, by, batchId: batch.id },
      outcome: deps.intoDigest(member, rules, by, now),
    }));
  });
}

function joiningOf({ id, userId, type, category, priority, version }: MemberRow, plan: BatchPlan): Joining {
  return { id, userId, type, category, priority, version, plan };
}
