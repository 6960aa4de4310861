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
import { resourceFromAttributes } from "@opentelemetry/resources";
import {
  AlwaysOffSampler,
  BatchSpanProcessor,
  NodeTracerProvider,
  ParentBasedSampler,
  type SpanProcessor,
  TraceIdRatioBasedSampler,
} from "@opentelemetry/sdk-trace-node";
import { ATTR_SERVICE_INSTANCE_ID, ATTR_SERVICE_NAME } from "@opentelemetry/semantic-conventions";
import type { Logger } from "./logger.ts";

export interface TraceConfig {
  readonly serviceName: string;
  readonly instanceId?: string | undefined;
  /** OTLP/HTTP base URL, without `/v1/traces`. Undefined: nothing is exported. */
  readonly otlpEndpoint: string | undefined;
  /** `name=value` pairs separated by commas, values percent-encoded (OpenTelemetry OTLP exporter specification). */
  readonly otlpHeaders: string | undefined;
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
  const root = processor === undefined ? new AlwaysOffSampler() : new TraceIdRatioBasedSampler(config.sampleRatio);
  const provider = new NodeTracerProvider({
    resource: resourceFromAttributes({
      [ATTR_SERVICE_NAME]: config.serviceName,
      ...(config.instanceId === undefined ? {} : { [ATTR_SERVICE_INSTANCE_ID]: config.instanceId }),
    }),
    sampler: new ParentBasedSampler({ root }),
    // A span must not become a store of content.
    spanLimits: { attributeValueLengthLimit: 256, attributeCountLimit: 64, eventCountLimit: 32, linkCountLimit: 256 },
    spanProcessors: processor === undefined ? [] : [processor],
  });
  provider.register();
  return {
    async [Symbol.asyncDispose]() {
      const given = new AbortController();
      const patience = new Promise((done) => {
        const timer = setTimeout(done, flushMs);
        given.signal.addEventListener("abort", () => clearTimeout(timer));
      });
      await Promise.race([
        provider.shutdown().catch((err) => log?.warn({ err }, "some traces were not sent")),
        patience,
      ]);
      given.abort();
      trace.disable();
      context.disable();
      propagation.disable();
      diag.disable();
    },
  };
}

function exporting(config: TraceConfig, endpoint: string): SpanProcessor {
  const exporter = new OTLPTraceExporter({
    url: `${endpoint.replace(/\/+$/, "")}/v1/traces`,
    headers: headersOf(config.otlpHeaders ?? ""),
    timeoutMillis: 10_000,
  });
  return new BatchSpanProcessor(exporter, {
    maxQueueSize: 8_192,
    maxExportBatchSize: 512,
    scheduledDelayMillis: 1_000,
  });
}

function headersOf(pairs: string): Record<string, string> {
  const entries = pairs.split(",").map((pair) => {
    const equals = pair.indexOf("=");
    return [pair.slice(0, equals).trim(), decoded(pair.slice(equals + 1).trim())] as const;
  });
  return Object.fromEntries(entries.filter(([name]) => name !== ""));
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function diagnosticsTo(log: Logger) {
  const say = (level: "error" | "warn" | "info" | "debug") => (message: string) =>
    log[level]({ from: "opentelemetry" }, message);
  return { error: say("error"), warn: say("warn"), info: say("info"), debug: say("debug"), verbose: say("debug") };
}

/** Writes the trace of `from` (by default the active one) into `carrier` as W3C `traceparent` and `tracestate`. */
export function injectTrace<C extends Record<string, string>>(carrier: C, from: Context = context.active()): C {
  propagation.inject(from, carrier);
  return carrier;
}

/**
 * The context of the trace in `carrier`, names in lower case: pass it to `context.with` or `startSpan`. A missing or
 * malformed one gives a context without a trace.
 */
export function extractTrace(carrier: Readonly<Record<string, string | undefined>>): Context {
  return propagation.extract(ROOT_CONTEXT, carrier);
}
