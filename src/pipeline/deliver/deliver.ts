import type { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { type Channels, OUTSIDE_CHANNELS } from "#src/channels/channel.ts";
import type { Clock } from "#src/clock.ts";
import type { Lost } from "#src/escalation/settle.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import type { Store } from "#src/store/store.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import { storedTraces } from "#src/telemetry/message-traces.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { channelSlots } from "./channel-slots.ts";
import { type Claimed, claimDue } from "./claim.ts";
import { followed, stopOf } from "./hand-over.ts";
import { loadMessages, type Stored } from "./load.ts";
import { type HandedOver, measureClaimed } from "./measure.ts";
import { notes } from "./note.ts";
import type { CameOf, Delivered, Gone, Held } from "./record.ts";
import { type LimitDeps, type Ready, withinLimits } from "./within-limits.ts";

export type DeliverDeps = LimitDeps & {
  store: Store;
  clock: Clock;
  channels: Channels;
  loadPreferences(tenantId: string, userIds: readonly string[]): Promise<ReadonlyMap<string, CompiledPreferences>>;
  /** The same of those whose rules were found to have changed. */
  reloadPreferences(tenantId: string, userIds: readonly string[]): Promise<unknown>;
  /** What the recipient's rules say about a channel now; undefined: nothing can. */
  askChannel(stored: Stored, channel: number, preferences: CompiledPreferences, now: Date): Asked | undefined;
  /** Counter slot of this process. */
  slot: number;
  log: Pick<Logger, "debug" | "warn">;
  metrics: Pick<Metrics, "handOvers" | "handOverSeconds" | "handOverRepeats" | "schedulerLagSeconds" | "jobFailures">;
  /** Tell the streams. Called after the commit. */
  delivered(tenantId: string, delivered: Delivered, at: Date): void;
  held(tenantId: string, held: Held, at: Date): void;
  gone(tenantId: string, gone: Gone, at: Date): void;
  ended(tenantId: string, lost: Lost, at: Date): void;
};

export type Asked =
  | { kind: "deliver" | "batch" }
  | { kind: "hold"; reason: Reason; until: Date }
  | { kind: "suppress"; reason: Reason };

/** How long a channel still may take once the process is to stop: most answer by then, and need not be handed it twice. */
const LAST_ANSWER_MS = 2_000;
/** How long whoever has claimed a hand-over is left alone with it: it begins at once, and no channel may take that long. */
const LEASE_MS = 60_000;
/** Of each channel. */
const SIDE_BY_SIDE = 16;

/** `count`: claimed now. `sooner`: when there may be room for more that is due. */
export type Claim = { count: number; sooner: Promise<void> | undefined };

export type Delivering = AsyncDisposable & {
  /** Claims what is due, for channels that have room, and begins with it. One call at a time. */
  claim(now: Date, stopping: AbortSignal): Promise<Claim>;
};

/**
 * Hands outside channels what is due, of all tenants: of each channel so many side by side, the most urgent first, and
 * none waits for what another takes. At least once: a hand-over is claimed for a minute, and its outcome noted afterwards;
 * if this process is killed in between, whoever claims it next hands it over again, with the same idempotency key. Who
 * comes late with an outcome, because another has claimed it meanwhile, notes nothing.
 *
 *                       ┌─ retry, back ─┐
 *     claimed ─▶ given ─┴─▶ noted       ▼
 *        ▲         ╎                 claimed
 *        └─ killed ┴─ at most once ─▶ unknown
 *
 * At most once: that it is given is committed right before it is, and whoever claims it after that knows only that much.
 *
 * Once `stopping` aborts nothing more is begun, and disposing cuts off what does not answer within two seconds. Both are
 * given back: due at once for whoever claims next, and not counted as an attempt. What is at most once and was cut off is
 * unknown.
 */
export function startDelivering(deps: DeliverDeps): Delivering {
  const { store } = deps;
  // What is for a channel that this server has not is claimed too, to be told so.
  const slots = channelSlots(OUTSIDE_CHANNELS, SIDE_BY_SIDE);
  const note = notes(deps);
  const cut = new AbortController();
  const atWork = new Set<Promise<void>>();

  /** In a slot that it gives back when the outcome is noted, so that no more than the slots hold waits for that. */
  function begin(claimed: Claimed, stored: Stored | undefined, handOver: () => Promise<CameOf> | CameOf): void {
    slots.take(claimed.channel);
    const work = (async () => note({ claimed, expiresAt: stored?.expiresAt, ...(await handOver()) }))()
      .catch((err) => {
        deps.metrics.jobFailures.inc({ task: "hand-over" });
        deps.log.warn({ err, tenant: claimed.tenantId }, "could not hand over; it is tried again");
      })
      .finally(() => {
        slots.give(claimed.channel);
        atWork.delete(work);
      });
    atWork.add(work);
  }

  return {
    async claim(now, stopping) {
      const free = slots.free();
      if (free.length === 0) return { count: 0, sooner: slots.roomForMore() };
      const claimed = await store.system((tx) => claimDue(tx, now, new Date(now.getTime() + LEASE_MS), free));
      measureClaimed(deps.metrics, claimed, now);
      const traces = storedTraces(claimed);
      const loaded = await loadAll(deps, claimed, now);
      for (const next of claimed) {
        const own = loaded.get(next.tenantId);
        const turn = { now, stop: own?.stops.get(next), cut: cut.signal };
        const stored = own?.messages.get(next.notificationId);
        begin(next, stored, () =>
          stopping.aborted
            ? { kind: "back", inDoubt: next.inDoubt }
            : followed(deps, next, stored, traces.get(next.trace), turn),
        );
      }
      const counts = Map.groupBy(claimed, ({ channel }) => channel);
      for (const { channel, size } of free) slots.filled(channel, counts.get(channel)?.length === size);
      return { count: claimed.length, sooner: slots.roomForMore() };
    },
    async [Symbol.asyncDispose]() {
      const timer = setTimeout(() => cut.abort(new Error("the process is to stop")), LAST_ANSWER_MS);
      await Promise.allSettled(atWork);
      clearTimeout(timer);
    },
  };
}

/** What there is to hand over, and what stops it: its end, its recipients' rules, and the limits of its channel. */
type Loaded = { messages: ReadonlyMap<string, Stored>; stops: ReadonlyMap<Claimed, HandedOver | undefined> };

async function loadAll(
  deps: DeliverDeps,
  claimed: readonly Claimed[],
  now: Date,
): Promise<ReadonlyMap<string, Loaded>> {
  const { store, loadPreferences } = deps;
  const loaded = new Map<string, Loaded>();
  for (const [tenantId, own] of Map.groupBy(claimed, (each) => each.tenantId)) {
    const messages = await store.tenant(tenantId, (tx) => loadMessages(tx, tenantId, own));
    const preferences = await loadPreferences(tenantId, [...new Set(own.map(({ userId }) => userId))]);
    const stops = new Map<Claimed, HandedOver | undefined>();
    const ready: (Ready & { claimed: Claimed })[] = [];
    for (const each of own) {
      const [stored, wishes] = [messages.get(each.notificationId), preferences.get(each.userId)];
      const stop = stopOf(deps, each, stored, wishes, now);
      stops.set(each, stop);
      if (stop === undefined && stored && wishes) ready.push({ claimed: each, stored, preferences: wishes });
    }
    const limited = await withinLimits(deps, tenantId, ready, now);
    ready.forEach((each, index) => {
      stops.set(each.claimed, limited[index]);
    });
    loaded.set(tenantId, { messages, stops });
  }
  return loaded;
}
