import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { type Joined, type Joining, joinBatches } from "#src/batches/join.ts";
import type { NewId } from "#src/ids.ts";
import type { Reservation } from "#src/limits/notification-limits.ts";
import { texts } from "#src/store/arrays.ts";
import type { Tx } from "#src/store/store.ts";
import { takeFence } from "./commit.ts";
import { concludeBatched } from "./conclude.ts";
import type { Conclusion } from "./conclusion.ts";
import type { ChannelVerdict } from "./gates/decide.ts";
import type { Waiting } from "./load.ts";

/** A batch that notifications of a chunk have joined, for its user's streams. */
export type BatchJoined = Omit<Joined, "members" | "leaderless">;

/** Of a chunk, each at the same index; `types`: the revisions that were asked. */
export type Decisions = {
  waiting: readonly Waiting[];
  verdicts: readonly (readonly ChannelVerdict[])[];
  reservations: readonly (Reservation | undefined)[];
  conclusions: readonly Conclusion[];
  types: ReadonlyMap<string, { revision: number }>;
};

/** Undoes a transaction in which somebody has joined a batch by rules, or in a state, that are no longer so. */
export class Outdated extends Error {}

/**
 * Finds the BATCHED among the conclusions their batches. In the transaction that commits them, before it does; then call
 * `mustHaveJoined`. Throws Outdated when types have changed since their rules were read (those of the users are compared
 * by the commit), or when the batch has ended whose leader they would have followed: one of them leads.
 */
export async function joinTheirBatches(
  { newId }: { newId: NewId },
  tx: Tx,
  tenantId: string,
  { waiting, verdicts, reservations, conclusions, types }: Decisions,
  now: Date,
): Promise<{ final: readonly Conclusion[]; joined: readonly BatchJoined[] }> {
  const wanting = waiting.flatMap((row, index) => {
    const plan = conclusions[index]?.plan;
    return plan === undefined ? [] : [joining(row, plan)];
  });
  if (wanting.length === 0) return { final: conclusions, joined: [] };
  await takeFence(tx, tenantId, conclusions);
  await mustBeCurrent(tx, tenantId, new Map(wanting.map(({ type }) => [type, types.get(type)?.revision ?? 0])));
  const joined = await joinBatches(tx, tenantId, wanting, { now, newId });
  if (joined.some(({ leaderless }) => leaderless)) throw new Outdated();
  const batches = new Map(joined.flatMap((batch) => batch.members.map((id) => [id, batch])));
  const final = conclusions.map((conclusion, index) => {
    if (conclusion.status !== Status.BATCHED) return conclusion;
    const batch = batches.get(conclusion.id);
    // It was decided by somebody else meanwhile, and the commit passes it over.
    if (batch === undefined) return conclusion;
    return concludeBatched(conclusion, verdicts[index] ?? [], reservations[index], batch);
  });
  return { final, joined };
}

/**
 * Throws Outdated when one that has joined a batch was not stored: the batch has counted it, and would be full too early.
 */
export function mustHaveJoined(final: readonly Conclusion[], decided: ReadonlySet<string>): void {
  if (final.some(({ id, batch }) => batch !== undefined && !decided.has(id))) throw new Outdated();
}

async function mustBeCurrent(tx: Tx, tenantId: string, revisions: ReadonlyMap<string, number>): Promise<void> {
  const keys = texts([...revisions.keys()]);
  const rows = await tx<{ key: string; revision: number }[]>`
    select key, revision from types where tenant_id = ${tenantId} and key = any(${keys}::text[])`;
  const current = new Map(rows.map(({ key, revision }) => [key, revision]));
  for (const [key, revision] of revisions) if ((current.get(key) ?? 0) !== revision) throw new Outdated();
}

export function joining(row: Waiting, plan: Joining["plan"]): Joining {
  const { id, userId, type, category, priority, version } = row;
  return { id, userId, type, category, priority, version, plan };
}
