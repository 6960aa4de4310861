import { LiveEvent_Kind as Kind } from "#gen/posthorn/internal/v1/live_pb.ts";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Reconnect_Cause } from "#gen/posthorn/v1/stream_service_pb.ts";
import type { Broker } from "#src/broker/broker.ts";
import type { Clock } from "#src/clock.ts";
import { Fault } from "#src/errors.ts";
import type { NewId } from "#src/ids.ts";
import type { Head } from "#src/inbox/entry.ts";
import { readHeads } from "#src/inbox/queries.ts";
import { live } from "#src/pipeline/flow.ts";
import { Encoded, type EncodedStream } from "#src/rpc/call.ts";
import type { Store } from "#src/store/store.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { encodeDelivered } from "./arrival.ts";
import type { Cursor } from "./cursor.ts";
import type { Filtered } from "./filter.ts";
import { ReceivedEvent } from "./live-event.ts";
import { openingReader } from "./opening.ts";
import type { Presence } from "./presence.ts";
import { replayReader } from "./replays.ts";
import { Session, type SessionDeps } from "./session.ts";
import { sharedSubscriptions } from "./subscriptions.ts";
import { endingOf, KIND_NAMES, watchEvent } from "./watching.ts";

export type HubConfig = {
  heartbeatMs: number;
  queueMaxMessages: number;
  queueMaxBytes: number;
  maxAgeMs: number;
  maxStreamsPerUser: number;
  drainMs: number;
};

export type HubDeps = {
  broker: Broker;
  store: Store;
  presence: Presence;
  clock: Clock;
  newId: NewId;
  random: () => number;
  metrics: Metrics;
  log: Logger;
};

export type OpenStream = {
  tenantId: string;
  userId: string;
  deviceId: string;
  cursor: Cursor | undefined;
  passes: (event: Filtered) => boolean;
  includeStatus: boolean;
  /** When the caller's credential ends. */
  expiresAt: Date | undefined;
  signal: AbortSignal;
};

/** Live memory of an open stream, measured with 10,000: 17 KB with a connection of its own, 12 KB where many share one. */
export const STREAM_BYTES = 16 * 1024;

export type Hub = AsyncDisposable & {
  /** Opens a stream of a user; see StreamService.Subscribe for what it guarantees. */
  subscribe(request: OpenStream): EncodedStream;
  /** Asks every stream to reconnect elsewhere, spread over the drain time or this, and refuses new ones. */
  drain(withinMs: number): Promise<void>;
  open(): number;
};

const NO_TOPICS: ReadonlySet<string> = new Set();
const BEAT_SLICES = 20;
/** In which the streams are told to go elsewhere. */
const DRAIN_TURNS = 20;
const WARN_BEFORE_EXPIRY_MS = 60_000;

type Attached = {
  readonly session: Session;
  /** Undefined: none. */
  topics: Set<string> | undefined;
  readonly slice: number;
  readonly signal: AbortSignal;
  readonly timers: NodeJS.Timeout[];
  readonly abort: () => void;
};

/** Holds this process's streams and feeds them from NATS: one subscription per subject, however many streams need it. */
export function startHub(deps: HubDeps, config: HubConfig): Hub {
  const { broker, clock } = deps;
  const { namespace } = broker;
  const readOpening = openingReader(deps.store);
  const readMissed = replayReader(deps.store, clock);
  const all = new Map<Session, Attached>();
  const subjects = sharedSubscriptions<Attached>(broker, (data, members) => deliver(data, members, members.size));
  const perUser = new Map<string, number>();
  /** Events written since they were last counted, by kind: a metric for each would cost as much as the event. */
  const written: number[] = [];
  let draining = false;
  let slice = 0;
  const sessionDeps: SessionDeps = {
    now: clock,
    random: deps.random,
    replay: ({ options: { tenantId, userId } }, afterSeq, most) => readMissed({ tenantId, userId, afterSeq, most }),
    head: async ({ options: { tenantId, userId } }) => (await readOpening(tenantId, userId)).head,
    onEnd: leave,
    onSlow: () => deps.metrics.streamSlowConsumers.inc(),
    onReplayed: (count) => deps.metrics.streamReplayed.inc(count),
    onReset: () => deps.metrics.streamResets.inc(),
  };

  const global = broker.nats.subscribe(live.all(namespace), {
    callback: (_, message) => deliver(message.data, all.values(), all.size),
  });

  function deliver(data: Uint8Array, members: Iterable<Attached>, count: number): void {
    let event: ReceivedEvent;
    try {
      event = new ReceivedEvent(data);
    } catch (error) {
      deps.log.warn({ err: error }, "an event on the live subjects is not one of ours");
      return;
    }
    written[event.kind] = (written[event.kind] ?? 0) + count;
    const given = event.watched ? watchEvent(deps.metrics, event, count) : undefined;
    let status: Encoded | undefined;
    for (const attached of members) {
      const { session } = attached;
      if (event.kind === Kind.ARRIVAL) {
        session.arrived(event.sequence, event.epoch, event, event.response);
        if (event.delivered && session.options.includeStatus) {
          status ??= new Encoded(encodeDelivered(event.response.bytes));
          session.status(status);
        }
      } else if (event.kind === Kind.STATUS) session.status(event.response);
      else if (event.kind === Kind.NOTICE) session.put(event.response);
      else if (event.kind === Kind.ANNOUNCEMENT) session.announcement(event, event.response);
      else if (event.kind === Kind.MEMBERSHIP) void rejoinTopics(attached);
    }
    given?.(clock());
  }

  async function rejoinTopics(attached: Attached): Promise<void> {
    const { tenantId, userId } = attached.session.options;
    try {
      joinTopics(attached, (await readOpening(tenantId, userId)).topics);
    } catch (error) {
      deps.log.warn({ err: error }, "could not read a user's topics for a stream");
    }
  }

  function joinTopics(attached: Attached, topics: readonly string[]): void {
    const { session, topics: joined = NO_TOPICS } = attached;
    if (!all.has(session)) return;
    const wanted = new Set(topics);
    const subject = (topic: string) => live.topic(namespace, session.options.tenantId, topic);
    for (const topic of wanted.difference(joined)) subjects.join(subject(topic), attached);
    for (const topic of joined.difference(wanted)) subjects.leave(subject(topic), attached);
    attached.topics = wanted.size === 0 ? undefined : wanted;
  }

  function subscribe(request: OpenStream): EncodedStream {
    const { tenantId, userId, signal } = request;
    const owner = ownerOf(tenantId, userId);
    const streams = perUser.get(owner) ?? 0;
    if (draining) throw new Fault(ErrorReason.SHUTTING_DOWN);
    if (streams >= config.maxStreamsPerUser) throw new Fault(ErrorReason.TOO_MANY_STREAMS);
    perUser.set(owner, streams + 1);
    const now = clock();
    const closeAt = new Date(now.getTime() + config.maxAgeMs * (0.9 + 0.1 * deps.random()));
    const session = new Session(
      {
        tenantId,
        userId,
        streamId: deps.newId(),
        deviceId: request.deviceId,
        cursor: request.cursor,
        passes: request.passes,
        includeStatus: request.includeStatus,
        heartbeatMs: config.heartbeatMs,
        queueMaxMessages: config.queueMaxMessages,
        queueMaxBytes: config.queueMaxBytes,
        closeAt: request.expiresAt !== undefined && request.expiresAt < closeAt ? request.expiresAt : closeAt,
      },
      sessionDeps,
    );
    const age = setTimeout(reconnectForAge, bounded(closeAt.getTime() - now.getTime()), session);
    const attached: Attached = {
      session,
      topics: undefined,
      slice: slice++ % BEAT_SLICES,
      signal,
      timers: [age, ...expiryTimers(request.expiresAt, now, session)],
      abort: () => session.finish(undefined),
    };
    all.set(session, attached);
    subjects.join(live.user(namespace, tenantId, userId), attached);
    subjects.join(live.tenant(namespace, tenantId), attached);
    signal.addEventListener("abort", attached.abort, { once: true });
    deps.metrics.streamsOpened.inc();
    deps.presence.arrive(tenantId, userId, request.deviceId, session.options.streamId);
    void begin(attached);
    return session.events;
  }

  function leave(session: Session, fault: Fault | undefined): void {
    const attached = all.get(session);
    if (attached === undefined) return;
    const { tenantId, userId, deviceId, streamId } = session.options;
    const { signal, timers, topics, abort } = attached;
    deps.metrics.streamsClosed.inc({ reason: endingOf(fault, signal) });
    signal.removeEventListener("abort", abort);
    for (const timer of timers) clearTimeout(timer);
    all.delete(session);
    subjects.leave(live.user(namespace, tenantId, userId), attached);
    subjects.leave(live.tenant(namespace, tenantId), attached);
    for (const topic of topics ?? []) subjects.leave(live.topic(namespace, tenantId, topic), attached);
    const owner = ownerOf(tenantId, userId);
    const left = (perUser.get(owner) ?? 1) - 1;
    if (left === 0) perUser.delete(owner);
    else perUser.set(owner, left);
    deps.presence.leave(tenantId, userId, deviceId, streamId);
  }

  /** The order matters: attached above, then the server knows of the subscription, then the head is read. */
  async function begin(attached: Attached): Promise<void> {
    const { session } = attached;
    const { tenantId, userId } = session.options;
    try {
      await subjects.known();
      const { head, topics } = await readOpening(tenantId, userId);
      joinTopics(attached, topics);
      await session.begin(head);
    } catch (error) {
      const fault = error instanceof Fault ? error : new Fault(ErrorReason.DEPENDENCY_UNAVAILABLE, { cause: error });
      session.finish(fault);
    }
  }

  let turn = 0;
  /** Each tick serves a slice of the streams: one read of heads per tenant, one pipeline for presence. */
  async function beat(): Promise<void> {
    countWritten();
    const due = [...all.values()].filter((attached) => attached.slice === turn).map(({ session }) => session);
    turn = (turn + 1) % BEAT_SLICES;
    deps.presence.renew(due.map(({ options }) => options));
    for (const [tenantId, sessions] of Map.groupBy(due, ({ options }) => options.tenantId)) {
      const userIds = [...new Set(sessions.map(({ options }) => options.userId))];
      const heads = await deps.store
        .tenant(tenantId, (tx) => readHeads(tx, tenantId, userIds))
        // Without Postgres the stream still lives: it beats without counts.
        .catch(() => new Map<string, Head>());
      for (const session of sessions) session.heartbeat(heads.get(session.options.userId));
    }
  }

  function countWritten(): void {
    written.forEach((count, kind) => {
      deps.metrics.streamEvents.inc({ event: KIND_NAMES[kind] ?? "unknown" }, count);
      delete written[kind];
    });
  }

  const ticker = setInterval(() => void beat(), config.heartbeatMs / BEAT_SLICES);
  const interruption = broker.onInterruption((state) => {
    // What was published while NATS was away is found by comparing heads; sooner than the next heartbeat would.
    if (state === "back") for (let n = 0; n < BEAT_SLICES; n++) void beat();
  });

  async function drain(withinMs: number): Promise<void> {
    if (draining) return;
    draining = true;
    const waiting = [...all.keys()];
    const spreadMs = Math.min(config.drainMs, withinMs);
    const began = performance.now();
    for (let told = 0; told < waiting.length; ) {
      // By the time that has passed, and not by turns: those come late on a busy machine.
      const share = spreadMs === 0 ? 1 : (performance.now() - began) / spreadMs + 1 / DRAIN_TURNS;
      const due = Math.ceil(waiting.length * Math.min(share, 1));
      for (const session of waiting.slice(told, due)) session.reconnect(Reconnect_Cause.DRAIN, config.drainMs);
      told = due;
      if (told < waiting.length) await new Promise((done) => setTimeout(done, spreadMs / DRAIN_TURNS));
    }
  }

  return {
    subscribe,
    drain,
    open: () => all.size,
    async [Symbol.asyncDispose]() {
      clearInterval(ticker);
      interruption[Symbol.dispose]();
      draining = true;
      for (const session of [...all.keys()]) session.reconnect(Reconnect_Cause.DRAIN, 1000);
      global.unsubscribe();
    },
  };
}

function ownerOf(tenantId: string, userId: string): string {
  return `${tenantId}\0${userId}`;
}

function reconnectForAge(session: Session): void {
  session.reconnect(Reconnect_Cause.MAX_AGE, 1000);
}

function expiryTimers(expiresAt: Date | undefined, now: Date, session: Session): NodeJS.Timeout[] {
  if (expiresAt === undefined) return [];
  const left = expiresAt.getTime() - now.getTime();
  return [
    setTimeout(() => session.tokenExpires(expiresAt), bounded(left - WARN_BEFORE_EXPIRY_MS)),
    setTimeout(() => session.finish(new Fault(ErrorReason.CREDENTIAL_EXPIRED)), bounded(left)),
  ];
}

/** Timers beyond 2^31 ms would fire at once. */
function bounded(ms: number): number {
  return Math.min(Math.max(ms, 0), 2 ** 31 - 1);
}
