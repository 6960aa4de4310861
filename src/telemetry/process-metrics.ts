/** How the process itself fares. prom-client has the same, but without a way to stop it. */

import { monitorEventLoopDelay } from "node:perf_hooks";
import { Counter, Gauge, type Registry } from "prom-client";

/** Samples the event loop until disposed. The delays are those since the last scrape, so one scraper per process. */
export function startProcessMetrics(registry: Registry): Disposable {
  const registers = [registry];
  const delay = monitorEventLoopDelay({ resolution: 10 });
  delay.enable();
  new Gauge({
    name: "posthorn_event_loop_delay_seconds",
    help: "Delay of the event loop since the last scrape; the sampling itself accounts for 0.010.",
    labelNames: ["quantile"],
    registers,
    collect() {
      // NaN and the histogram's sentinel stand for no sample yet.
      const seconds = (nanoseconds: number) => (delay.count === 0 ? 0 : nanoseconds / 1e9);
      this.set({ quantile: "0.5" }, seconds(delay.percentile(50)));
      this.set({ quantile: "0.99" }, seconds(delay.percentile(99)));
      this.set({ quantile: "1" }, seconds(delay.max));
      delay.reset();
    },
  });
  new Gauge({
    name: "process_resident_memory_bytes",
    help: "Resident memory.",
    registers,
    collect() {
      this.set(process.memoryUsage.rss());
    },
  });
  new Gauge({
    name: "nodejs_heap_size_used_bytes",
    help: "JavaScript heap in use.",
    registers,
    collect() {
      this.set(process.memoryUsage().heapUsed);
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
  new Gauge({
    name: "process_uptime_seconds",
    help: "Time since the process began; a fall is a restart.",
    registers,
    collect() {
      this.set(process.uptime());
    },
  });
  return { [Symbol.dispose]: () => void delay.disable() };
}
