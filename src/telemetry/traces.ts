/**
 * The OpenTelemetry SDK, here only: other code uses `@opentelemetry/api`, which does nothing until this is started.
 * The API's global provider is the one piece of module state in Posthorn; it is set by `startTracing` and taken down
 * when that is disposed.
 */

import {
  type Context,
  context,
  DiagLogLevel,
  diag,
  ProxyTracerProvider,
  propagation,
  ROOT_CONTEXT,
  trace,
} from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import {
  AlwaysOffSampler,
  BatchSpanProcessor,
  NodeTracerProvider,
  ParentBasedSampler,
  type SpanProcessor,
  TraceIdRatioBasedSampler,
} from "@opentelemetry/sdk-trace-node";
import type { Logger } from "./logger.ts";
import { type OtlpConfig, resourceOf, targetOf, within } from "./otlp.ts";

export interface TraceConfig extends OtlpConfig {
  /** Share of traces recorded when the caller did not decide, 0 to 1. */
  readonly sampleRatio: number;
}

/**
 * Makes spans real. With an endpoint (or `processor`, for tests) they are recorded and sent in the background, never on
 * the path of a send: when the collector is slow, spans are dropped. Without, spans only carry ids, for logs and for
 * passing the caller's trace on. Disposing sends what is left, for at most `flushMs`. Start once in a process.
 */
export function startTracing(
  config: TraceConfig,
  options: { readonly processor?: SpanProcessor; readonly log?: Logger; readonly flushMs?: number } = {},
): AsyncDisposable {
  const { log, flushMs = 2_000 } = options;
  // OpenTelemetry's API is one per process: a second platform in it (tests have several) writes to the first one's.
  const registered = trace.getTracerProvider();
  if (registered instanceof ProxyTracerProvider && registered.getDelegate() instanceof NodeTracerProvider) {
    return { [Symbol.asyncDispose]: () => Promise.resolve() };
  }
  if (log !== undefined)
    diag.setLogger(diagnosticsTo(log), { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true });
  const processor =
    options.processor ?? (config.otlpEndpoint === undefined ? undefined : exporting(config, config.otlpEndpoint));
  const sampler =
    processor === undefined
      ? new AlwaysOffSampler()
      : new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(config.sampleRatio) });
  const provider = new NodeTracerProvider({
    resource: resourceOf(config),
    sampler,
    // A span must not become a store of content.
    spanLimits: { attributeValueLengthLimit: 256, attributeCountLimit: 64, eventCountLimit: 32, linkCountLimit: 256 },
    spanProcessors: processor === undefined ? [] : [processor],
  });
  provider.register();
  return {
    async [Symbol.asyncDispose]() {
      await within(
        flushMs,
        provider.shutdown().catch((err) => log?.warn({ err }, "some traces were not sent")),
      );
      trace.disable();
      context.disable();
      propagation.disable();
      diag.disable();
    },
  };
}

function exporting(config: TraceConfig, endpoint: string): SpanProcessor {
  const exporter = new OTLPTraceExporter(targetOf(config, endpoint, "traces"));
  return new BatchSpanProcessor(exporter, {
    maxQueueSize: 8_192,
    maxExportBatchSize: 512,
    scheduledDelayMillis: 1_000,
  });
}

function diagnosticsTo(log: Logger) {
  const say = (level: "error" | "warn" | "info" | "debug") => (message: string) =>
    log[level]({ from: "opentelemetry" }, message);
  return { error: say("error"), warn: say("warn"), info: say("info"), debug: say("debug"), verbose: say("debug") };
}

/**
 * The context of the trace in `carrier`, names in lower case: pass it to `context.with` or `startSpan`. A missing or
 * malformed one gives a context without a trace.
 */
export function extractTrace(carrier: Readonly<Record<string, string | undefined>>): Context {
  return propagation.extract(ROOT_CONTEXT, carrier);
}
