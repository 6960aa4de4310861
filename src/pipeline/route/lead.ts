import { dissolveLed } from "#src/batches/dissolve.ts";
import { openLeading } from "#src/batches/join.ts";
import type { NewId } from "#src/ids.ts";
import type { Reservation } from "#src/limits/notification-limits.ts";
import type { Store } from "#src/store/store.ts";
import { joining } from "./batching.ts";
import type { ChannelVerdict } from "./gates/decide.ts";
import type { Waiting } from "./load.ts";

type Verdicts = readonly (readonly ChannelVerdict[])[];
type Reservations = readonly (Reservation | undefined)[];

/** The verdicts of a chunk, and which of its notifications go at once because no batch of theirs is open. */
export type Led = { verdicts: Verdicts; leaders: ReadonlySet<string> };

/** What the limits have answered about a chunk, and its verdicts before anybody led. */
export type Answered = { led: Led; before: Verdicts; reservations: Reservations };

/** The same when nothing follows those that were refused. */
export type Settled = { verdicts: Verdicts; reservations: Reservations };

/**
 * Lets those through that go at once because no batch of theirs is open: each opens its batch, in a transaction of its
 * own, before the limits are asked for it. Chunks without such a type cost nothing here.
 */
export async function lead(
  deps: { store: Store; newId: NewId },
  tenantId: string,
  waiting: readonly Waiting[],
  verdicts: Verdicts,
  now: Date,
): Promise<Led> {
  const wanting = waiting.flatMap((row, index) => {
    const plan = planOf(verdicts[index]);
    return plan?.leading ? [joining(row, plan)] : [];
  });
  if (wanting.length === 0) return { verdicts, leaders: new Set() };
  const { newId } = deps;
  const leaders = await deps.store.tenant(tenantId, (tx) => openLeading(tx, tenantId, wanting, { now, newId }));
  return {
    leaders,
    verdicts: verdicts.map((own, index) => (leaders.has(waiting[index]?.id ?? "") ? atOnce(own) : own)),
  };
}

/**
 * Where the hourly cap sends a leader into the digest, nothing follows it: the batch that it has opened goes, whoever has
 * joined it meanwhile is decided anew, and those of the chunk that would have joined it go with it. Before it is committed:
 * who is killed in between is found to lead again, and refused again.
 */
export async function followRefused(
  { store }: { store: Store },
  tenantId: string,
  waiting: readonly Waiting[],
  { led, before, reservations }: Answered,
  now: Date,
): Promise<Settled> {
  const refused = new Map<string, Reservation>();
  const leaderIds: string[] = [];
  const groups = waiting.map(({ userId }, index) => `${userId}\0${planOf(before[index])?.key}`);
  waiting.forEach(({ id }, index) => {
    const reservation = reservations[index];
    if (!led.leaders.has(id) || reservation === undefined || reservation.allowed || !reservation.digest) return;
    leaderIds.push(id);
    refused.set(groups[index] ?? "", reservation);
  });
  if (leaderIds.length === 0) return { verdicts: led.verdicts, reservations };
  const userIds = waiting.flatMap(({ id, userId }) => (leaderIds.includes(id) ? [userId] : []));
  await store.tenantDb(tenantId, (db) => dissolveLed(db, tenantId, { userIds, leaderIds }, now));
  // One group is of one type, so that the cap says the same of all.
  const followed = groups.map((group, index) =>
    planOf(led.verdicts[index])?.leading === true ? refused.get(group) : undefined,
  );
  return {
    verdicts: led.verdicts.map((own, index) => (followed[index] === undefined ? own : atOnce(own))),
    reservations: reservations.map((own, index) => followed[index] ?? own),
  };
}

function planOf(verdicts: readonly ChannelVerdict[] | undefined) {
  return verdicts?.find((verdict) => verdict.kind === "batch")?.plan;
}

/** The verdicts of one that does not wait for its batch. */
export function atOnce(verdicts: readonly ChannelVerdict[]): ChannelVerdict[] {
  return verdicts.map((each) => (each.kind === "batch" ? { channel: each.channel, kind: "deliver" } : each));
}
