import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { DIGEST } from "#src/batches/join.ts";
import { BatchRole, isCollected } from "#src/batches/role.ts";
import { planFor } from "#src/escalation/plan.ts";
import { madeAtMs } from "#src/ids.ts";
import type { GoodHours } from "#src/learning/looks.ts";
import type { Request, Reservation } from "#src/limits/notification-limits.ts";
import { channelsFor } from "#src/notifications/channel-bits.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import type { TypeRules } from "#src/types/type.ts";
import { laneOf } from "../flow.ts";
import { bookingAfter } from "./booking.ts";
import { capOf, collected, rankOf } from "./cap.ts";
import { conclude } from "./conclude.ts";
import type { Conclusion } from "./conclusion.ts";
import { type DecideDeps, decideInSlices } from "./decide-in-slices.ts";
import type { ChannelVerdict, Facts } from "./gates/decide.ts";
import { askingOnce } from "./gates/filtered.ts";
import type { Answered, Led, Settled } from "./lead.ts";
import type { Waiting } from "./load.ts";
import { recording } from "./record.ts";

/** These ask what is not of the notifications alone: each other, and what has been sent before. */
export type DecideChunkDeps = DecideDeps & {
  /** Lets those through that go at once because no batch of theirs is open. */
  lead(verdicts: readonly ChannelVerdict[][]): Promise<Led>;
  /** Has nothing follow a leader that is refused its turn. */
  follow(answered: Answered): Promise<Settled>;
  /** Finds them their turns under the limits. */
  reserve(requests: readonly Request[]): Promise<readonly Reservation[]>;
};

/** What was loaded to decide by: of users by id, of types by key; a type that is not there was deleted. */
export type Known = {
  preferences: ReadonlyMap<string, CompiledPreferences>;
  types: ReadonlyMap<string, { rules: TypeRules; revision: number }>;
  /** Of users for whom that is asked (when-they-look.ts). */
  good: ReadonlyMap<string, GoodHours>;
};

/** Of a chunk, each at the same index. */
export type DecidedChunk = {
  verdicts: readonly (readonly ChannelVerdict[])[];
  reservations: readonly (Reservation | undefined)[];
  conclusions: readonly Conclusion[];
};

/**
 * Decides a chunk of one tenant's notifications: facts → gates → limits → conclusions. What is BATCHED has still to find
 * its batch. Nothing is stored here, so that what would be decided can be asked for as well (preview.ts).
 */
export async function decideChunk(
  deps: DecideChunkDeps,
  waiting: readonly Waiting[],
  { preferences, types, good }: Known,
  now: Date,
): Promise<DecidedChunk> {
  const facts = waiting.map((row) => {
    const own = preferences.get(row.userId);
    if (own === undefined) throw new Error("preferences missing for a user of the chunk");
    const facts = { ...factsOf(row, own, types.get(row.type)?.rules), good: good.get(row.userId) };
    return askingOnce(facts);
  });
  const decisions = facts.some(({ preferences: { wishes } }) => wishes !== undefined)
    ? await decideInSlices(deps, facts, now)
    : facts.map((each) => deps.decide(each, now));
  const led = await deps.lead(decisions);
  const asked = await reserveFor(deps, waiting, facts, led.verdicts, now);
  const { verdicts: settled, reservations } = await deps.follow({ led, before: decisions, reservations: asked });
  const verdicts = facts.map((each, index) => collected(settled[index] ?? [], reservations[index], each, now));
  const record = recording(now);
  const conclusions = facts.map((about, index): Conclusion => {
    const row = waiting[index] as Waiting;
    const type = types.get(row.type);
    const recorded = record(about, type?.revision ?? 0);
    const conclusion = conclude(row.id, verdicts[index] ?? [], reservations[index], row.expiresAt, recorded);
    return {
      ...conclusion,
      bookedAt: bookingAfter(row, conclusion, reservations[index]),
      group: groupOf(row, about.preferences),
      escalation: escalationOf(row, conclusion, about.preferences, type?.rules),
      version: row.version,
      rules: about.preferences.version && { userId: row.userId, ...about.preferences.version },
    };
  });
  return { verdicts, reservations, conclusions };
}

function factsOf(row: Waiting, preferences: CompiledPreferences, rules: TypeRules | undefined): Facts {
  const isWhole = row.batchRole === BatchRole.WHOLE;
  return {
    notification: {
      id: row.id,
      userId: row.userId,
      type: row.type,
      category: row.category,
      priority: row.priority,
      acceptedAt: new Date(madeAtMs(row.id)),
      channels: channelsFor(row.channels, preferences),
      expiresAt: row.expiresAt ?? undefined,
      scheduledAt: row.scheduledAt ?? undefined,
      senderId: row.senderId ?? undefined,
      bypassLimits: row.bypassLimits,
      // A digest has no type of its own; those of its members were asked when it closed.
      typeDeleted: rules === undefined && !(isWhole && row.type === DIGEST),
      rules,
      isWhole,
      collected: isCollected(row.batchRole, row.batchedAt),
      // An answer is to one notification: what waits for one joins no others.
      batchedAlready:
        isWhole || row.batchRole === BatchRole.ALONE || row.escalation !== null || rules?.escalation !== undefined,
      batchedSince: row.batchedAt ?? undefined,
      tags: row.tags ?? [],
      content: row.content,
    },
    preferences,
  };
}

function groupOf({ groupKey }: Waiting, preferences: CompiledPreferences): Conclusion["group"] {
  if (groupKey === null || preferences.grouping === undefined) return undefined;
  return { key: groupKey, ...preferences.grouping };
}

function escalationOf(
  row: Waiting,
  { status }: Conclusion,
  preferences: CompiledPreferences,
  rules: TypeRules | undefined,
): Conclusion["escalation"] {
  if (status !== Status.DELIVERED && status !== Status.PROCESSING) return undefined;
  return planFor(row, rules?.escalation, preferences);
}

/** Reserves for those with a channel to deliver to, in the order of their rank and then their age; undefined for the others. */
async function reserveFor(
  { reserve }: DecideChunkDeps,
  waiting: readonly Waiting[],
  facts: readonly Facts[],
  verdicts: readonly (readonly ChannelVerdict[])[],
  now: Date,
): Promise<(Reservation | undefined)[]> {
  const wanting = waiting.flatMap((row, index) => {
    const about = facts[index];
    const delivers = verdicts[index]?.some((verdict) => verdict.kind === "deliver");
    return delivers && about ? [{ row, index, cap: capOf(about, now), rank: rankOf(about) }] : [];
  });
  if (wanting.some(({ rank }) => rank !== wanting[0]?.rank)) wanting.sort((a, b) => b.rank - a.rank);
  const result: (Reservation | undefined)[] = waiting.map(() => undefined);
  if (wanting.length === 0) return result;
  const answers = await reserve(
    wanting.map(({ row, cap }) => ({
      id: row.id,
      userId: row.userId,
      attempt: row.attempts,
      exempt: row.bypassLimits || laneOf(row.priority).name === "critical",
      expiresAtMs: row.expiresAt?.getTime(),
      cap,
      slot: row.bookedAt === null ? undefined : { at: row.bookedAt, reason: row.reason },
    })),
  );
  wanting.forEach(({ index }, n) => {
    result[index] = answers[n];
  });
  return result;
}
