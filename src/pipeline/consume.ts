import type { SpanContext } from "@opentelemetry/api";
import type { ConsumerMessages } from "nats";
import type { Broker } from "#src/broker/broker.ts";
import type { Clock } from "#src/clock.ts";
import { ATTR, processing } from "#src/telemetry/conventions.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import type { TracedItems } from "#src/telemetry/message-traces.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { type NextIn, withWorkSpans } from "#src/telemetry/work-spans.ts";
import { type AdaptiveSize, adaptiveSize, type SizeBounds } from "./adaptive.ts";
import { drain } from "./drain.ts";
import { restoreQueues } from "./ensure-queues.ts";
import {
  ACK_WAIT_MS,
  ALL_SHARDS,
  CHUNK,
  ingestStream,
  isFloodShard,
  LANES,
  type Lane,
  routeConsumer,
  type Work,
} from "./flow.ts";
import type { GiveWay } from "./give-way.ts";
import { type LaneSlots, laneSlots } from "./lane-slots.ts";
import type { MemoryGuard, Pressure } from "./memory.ts";
import { givesBack, retryDelay } from "./redelivery.ts";
import {
  backlogOf,
  firstTogether,
  inParts,
  readWaiting,
  type Together,
  takeTogether,
  tracesTogether,
  type Waiting,
} from "./together.ts";

export type Delivery = {
  /** How often this message has been given out, this time included. */
  attempt: number;
  /** Tell the queue that a long job is still being worked on. */
  working(): void;
  /** Aborts when the worker stops: finish the step at hand and throw; the message is given out again. */
  signal: AbortSignal;
  /** The traces of ids that are followed to the stream: of each recorded trace the first few. */
  traces: ReadonlyMap<string, SpanContext>;
};

/**
 * Handles one message, or a part of a large one. At least once: must be idempotent. Throw to have the message given out
 * again later.
 */
export type HandleWork = (work: Work, delivery: Delivery) => Promise<void>;

export type ConsumeDeps = {
  broker: Broker;
  handle: HandleWork;
  concurrencyPerLane: number;
  /** How many notifications are handled in one go. */
  chunk: SizeBounds;
  memory: Pick<MemoryGuard, "pressure" | "room" | "holder">;
  way: GiveWay;
  clock: Clock;
  log: Logger;
  metrics: Pick<Metrics, "queueMessages" | "queueWaitSeconds" | "routeChunkSize">;
};

/** Messages of a shard that a worker holds beside those it works on. A worker that is killed keeps them for ack_wait. */
const AHEAD = 8;
/** The same where memory is short: others may have room. */
const AHEAD_WHEN_SHORT = 1;

/** Of each lane, for what is little. */
const SPARE_SLOTS = 4;
/** So many notifications are: they take hardly longer to decide than one. */
const LITTLE = 25;

/** What is on a shard for floods is the end of much, and has its turn: the spare slots are for others. */
function isLittle(shard: number, queue: readonly Waiting[]): boolean {
  if (isFloodShard(shard)) return false;
  const ids = queue.reduce((sum, { work }) => sum + (work !== undefined && "ids" in work ? work.ids.length : CHUNK), 0);
  return ids <= LITTLE;
}

/**
 * Takes work from every lane and shard until disposed. Each lane has its own slots, so urgent work never waits for slots
 * taken by other work; within a lane the shards' waiting messages take slots in turn. How many notifications go together
 * follows the backlog of the lane, the time they take and the memory there is. The critical lane goes on as if there were
 * enough; the others take less when it becomes short, and when there is none left, ask for no more than is on its way.
 * Much gives way to what is critical, and to other tenants' little (give-way.ts).
 * Disposing takes no more messages and finishes those at hand.
 */
export async function startConsuming(deps: ConsumeDeps): Promise<AsyncDisposable> {
  const { broker, handle, concurrencyPerLane, memory, way, clock, log, metrics } = deps;
  const stopping = new AbortController();
  const late = new AbortController();
  /** What it can spare is in the other lanes. */
  const pressureOn = (lane: Lane) => (): Pressure => (lane.name === "critical" ? "none" : memory.pressure());
  const loops = LANES.flatMap((lane) => {
    const pressure = pressureOn(lane);
    const size = adaptiveSize(deps.chunk, pressure, (items) => metrics.routeChunkSize.set({ lane: lane.name }, items));
    // As each shard asks for one at a time, the shards take turns.
    const slots = laneSlots(concurrencyPerLane, SPARE_SLOTS);
    const ahead = () => (pressure() === "none" ? AHEAD : AHEAD_WHEN_SHORT);
    const canBegin = () => (pressure() === "over" ? memory.room(stopping.signal) : undefined);
    const serving = { lane, slots, size, ahead, canBegin };
    return Array.from({ length: ALL_SHARDS }, (_, shard) => consumeShard(serving, shard));
  });
  const running = new Set<Promise<void>>();
  let inHand = 0;
  memory.holder(() => inHand > 0);

  async function consumeShard(serving: Serving, shard: number): Promise<void> {
    const { lane, ahead } = serving;
    const line: Line = { queue: [], serving: undefined };
    while (!stopping.signal.aborted) {
      if (!broker.up()) {
        await restore();
        continue;
      }
      let messages: ConsumerMessages | undefined;
      try {
        const consumer = await broker.js.consumers.get(ingestStream(broker.namespace, lane.name), routeConsumer(shard));
        messages = await consumer.consume({ max_messages: AHEAD, expires: 30_000, idle_heartbeat: 5_000 });
        const current = messages;
        const stop = () => void drain(current);
        stopping.signal.addEventListener("abort", stop, { once: true });
        if (stopping.signal.aborted) stop();
        // And begins anew when NATS is back. Left to itself, the client asks then whether the consumer is still there, and
        // takes no work for half a minute should that question get lost in the same trouble.
        using _ = broker.onInterruption(() => void current.close());
        void watch(current);
        for await (const message of current) {
          line.queue.push(readWaiting(message));
          if (lane.name === "critical") way.urgent();
          line.serving ??= serve(serving, shard, line);
          // What is here cannot be taken by another worker; as long as a slot is waited for, these will do. The client asks
          // for more only as these are taken from it.
          if (line.queue.length >= ahead()) await line.serving;
        }
        stopping.signal.removeEventListener("abort", stop);
      } catch (error) {
        if (!stopping.signal.aborted)
          log.warn({ err: error, lane: lane.name, shard }, "a consumer stopped; it starts again");
      }
      await line.serving;
      await messages?.close().catch(() => undefined);
      if (!stopping.signal.aborted) await restore();
    }
  }

  /** Asks for one slot after the other until nothing waits any more; each takes along what came meanwhile. */
  async function serve(serving: Serving, shard: number, line: Line): Promise<void> {
    const { lane, slots, size, canBegin } = serving;
    while (line.queue.length > 0) {
      await canBegin();
      const { isSpare, give } = await kept(line, slots.take(shard, isLittle(shard, line.queue)));
      const passed = await passing(lane, line, isSpare || isLittle(shard, firstTogether(line.queue)));
      const done = () => {
        passed?.();
        give();
      };
      // What came while a spare one was waited for may be much.
      const together = takeTogether(line.queue, isSpare ? Math.min(LITTLE, size.now()) : size.now());
      if (late.signal.aborted) {
        done();
        for (const { message } of together.waiting) message.nak();
        continue;
      }
      const canWait = lane.name === "critical" ? 0 : 1;
      inHand += canWait;
      const job = work(together, serving, backlogOf(line.queue, together)).finally(() => {
        inHand -= canWait;
        done();
        running.delete(job);
      });
      running.add(job);
    }
    // Before anything else can come in: who comes later begins anew.
    line.serving = undefined;
  }

  /** Waits until what is next in line may begin; call what this gives, if anything, when it is done. */
  function passing({ name }: Lane, line: Line, isLittle: boolean): Promise<() => void> | undefined {
    if (name === "critical") return undefined;
    const tenantId = line.queue[0]?.work?.tenantId ?? "";
    if (!isLittle) return kept(line, way.turn(tenantId, { isHigh: name === "high" }));
    way.little(tenantId);
    return undefined;
  }

  /**
   * Waits, and keeps what is in line from coming again, as it may be longer than a message has for its ack. What the client
   * holds behind a full line may come again all the same: who decides it second finds it decided.
   */
  async function kept<T>(line: Line, wait: Promise<T>): Promise<T> {
    const beat = setInterval(() => {
      for (const { message } of line.queue) message.working();
    }, ACK_WAIT_MS / 3);
    try {
      return await wait;
    } finally {
      clearInterval(beat);
    }
  }

  /** A consumer that was deleted with its stream never says so by itself: missing heartbeats do. */
  async function watch(messages: ConsumerMessages): Promise<void> {
    for await (const status of await messages.status()) {
      if (
        status.type === "consumer_not_found" ||
        status.type === "stream_not_found" ||
        status.type === "consumer_deleted"
      ) {
        await messages.close();
      }
      if (status.type === "heartbeats_missed" && Number(status.data) >= 3 && broker.up()) await messages.close();
    }
  }

  let restoring: Promise<void> | undefined;
  /** Waits a little, then sees that streams and consumers exist; all loops share one attempt. */
  function restore(): Promise<void> {
    restoring ??= (async () => {
      await new Promise((done) => setTimeout(done, 500).unref());
      if (!stopping.signal.aborted && broker.up()) {
        await restoreQueues(broker).catch((error) => log.warn({ err: error }, "could not restore the queues"));
      }
      restoring = undefined;
    })();
    return restoring;
  }

  let workedAt = Number.NEGATIVE_INFINITY;
  async function work(together: Together, serving: Serving, behind: number): Promise<void> {
    const { lane, size } = serving;
    const messages = together.waiting.map(({ message }) => message);
    const [first] = messages;
    if (first === undefined) return;
    const { deliveryCount: attempt } = first.info;
    const labels = { stage: "route", lane: lane.name };
    // A redelivery has waited for its turn as well as for its message.
    if (attempt === 1)
      for (const { info } of messages)
        metrics.queueWaitSeconds.observe(labels, Math.max(0, clock().getTime() - info.timestampNanos / 1e6) / 1000);
    const working = () => {
      for (const message of messages) message.working();
    };
    const beat = setInterval(working, ACK_WAIT_MS / 3);
    const tenant = together.work?.tenantId;
    try {
      const data = together.work;
      if (data === undefined) throw new Error("the message is none of ours");
      const ids = "ids" in data ? data.ids : [];
      const traced = tracesTogether(together);
      const shape = () =>
        processing(`ingest.${lane.name}`, {
          [ATTR.messagingDestination]: first.subject,
          [ATTR.messagingConsumerGroup]: first.info.consumer,
          [ATTR.items]: ids.length,
          [ATTR.attempt]: attempt,
          [ATTR.tenant]: data.tenantId,
        });
      await withWorkSpans(shape, traced.keys(), async (next) => {
        const traces = followed(ids, traced, next);
        for (const { part, rest } of inParts(data, size.now)) {
          const began = performance.now();
          await handle(part, { attempt, working, signal: stopping.signal, traces });
          const tookMs = performance.now() - began;
          if ("ids" in part) size.done({ items: part.ids.length, backlog: rest + behind, tookMs });
        }
      });
      for (const message of messages) message.ack();
      metrics.queueMessages.inc({ ...labels, outcome: "done" }, messages.length);
      workedAt = performance.now();
    } catch (error) {
      const fields = { err: error, lane: lane.name, ...(tenant === undefined ? {} : { tenant }), attempt };
      if (givesBack(attempt, performance.now() - workedAt)) {
        metrics.queueMessages.inc({ ...labels, outcome: "given_back" });
        log.error(fields, "a chunk fails always; it goes back to the reconciler");
        for (const message of messages) message.ack();
      } else {
        metrics.queueMessages.inc({ ...labels, outcome: "failed" }, messages.length);
        log.warn(fields, "a chunk failed; it is given out again");
        for (const message of messages) message.nak(retryDelay(attempt));
      }
    } finally {
      clearInterval(beat);
    }
  }

  return {
    async [Symbol.asyncDispose]() {
      stopping.abort();
      const timer = setTimeout(() => late.abort(), FINISH_MS);
      // The loops first: they may be about to begin a job.
      await Promise.allSettled(loops);
      await Promise.allSettled(running);
      clearTimeout(timer);
    },
  };
}

/** How long a stopping worker goes on with messages it holds. Beyond that it gives them back. */
const FINISH_MS = 5000;

/** Notifications of a trace that are followed to the stream in each chunk. More would make a trace no easier to read. */
const FOLLOWED = 10;

function followed(ids: readonly string[], traced: TracedItems, next: NextIn): Map<string, SpanContext> {
  const result = new Map<string, SpanContext>();
  for (const [from, positions] of traced) {
    const span = next(from);
    for (const position of positions.slice(0, FOLLOWED)) {
      const id = ids[position];
      if (id !== undefined && span !== undefined) result.set(id, span);
    }
  }
  return result;
}

/** What the shards of a lane share. */
type Serving = {
  readonly lane: Lane;
  readonly slots: LaneSlots;
  readonly size: AdaptiveSize;
  /** How many messages of a shard to hold. */
  ahead(): number;
  /** Waits while there is no memory for more. */
  canBegin(): Promise<void> | undefined;
};

/** A shard's messages that wait for a slot, and the asking for one, while there is any. */
type Line = { readonly queue: Waiting[]; serving: Promise<void> | undefined };
