import { OUTSIDE_CHANNELS } from "#src/channels/channel.ts";
import { plain } from "#src/store/arrays.ts";
import type { Store, Tx } from "#src/store/store.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";

/** As far as is counted: what waits may be millions, and this is looked at every few seconds. */
const MOST = 10_000;
/** There are four lanes, each with its own end of the index. */
const MOST_OF_LANE = MOST / 4;
/** And each channel's hand-overs have four. */
const MOST_OF_CHANNEL = MOST_OF_LANE / OUTSIDE_CHANNELS.length;

type Found = { kind: string; waiting: number; oldest: Date | null };

/**
 * Looks at what is due and has not been taken: how many of each kind, and since when the longest. By the indexes that
 * the scheduler takes it from, and no further than `MOST`.
 */
export async function measureDue(
  store: Store,
  metrics: Pick<Metrics, "schedulerWaiting" | "schedulerOldestSeconds" | "escalationsOpen">,
  now: Date,
): Promise<void> {
  const { found, open } = await store.system(async (tx) => ({
    found: await lookAtDue(tx, now),
    open: await countOpen(tx),
  }));
  for (const { kind, waiting, oldest } of found) {
    metrics.schedulerWaiting.set({ kind }, waiting);
    const ageMs = oldest === null ? 0 : now.getTime() - oldest.getTime();
    metrics.schedulerOldestSeconds.set({ kind }, Math.max(0, ageMs) / 1000);
  }
  metrics.escalationsOpen.set(open);
}

function lookAtDue(tx: Tx, now: Date): Promise<Found[]> {
  const of = (kind: string, due: ReturnType<Tx>) =>
    tx`select ${kind} as kind, count(*)::int as waiting, min(at) as oldest from (${due}) as due`;
  const due = (lane: number) =>
    tx`(select due_at as at from notifications where priority = ${lane} and due_at <= ${now}
      order by due_at limit ${MOST_OF_LANE})`;
  return tx<Found[]>`
    ${of("notification", tx`${due(1)} union all ${due(2)} union all ${due(3)} union all ${due(4)}`)}
    union all ${of("step", tx`select due_at as at from escalations where due_at <= ${now} order by due_at limit ${MOST}`)}
    union all ${of(
      "hand-over",
      tx`select due.at from unnest(${plain(OUTSIDE_CHANNELS)}::smallint[]) as channel (n)
        cross join unnest(array[1, 2, 3, 4]::smallint[]) as lane (n) cross join lateral (
          select due_at as at from hand_overs h
          where h.channel = channel.n and h.priority = lane.n and due_at <= ${now} order by due_at limit ${MOST_OF_CHANNEL}
        ) due`,
    )}
    union all ${of(
      "batch",
      tx`select flush_at as at from batches where state in (1, 2) and flush_at <= ${now} order by flush_at limit ${MOST}`,
    )}
    union all ${of(
      "occurrence",
      tx`select fires_at as at from schedules where fires_at <= ${now} order by fires_at limit ${MOST}`,
    )}`;
}

async function countOpen(tx: Tx): Promise<number> {
  const [row] = await tx<{ open: number }[]>`
    select count(*)::int as open from (
      select from escalations where due_at is not null order by due_at limit ${MOST}) as open`;
  return row?.open ?? 0;
}
