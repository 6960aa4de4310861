import { context, trace } from "@opentelemetry/api";
import { DrizzleQueryError } from "drizzle-orm/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readConfig } from "#src/config.ts";
import { createLogger, type Logger } from "#src/telemetry/logger.ts";
import { isForbidden } from "#src/telemetry/redact.ts";
import { startTracing } from "#src/telemetry/traces.ts";

const canary = "Kanarienvogel-4711";

function collecting(logFormat: "json" | "pretty" = "json"): {
  log: Logger;
  lines: string[];
  last(): Record<string, unknown>;
} {
  const lines: string[] = [];
  const config = { serviceName: "posthorn", logLevel: "trace", logFormat, instanceId: "node-1" } as const;
  const log = createLogger(config, { write: (line) => void lines.push(line) });
  return { log, lines, last: () => JSON.parse(lines.at(-1) ?? "") };
}

/** What postgres.js throws when a value does not fit, as Drizzle wraps it. */
function failedQuery(): Error {
  const driver = Object.assign(new Error(`invalid input syntax for type uuid: "${canary}"`), {
    name: "PostgresError",
    severity: "ERROR",
    code: "22P02",
    detail: `Key (email)=(${canary}) already exists.`,
    where: `unnamed portal parameter $1 = '${canary}'`,
    table_name: "users",
    parameters: [canary],
    query: `select '${canary}'`,
  });
  return new DrizzleQueryError('select * from "users" where "id" = $1', [canary], driver);
}

describe("a line", () => {
  it("holds what was passed, the level, the time, the service and the instance", () => {
    const { log, last } = collecting();
    log
      .child({ tenant: "acme" })
      .warn({ user: "u1", type: "order_status", channels: ["IN_APP"], status: "HELD" }, "held");
    expect(last()).toEqual({
      level: "warn",
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
      service: "posthorn",
      instance: "node-1",
      tenant: "acme",
      user: "u1",
      type: "order_status",
      channels: ["IN_APP"],
      status: "HELD",
      msg: "held",
    });
  });

  it("names the trace and the span it was written in", async () => {
    await using _tracing = startTracing({
      serviceName: "t",
      otlpEndpoint: undefined,
      otlpHeaders: undefined,
      sampleRatio: 1,
    });
    const { log, last } = collecting();
    const span = trace.getTracer("t").startSpan("work");
    context.with(trace.setSpan(context.active(), span), () => log.info("inside"));
    expect(last()).toMatchObject({ trace_id: span.spanContext().traceId, span_id: span.spanContext().spanId });
    log.info("outside");
    expect(last()).not.toHaveProperty("trace_id");
  });
});

describe("an error", () => {
  it("keeps type, code, schema names, frames and causes", () => {
    const { log, last } = collecting();
    log.error({ err: failedQuery() }, "could not load users");
    expect(last()).toMatchObject({
      msg: "could not load users",
      err: {
        type: "DrizzleQueryError",
        message: 'Failed query: select * from "users" where "id" = $1',
        stack: expect.stringContaining("logger.unit.test.ts"),
        cause: { type: "PostgresError", code: "22P02", table: "users", message: expect.stringContaining("type uuid") },
      },
    });
  });

  it.each<[string, (log: Logger, error: Error) => void]>([
    ["as the only argument", (log, error) => log.error(error)],
    ["with a message", (log, error) => log.error(error, "failed")],
    ["as err without a message", (log, error) => log.error({ err: error })],
    ["under another name", (log, error) => log.error({ problem: { inner: [error] } }, "failed")],
    ["in a format", (log, error) => log.error("failed: %s %o", error, error)],
    ["as a cause", (log, error) => log.error({ err: new Error("outer", { cause: error }) })],
    ["in an aggregate", (log, error) => log.error(new AggregateError([error], "several"))],
    ["in a child", (log, error) => log.child({ error }).error("failed")],
  ])("never shows what the driver put into it: %s", (_name, write) => {
    for (const format of ["json", "pretty"] as const) {
      const { log, lines } = collecting(format);
      write(log, failedQuery());
      expect(lines.join()).toContain("Query");
      expect(lines.join()).not.toContain(canary);
    }
  });

  it("that cannot be read does not break the line", () => {
    const { log, last } = collecting();
    const hostile = new Error("x");
    Object.defineProperty(hostile, "message", {
      get() {
        throw new Error("no");
      },
    });
    const circular = new Error("round");
    circular.cause = circular;
    log.error({ problem: hostile, circular }, "still here");
    expect(last()).toMatchObject({ msg: "still here" });
    log.error(hostile);
    expect(last()).toHaveProperty("err");
  });
});

it("a configuration, or a part of it, can be logged", () => {
  const { log, lines } = collecting();
  const config = readConfig({ DATABASE_URL: `postgres://u:${canary}@db/x?password=${canary}`, REDIS_HOST: "cache" });
  log.info({ config, postgres: config.postgres }, "starting");
  expect(lines[0]).toContain("redis://cache:6379");
  expect(lines[0]).not.toContain(canary);
});

describe("content and credentials", () => {
  const forbidden = [
    "content", "title", "body", "text", "html", "data", "payload", "subject", "email", "phone", "authorization",
    "Authorization", "cookie", "set-cookie", "token", "userToken", "page_token", "apiKey", "api_key", "x-api-key",
    "secret", "clientSecret", "password", "idempotencyKey", "jwt", "privateKey", "credentials", "parameters",
  ]; // biome-ignore format: a list

  it.each(forbidden)("%s is never printed, wherever it is", (name) => {
    const { log, lines } = collecting();
    log.info({ [name]: canary });
    log.info({ [name]: { deep: [canary] } });
    log.info({ request: [{ inner: { [name]: canary } }], map: new Map([[name, canary]]) }, "%o", { [name]: canary });
    log
      .child({ [name]: canary })
      .child({ a: { [name]: canary } })
      .info("child");
    log.setBindings({ [name]: canary });
    log.info("bound");
    expect(lines).toHaveLength(5);
    expect(lines.join()).not.toContain(canary);
    expect(lines.join()).toContain("[redacted]");
  });

  it.each([
    "tenant",
    "user",
    "type",
    "channels",
    "status",
    "msg",
    "code",
    "method",
    "natsSubject",
    "stage",
    "count",
    "id",
  ])("%s is printed", (name) => {
    expect(isForbidden(name)).toBe(false);
  });

  it("slipped into a message is taken out", () => {
    const { log, lines } = collecting();
    const jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1In0.c2lnbmF0dXJl";
    log.info(`Bearer ${canary}-abc and ${jwt} and postgres://u:${canary}@db/x and ann.lee+x@mail.example.com`);
    expect(lines[0]).toContain("postgres://[redacted]@db/x");
    for (const leak of [canary, "c2lnbmF0dXJl", "ann.lee"]) expect(lines[0]).not.toContain(leak);
  });

  it("of a protobuf message is only its type", () => {
    const { log, last } = collecting();
    log.info({ request: { $typeName: "posthorn.v1.SendRequest", tag: canary }, bytes: new Uint8Array(3) });
    expect(last()).toMatchObject({ request: "[message posthorn.v1.SendRequest]", bytes: "[3 bytes]" });
  });
});

it("whatever is passed, one line of JSON comes out and it does not throw", () => {
  const { log, lines } = collecting();
  const write = log.info.bind(log) as (...given: unknown[]) => void;
  const anything = fc.anything({
    withBigInt: true,
    withDate: true,
    withMap: true,
    withSet: true,
    withNullPrototype: true,
  });
  fc.assert(
    fc.property(anything, fc.string(), (value, message) => {
      lines.length = 0;
      log.info({ value, nested: { value } }, message.replaceAll("%", ""));
      write(message, value);
      expect(lines).toHaveLength(2);
      for (const line of lines) {
        expect(line.indexOf("\n")).toBe(line.length - 1);
        JSON.parse(line);
      }
    }),
    { numRuns: 500 },
  );
});

it("pretty lines are for people: time, level, message, fields, causes below, and no control characters", () => {
  const { log, lines } = collecting("pretty");
  log.warn({ tenant: "acme", err: new Error("outer", { cause: new Error("inner") }) }, "two\nlines \u001b[31m");
  const [head, ...below] = (lines[0] ?? "").split("\n");
  expect(head).toMatch(/^\d\d:\d\d:\d\d\.\d{3} WARN {2}two\\u000alines \\u001b\[31m {2}tenant=acme$/);
  expect(below.filter((line) => !/^\s*at /.test(line))).toEqual(["  Error: outer", "    Error: inner", ""]);
});
