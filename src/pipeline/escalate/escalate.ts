import type { SpanContext } from "@opentelemetry/api";
import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { lockChains, type OpenChain, queueHandOvers, storeChains } from "#src/escalation/queries.ts";
import { endLost, type Lost } from "#src/escalation/settle.ts";
import { type Answer, advance, type Chain, ChainState, type Command } from "#src/escalation/state.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import { isDrawnFrom } from "#src/preferences/fence.ts";
import type { Store } from "#src/store/store.ts";
import { ATTR, scheduled } from "#src/telemetry/conventions.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import { format, storedTraces } from "#src/telemetry/message-traces.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { type NextIn, recordedTrace, withRootSpan, withWorkSpans } from "#src/telemetry/work-spans.ts";
import { logSteps, measureSteps } from "./measure.ts";
import { type Due, dueChains, lockDue, type Subject, tellSteps } from "./queries.ts";

export type EscalateDeps = {
  store: Store;
  /** Counter slot of this process. */
  slot: number;
  log: Logger;
  metrics: Pick<Metrics, "escalationSteps" | "escalationsEnded" | "schedulerLagSeconds">;
  loadPreferences: LoadPreferences;
  /** The same, not from a cache. */
  reloadPreferences: LoadPreferences;
  /** What the recipient's rules say about a channel now; undefined: nothing can. */
  askChannel(subject: Subject, channel: number, preferences: CompiledPreferences, now: Date): AskedVerdict | undefined;
  /** Tells the streams that a notification has ended. Called after the commit. */
  ended(tenantId: string, lost: Lost, at: Date): void;
};

type LoadPreferences = (
  tenantId: string,
  userIds: readonly string[],
) => Promise<ReadonlyMap<string, CompiledPreferences>>;

export type AskedVerdict =
  | { kind: "deliver" | "batch" }
  | { kind: "hold"; reason: Reason; until: Date }
  | { kind: "suppress"; reason: Reason };

/** What one of them is to become. */
export type Moved = OpenChain & { commands: readonly Command[]; subject: Subject; dueAt: Date | undefined };

/** Notifications locked by one transaction. */
const TOGETHER = 250;

/**
 * Takes the steps of escalations that are due, of all tenants. Each exactly once, however many processes do this and
 * whatever is killed: a step is taken by one transaction, which holds its notification, moves the escalation on and
 * queues the hand-over. Whoever finds a notification locked leaves it to who has it.
 *
 * Answers how many were looked at; `limit`: there may be more.
 */
export async function escalateDue(
  deps: EscalateDeps,
  now: Date,
  limit: number,
): Promise<{ seen: number; moved: number }> {
  const due = await deps.store.system((tx) => dueChains(tx, now, limit));
  let moved = 0;
  for (const [tenantId, chains] of Map.groupBy(due, (chain) => chain.tenantId)) {
    for (let from = 0; from < chains.length; from += TOGETHER)
      moved += await withTheirSpans(tenantId, chains.slice(from, from + TOGETHER), (some, traceOf) =>
        escalateSome(deps, tenantId, some, traceOf, now),
      );
  }
  return { seen: due.length, moved };
}

function carried(trace: SpanContext | undefined): string | undefined {
  return trace && format(trace);
}

/** What the hand-overs of one's steps go on with. */
type TraceOf = (due: Due) => string | undefined;

/** In each trace that is recorded there is a span of it, which its hand-overs follow; where none is, it begins one. */
function withTheirSpans<T>(
  tenantId: string,
  due: readonly Due[],
  work: (due: readonly Due[], traceOf: TraceOf) => Promise<T>,
): Promise<T> {
  const traces = storedTraces(due);
  const shape = () => scheduled("escalate", tenantId, { [ATTR.items]: due.length });
  const following = (next: NextIn) => work(due, ({ trace }) => carried(next(traces.get(trace))));
  if (traces.size > 0) return withWorkSpans(shape, traces.values(), following);
  return withRootSpan(shape(), () => following(recordedTrace));
}

async function escalateSome(
  deps: EscalateDeps,
  tenantId: string,
  due: readonly Due[],
  traceOf: TraceOf,
  now: Date,
  load = deps.loadPreferences,
): Promise<number> {
  // Read before the locks are taken: what has changed by then is read again.
  const preferences = await load(tenantId, [...new Set(due.map(({ userId }) => userId))]);
  const { lost, moved, outdated } = await deps.store.tenant(tenantId, async (tx) => {
    const subjects = await lockDue(tx, tenantId, due);
    const chains = await lockChains(
      tx,
      tenantId,
      subjects.map(({ id }) => id),
    );
    const outdated = new Set<string>();
    const moved = subjects.flatMap((subject): Moved[] => {
      const open = chains.get(subject.id);
      const own = open && preferences.get(open.userId);
      if (open === undefined || own === undefined) return [];
      if (!isDrawnFrom(own.version, subject.rules)) {
        outdated.add(subject.id);
        return [];
      }
      const turn = inTurn(open.chain, (channel) => deps.askChannel(subject, channel, own, now), subject, now);
      return [{ ...open, ...turn, subject, dueAt: open.chain.dueAt }];
    });
    const traces = new Map(due.map((each) => [each.notificationId, traceOf(each)]));
    const messages = moved.flatMap(({ notificationId, userId, subject: { priority, atMostOnce }, commands }) =>
      commands.flatMap((command) => {
        if (command.kind !== "handOver") return [];
        const { step, channel } = command;
        const trace = traces.get(notificationId);
        return [{ notificationId, userId, priority, step, channel, atMostOnce, trace }];
      }),
    );
    await storeChains(tx, tenantId, moved, now);
    await queueHandOvers(tx, tenantId, messages, now);
    await tellSteps(
      tx,
      tenantId,
      moved.flatMap(({ notificationId, commands }) => commands.map((command) => ({ notificationId, command }))),
      now,
    );
    const over = moved.filter(({ chain }) => chain.state !== ChainState.WAITING);
    const lost = await endLost(
      tx,
      tenantId,
      over.map(({ notificationId }) => notificationId),
      { now, slot: deps.slot },
    );
    return { lost, moved, outdated };
  });
  for (const each of lost) deps.ended(tenantId, each, now);
  measureSteps(deps.metrics, moved, now);
  logSteps(deps.log, tenantId, moved);
  if (outdated.size === 0) return moved.length;
  const again = due.filter(({ notificationId }) => outdated.has(notificationId));
  return moved.length + (await escalateSome(deps, tenantId, again, traceOf, now, deps.reloadPreferences));
}

/** Moves a chain on as far as it goes at this instant: those that cannot be taken give their turn to the next. Pure. */
export function inTurn(
  chain: Chain,
  ask: (channel: number) => AskedVerdict | undefined,
  { status }: Pick<Subject, "status">,
  now: Date,
): { chain: Chain; commands: readonly Command[] } {
  let current = chain;
  const commands: Command[] = [];
  while (current.state === ChainState.WAITING && current.dueAt !== undefined && current.dueAt <= now) {
    const next = current.steps[current.taken];
    const answer = next && answerOf(ask(next.channel));
    const over = GOING_ON.has(status) ? endOf(answer) : Reason.CANCELLED;
    const event = over === undefined ? { kind: "due" as const, answer } : { kind: "cancelled" as const, reason: over };
    const advanced = advance(current, event, now);
    if (advanced.chain === current) break;
    current = advanced.chain;
    commands.push(...advanced.commands);
    if (event.kind === "due" && answer?.kind === "hold") break;
  }
  return { chain: current, commands };
}

/** In any other it has ended, and nobody is to answer it any more. */
const GOING_ON: ReadonlySet<number> = new Set([Status.PROCESSING, Status.DELIVERED, Status.READ]);

function answerOf(verdict: AskedVerdict | undefined): Answer {
  switch (verdict?.kind) {
    case "hold":
    case "suppress":
      return verdict;
    case undefined:
      return { kind: "suppress", reason: Reason.NO_CHANNEL };
    default:
      return { kind: "deliver" };
  }
}

/** What ends all of it, and not only this step: nothing that comes later could be said of another channel. */
function endOf(answer: Answer | undefined): Reason | undefined {
  return answer?.kind === "suppress" && FOR_GOOD.has(answer.reason) ? answer.reason : undefined;
}

const FOR_GOOD: ReadonlySet<Reason> = new Set([
  Reason.EXPIRED,
  Reason.USER_OPTED_OUT,
  Reason.TYPE_DISABLED,
  Reason.CATEGORY_DISABLED,
  Reason.BELOW_MINIMUM_PRIORITY,
]);
