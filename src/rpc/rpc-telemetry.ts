import { type Context, context, ROOT_CONTEXT, type Span, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import { Code, type Fault } from "#src/errors.ts";
import { ATTR } from "#src/telemetry/conventions.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { extractTrace } from "#src/telemetry/traces.ts";
import type { Arrival } from "./exchange.ts";
import { reasonName } from "./fault-details.ts";
import type { Procedure } from "./procedure.ts";

/** How a call came in. A label of metrics. */
export type Transport = "grpc" | "grpc-web" | "connect" | "grpc-http";

const codeNames = new Map<number, string>([[0, "OK"], ...Object.entries(Code).map(([k, v]) => [v, k] as const)]);

/** The span of a call that has come in, below the caller's if it sent one (W3C Trace Context; RPC conventions). */
export function startSpan(
  procedure: Procedure,
  { transport, httpVersion, header }: Arrival,
): { span: Span; context: Context } {
  const traceparent = header("traceparent");
  const parent =
    traceparent === undefined ? ROOT_CONTEXT : extractTrace({ traceparent, tracestate: header("tracestate") });
  const span = trace.getTracer("posthorn.rpc").startSpan(
    procedure.name,
    {
      kind: SpanKind.SERVER,
      attributes: {
        [ATTR.rpcSystem]: transport === "connect" ? "connectrpc" : "grpc",
        [ATTR.rpcMethod]: procedure.name,
        [ATTR.protocolName]: "http",
        [ATTR.protocolVersion]: httpVersion === "2.0" ? "2" : httpVersion,
        [ATTR.transport]: transport,
      },
    },
    parent,
  );
  return { span, context: trace.setSpan(parent, span) };
}

/** Runs a piece of a call's work with its span active, so that logs and spans of that work belong to it. */
export function within<T>(of: Context, work: () => T): T {
  return context.with(of, work);
}

/** What is known of a call when it is over. */
export type Outcome = {
  readonly procedure: Procedure;
  readonly transport: Transport;
  readonly span: Span;
  readonly milliseconds: number;
  /** Undefined: it succeeded. */
  readonly fault: Fault | undefined;
  readonly requestId: string;
  /** Undefined before authentication. */
  readonly actor: string | undefined;
  readonly tenantId: string | undefined;
};

/** Tells what became of a call: span, metrics and one line in the log. */
export type Tell = {
  began(transport: Transport): void;
  ended(outcome: Outcome): void;
};

export function rpcTelemetry(metrics: Pick<Metrics, "rpcRequests" | "rpcSeconds" | "rpcActive">, log: Logger): Tell {
  const remembered = new Map<string, { inc(): void }>();
  const requests = (transport: string, method: string, code: string) => {
    const key = `${transport} ${method} ${code}`;
    let child = remembered.get(key);
    if (child === undefined) {
      child = metrics.rpcRequests.labels({ transport, method, code });
      remembered.set(key, child);
    }
    return child;
  };
  return {
    began: (transport) => metrics.rpcActive.inc({ transport }),
    ended(outcome) {
      const { procedure, transport, span, fault, milliseconds } = outcome;
      const code = codeNames.get(fault?.code ?? 0) ?? "UNKNOWN";
      metrics.rpcActive.dec({ transport });
      requests(transport, procedure.name, code).inc();
      if (procedure.kind === "unary") metrics.rpcSeconds.observe({ method: procedure.name }, milliseconds / 1000);
      if (span.isRecording()) recordOutcome(span, code, outcome);
      span.end();
      logOutcome(log, outcome, code);
    },
  };
}

/** Server spans are errors only when the server is to blame (RPC semantic conventions). */
function recordOutcome(span: Span, code: string, { fault, tenantId }: Outcome): void {
  span.setAttribute(ATTR.rpcStatusCode, code);
  if (tenantId) span.setAttribute(ATTR.tenant, tenantId);
  if (fault === undefined) return;
  span.setAttribute(ATTR.reason, reasonName(fault));
  if (!isOurs(fault)) return;
  span.setAttribute(ATTR.errorType, code);
  span.setStatus({ code: SpanStatusCode.ERROR, message: reasonName(fault) });
}

function isOurs(fault: Fault): boolean {
  return fault.code === Code.INTERNAL || fault.code === Code.UNAVAILABLE || fault.code === Code.DEADLINE_EXCEEDED;
}

/** Only what an operator has to act on is above `debug`: callers' mistakes would otherwise let them fill the log. */
function logOutcome(log: Logger, outcome: Outcome, code: string): void {
  const { fault } = outcome;
  const level =
    fault?.code === Code.INTERNAL ? "error" : fault?.code === Code.UNAVAILABLE && fault.cause ? "warn" : "debug";
  if (!log.isLevelEnabled(level)) return;
  // The call may end outside of its own context: by its deadline, or its connection.
  context.with(trace.setSpan(ROOT_CONTEXT, outcome.span), () => log[level](callFields(outcome, code), "call ended"));
}

function callFields(outcome: Outcome, code: string): object {
  const { fault } = outcome;
  return {
    method: outcome.procedure.name,
    transport: outcome.transport,
    code,
    ms: Math.round(outcome.milliseconds * 100) / 100,
    request_id: outcome.requestId,
    ...(outcome.actor === undefined ? {} : { actor: outcome.actor }),
    ...(outcome.tenantId ? { tenant: outcome.tenantId } : {}),
    ...(fault === undefined ? {} : { reason: reasonName(fault) }),
    ...(fault?.cause === undefined ? {} : { err: fault.cause }),
  };
}
