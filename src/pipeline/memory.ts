import { heapLimitBytes, type MemorySource } from "#src/telemetry/live-memory.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";

// When memory runs short, work that can wait stays where it is safe: on JetStream and in Postgres. Nothing is dropped.
//
//   none   work goes on
//   tight  the most of what work may take is taken: pieces of work become smaller
//   over   no work that can wait is begun, and Sends that would have to wait for their commit are refused; CRITICAL goes on

export type Pressure = "none" | "tight" | "over";

/** Bytes that are alive, and what is known about them. */
export type Held = {
  readonly live: number;
  /** What was there without any work in hand: no shedding would free it. */
  readonly floor: number;
  readonly threshold: number;
};

/** Of the room for work, where it becomes tight. */
const TIGHT = 0.8;
/** Of the threshold, what work may take in a process that is full of other things: less, and it would stand still for ever. */
const LEAST_ROOM = 0.25;

/** Alive in a process that does nothing: its code, above all. */
export const PROCESS_BYTES = 56 * 2 ** 20;
/** Of the heap limit, what may be alive: nearer to it, V8 does little but collect garbage. */
const HEAP_SHARE = 0.75;

/** What may be alive in this process, of what is wished for. */
export function thresholdOf(wishedMb: number): number {
  return Math.min(wishedMb * 2 ** 20, heapLimitBytes() * HEAP_SHARE);
}

/** Above this, work waits. */
export function limitOf({ floor, threshold }: Omit<Held, "live">): number {
  return Math.max(threshold, floor + threshold * LEAST_ROOM);
}

export function pressureOf({ live, floor, threshold }: Held): Pressure {
  const share = (live - floor) / (limitOf({ floor, threshold }) - floor);
  if (share < TIGHT) return "none";
  return share < 1 ? "tight" : "over";
}

/** What is known after a full collection. `idle`: what it left, if no work was in hand. */
export type Learned = { readonly live: number; readonly floor: number; readonly idle: number | undefined };

/** So little less that what is left does not depend on the work that was done. */
const STILL = 0.95;

/**
 * Takes in what a full collection left. What two of them leave one after the other without work in hand, the second hardly
 * less than the first, is not the work's: it is the floor. And never more than what is there.
 */
export function learn(before: Learned, live: number, isIdle: boolean): Learned {
  const isFloor = isIdle && before.idle !== undefined && live >= before.idle * STILL;
  return { live, floor: isFloor ? live : Math.min(before.floor, live), idle: isIdle ? live : undefined };
}

export type MemoryGuard = Disposable & {
  pressure(): Pressure;
  /** Resolves when work that can wait may begin: at once unless memory is over, and when the signal aborts. */
  room(signal: AbortSignal): Promise<void>;
  /** Has `isHolding` asked at each collection: whether there is work that can wait in hand. */
  holder(isHolding: () => boolean): void;
};

export type MemoryGuardDeps = {
  watch: MemorySource;
  thresholdBytes: number;
  /** What is held by other things than work, as far as that is known. */
  besideBytes(): number;
  metrics: Pick<Metrics, "memoryLive" | "memoryThreshold" | "memoryPressureSeconds">;
  log: Logger;
};

const LOOK_MS = 1000;
/** Between collections that are asked for while there is work in hand, which keeps what they are to free. */
const COLLECT_MS = 5000;

/**
 * Watches what is alive after each full collection of garbage, which V8 does by itself as the heap grows: no other figure
 * says how much the process needs. The heap in use goes up and down by all the garbage in it, and what is resident does not
 * fall when something is let go.
 *
 * Over the limit hardly anything is allocated any more, so that V8 sees no reason to collect: then this asks for it, as soon
 * as no work is in hand and every few seconds till then. Should memory still be over when nothing is left to be freed, it is
 * not the work's: the limit moves up, and the work goes on beside it.
 */
export function startMemoryGuard(deps: MemoryGuardDeps, lookMs = LOOK_MS): MemoryGuard {
  const { metrics, log, thresholdBytes: threshold } = deps;
  let learned: Learned = { live: 0, floor: 0, idle: undefined };
  let pressure: Pressure = "none";
  const holders: (() => boolean)[] = [];
  let lookedAt = performance.now();
  let collectedAt = lookedAt;
  const waiting = new Set<() => void>();

  const isIdle = () => !holders.some((isHolding) => isHolding());
  const floorNow = () => Math.min(learned.live, Math.max(learned.floor, deps.besideBytes()));
  function judge(): void {
    const before = pressure;
    const floor = floorNow();
    const limit = limitOf({ floor, threshold });
    pressure = pressureOf({ live: learned.live, floor, threshold });
    metrics.memoryLive.set(learned.live);
    metrics.memoryThreshold.set(limit);
    if (pressure === before) return;
    const fields = { liveMb: inMb(learned.live), limitMb: inMb(limit), pressure };
    if (pressure === "over") log.warn(fields, "memory is short: work that can wait stays on the queue");
    else if (before === "over") log.info(fields, "memory is free again: work goes on");
    if (pressure !== "over") for (const go of waiting) go();
  }

  const source = deps.watch((live) => {
    collectedAt = performance.now();
    learned = learn(learned, live, isIdle());
    judge();
  });
  const timer = setInterval(() => {
    const now = performance.now();
    const seconds = (now - lookedAt) / 1000;
    lookedAt = now;
    if (pressure !== "none") metrics.memoryPressureSeconds.inc({ kind: pressure }, seconds);
    if (pressure === "over" && (isIdle() || now - collectedAt >= COLLECT_MS)) source.collect();
  }, lookMs).unref();
  for (const kind of ["tight", "over"] as const) metrics.memoryPressureSeconds.inc({ kind }, 0);
  judge();

  return {
    pressure: () => pressure,
    room(signal) {
      if (pressure !== "over" || signal.aborted) return Promise.resolve();
      return new Promise((resolve) => {
        const go = () => {
          waiting.delete(go);
          signal.removeEventListener("abort", go);
          resolve();
        };
        waiting.add(go);
        signal.addEventListener("abort", go, { once: true });
      });
    },
    holder: (isHolding) => void holders.push(isHolding),
    [Symbol.dispose]() {
      clearInterval(timer);
      source[Symbol.dispose]();
      for (const go of waiting) go();
    },
  };
}

function inMb(bytes: number): number {
  return Math.round(bytes / 2 ** 20);
}
