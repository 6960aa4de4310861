import { Registry } from "prom-client";
import type { Clock } from "#src/clock.ts";
import { type Exposition, exposition } from "./exposition.ts";
import type { Logger } from "./logger.ts";
import { createMetrics, type Metrics } from "./metrics.ts";
import { startMetricsExport } from "./metrics-export.ts";
import { startProcessMetrics } from "./process-metrics.ts";
import { startTracing, type TraceConfig } from "./traces.ts";

export type TelemetryConfig = TraceConfig & {
  /** How often metrics are pushed; 0: not. */
  readonly otlpMetricsIntervalMs: number;
};

/** Metrics and traces of one process. Disposing sends what is left to the collector. */
export type Telemetry = AsyncDisposable & { readonly metrics: Metrics; readonly expose: Exposition };

export function startTelemetry(config: TelemetryConfig, clock: Clock, log: Logger): Telemetry {
  const stack = new AsyncDisposableStack();
  const registry = new Registry();
  const metrics = createMetrics(registry);
  stack.use(startProcessMetrics(registry));
  stack.use(startTracing(config, { log }));
  stack.use(startMetricsExport(registry, config, { clock, log }));
  return { metrics, expose: exposition(registry), [Symbol.asyncDispose]: () => stack.disposeAsync() };
}
