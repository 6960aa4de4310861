/** How the process itself fares. prom-client has the same, but without a way to stop it. */

import { totalmem } from "node:os";
import { type EventLoopUtilization, monitorEventLoopDelay, PerformanceObserver, performance } from "node:perf_hooks";
import { Counter, Gauge, Histogram, type Registry } from "prom-client";

/** The event loop is told of by windows of this length, so that any number of readers sees the same. */
const WINDOW_MS = 5_000;

const gcKinds: Readonly<Record<number, string>> = { 1: "minor", 4: "major", 8: "incremental", 16: "weak_callbacks" };

/** Samples until disposed. The event loop's delays are those of the last full window of `windowMs`. */
export function startProcessMetrics(registry: Registry, windowMs = WINDOW_MS): Disposable {
  const registers = [registry];
  const loop = eventLoop(registry);
  const timer = setInterval(loop.turn, windowMs).unref();
  const gc = new Histogram({
    name: "nodejs_gc_duration_seconds",
    help: "Pauses for garbage collection.",
    labelNames: ["kind"],
    buckets: [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1],
    registers,
  });
  const collections = new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      const { kind } = (entry as { detail?: { kind?: number } }).detail ?? {};
      gc.observe({ kind: gcKinds[kind ?? 0] ?? "other" }, entry.duration / 1_000);
    }
  });
  collections.observe({ entryTypes: ["gc"] });
  for (const [name, help, read] of memory)
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  new Counter({
    name: "process_cpu_seconds_total",
    help: "User and system time.",
    registers,
    collect() {
      const { user, system } = process.cpuUsage();
      this.reset();
      this.inc((user + system) / 1e6);
    },
  });
  return {
    [Symbol.dispose]() {
      clearInterval(timer);
      collections.disconnect();
      loop[Symbol.dispose]();
    },
  };
}

const memory: readonly (readonly [name: string, help: string, read: () => number])[] = [
  ["process_resident_memory_bytes", "Resident memory.", () => process.memoryUsage.rss()],
  [
    "posthorn_memory_limit_bytes",
    "What the process may use: its container's limit, else all of the machine.",
    memoryLimit,
  ],
  ["nodejs_heap_size_used_bytes", "JavaScript heap in use.", () => process.memoryUsage().heapUsed],
  ["nodejs_external_memory_bytes", "Memory of buffers, outside the heap.", () => process.memoryUsage().external],
  ["process_uptime_seconds", "Time since the process began; a fall is a restart.", () => process.uptime()],
];

/** Without a limit, control groups say none, 0, or more than there is. */
function memoryLimit(): number {
  return Math.min(process.constrainedMemory() || Number.POSITIVE_INFINITY, totalmem());
}

function eventLoop(registry: Registry): Disposable & { turn(): void } {
  const registers = [registry];
  const delay = monitorEventLoopDelay({ resolution: 10 });
  delay.enable();
  const seconds = new Gauge({
    name: "posthorn_event_loop_delay_seconds",
    help: "Delay of the event loop in the last window; the sampling itself accounts for 0.010.",
    labelNames: ["quantile"],
    registers,
  });
  const busy = new Gauge({
    name: "posthorn_event_loop_utilization",
    help: "Share of the last window in which the event loop was at work.",
    registers,
  });
  let before: EventLoopUtilization = performance.eventLoopUtilization();
  return {
    turn() {
      // NaN and the histogram's sentinel stand for no sample yet.
      const told = (nanoseconds: number) => (delay.count === 0 ? 0 : nanoseconds / 1e9);
      seconds.set({ quantile: "0.5" }, told(delay.percentile(50)));
      seconds.set({ quantile: "0.99" }, told(delay.percentile(99)));
      seconds.set({ quantile: "1" }, told(delay.max));
      delay.reset();
      const now = performance.eventLoopUtilization();
      busy.set(performance.eventLoopUtilization(now, before).utilization);
      before = now;
    },
    [Symbol.dispose]: () => void delay.disable(),
  };
}
