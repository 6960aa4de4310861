/** Structured logs: one JSON object a line on standard error, or the same for people. */

import { isSpanContextValid, trace } from "@opentelemetry/api";
import { type DestinationStream, destination, type Logger as PinoLogger, pino, stdTimeFunctions } from "pino";
import { errorFields } from "./error-fields.ts";
import { prettyLine } from "./pretty.ts";
import { loggable, loggableFields, scrubbed } from "./redact.ts";

/**
 * Call it as `log.warn({ err, tenant, user, type, channels, status }, "what happened")`; `log.child({ tenant })` keeps
 * fields. Use those names: dashboards and searches rely on them. `channels` is a list, because one decision can be for
 * several. `trace_id` and `span_id` come by themselves.
 *
 * Content, contact points and credentials cannot be logged: values under such names become `[redacted]` (see
 * `isForbidden`), protobuf messages print as their type, and errors lose the values drivers put into them.
 */
export type Logger = PinoLogger;

export interface LogConfig {
  readonly serviceName: string;
  readonly logLevel: "trace" | "debug" | "info" | "warn" | "error" | "fatal" | "silent";
  readonly logFormat: "json" | "pretty";
  readonly instanceId?: string | undefined;
}

/** Writes to `to`, or to standard error: standard output belongs to the commands' own answers. */
export function createLogger(config: LogConfig, to: DestinationStream = destination({ fd: 2, sync: true })): Logger {
  const base = { service: config.serviceName, ...(config.instanceId ? { instance: config.instanceId } : {}) };
  const log = pino(
    {
      level: config.logLevel,
      base,
      timestamp: stdTimeFunctions.isoTime,
      mixin: activeTrace,
      serializers: { err: (error: unknown) => error },
      formatters: { level: (level) => ({ level }), log: loggableFields },
      hooks: {
        logMethod(args, method) {
          method.apply(this, safeArguments(args) as Parameters<typeof method>);
        },
        streamWrite: scrubbed,
      },
    },
    config.logFormat === "pretty" ? prettyTo(to) : to,
  );
  return withSafeChildren(log);
}

/** pino drops `formatters.bindings` in children, so their fields are made safe on the way in; grandchildren inherit it. */
function withSafeChildren(log: Logger): Logger {
  const { child, setBindings } = log;
  log.child = function (this: Logger, bindings: object, options?: object) {
    return child.call(this, loggableFields(bindings), options);
  } as Logger["child"];
  log.setBindings = function (this: Logger, bindings: object) {
    setBindings.call(this, loggableFields(bindings));
  };
  return log;
}

/** pino takes an error's own message when none is given, and prints whatever a format asks for: both are made safe. */
function safeArguments([first, ...rest]: readonly unknown[]): unknown[] {
  const error = first instanceof Error ? first : errorIn(first);
  const values = rest.map((value) => (value instanceof Error ? errorFields(value) : loggable(value)));
  if (error === undefined) return [typeof first === "object" ? first : loggable(first), ...values];
  const fields = first === error ? { err: error } : first;
  return [fields, ...(rest[0] === undefined ? [errorFields(error).message] : values)];
}

function errorIn(fields: unknown): Error | undefined {
  try {
    const found = typeof fields === "object" && fields !== null && "err" in fields ? fields.err : undefined;
    return found instanceof Error ? found : undefined;
  } catch {
    return undefined; // A proxy may refuse even to say what it is.
  }
}

function activeTrace(): object {
  const span = trace.getActiveSpan()?.spanContext();
  return span !== undefined && isSpanContextValid(span) ? { trace_id: span.traceId, span_id: span.spanId } : {};
}

function prettyTo(to: DestinationStream): DestinationStream {
  const colour = process.stderr.isTTY === true;
  return { write: (line) => to.write(prettyLine(line, colour)) };
}
