import { trace } from "@opentelemetry/api";
import { InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-node";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { StreamService } from "#gen/posthorn/v1/stream_service_pb.ts";
import type { Call } from "#src/rpc/call.ts";
import { startTracing } from "#src/telemetry/traces.ts";
import { type Caller, callers } from "./callers.ts";
import { startPorts } from "./fakes.ts";

const exporter = new InMemorySpanExporter();
const tracing = startTracing(
  { serviceName: "test", otlpEndpoint: undefined, otlpHeaders: undefined, sampleRatio: 1 },
  { processor: new SimpleSpanProcessor(exporter) },
);

let active: (string | undefined)[] = [];
const note = () => active.push(trace.getActiveSpan()?.spanContext().traceId);
let ports: Awaited<ReturnType<typeof startPorts>>;
let clients: Caller[];

beforeAll(async () => {
  ports = await startPorts({
    handlers: {
      "SendService.Send": async (_, call: Call) => {
        note();
        call.log.info("at work");
        throw new Error("broken");
      },
      "StreamService.Subscribe": async function* () {
        note();
        yield {};
        await new Promise((resolve) => setImmediate(resolve));
        note();
        yield {};
      },
    },
  });
  clients = callers(ports);
});
afterEach(() => {
  active = [];
  exporter.reset();
  ports.lines.length = 0;
});
afterAll(async () => {
  for (const client of clients) await client[Symbol.asyncDispose]();
  await ports[Symbol.asyncDispose]();
  await tracing[Symbol.asyncDispose]();
});

const traceId = "0af7651916cd43dd8448eb211c80319c";
const headers = { traceparent: `00-${traceId}-b7ad6b7169203331-01` };
const key = { authorization: "Bearer key:*" };

/** By the name of the caller; `http` is the application protocol, whatever is spoken over it. */
const CAME_BY: Record<string, object> = {
  grpc: by("2", "grpc", "grpc"),
  "connect json http/1.1": by("1.1", "connect", "connectrpc"),
  "connect binary h2": by("2", "connect", "connectrpc"),
  "grpc-web http/1.1": by("1.1", "grpc-web", "grpc"),
  "grpc over http port": by("2", "grpc-http", "grpc"),
};

function by(version: string, transport: string, system: string): object {
  return {
    "network.protocol.name": "http",
    "network.protocol.version": version,
    "posthorn.transport": transport,
    "rpc.system.name": system,
  };
}

test("a call's span continues the caller's trace, and is active in handler and log", async () => {
  expect(Object.keys(CAME_BY).sort()).toEqual(clients.map(({ name }) => name).sort());
  for (const client of clients) {
    exporter.reset();
    ports.lines.length = 0;
    active = [];
    const request = { to: { userIds: ["u1"] }, content: { title: "t" } };
    await client.call(SendService.method.send, request, { ...key, headers });
    const [span] = exporter.getFinishedSpans();
    expect(span?.spanContext().traceId).toBe(traceId);
    expect(span?.parentSpanContext?.spanId).toBe("b7ad6b7169203331");
    expect(span?.name).toBe("posthorn.v1.SendService/Send");
    expect(span?.attributes).toMatchObject({
      "rpc.method": "posthorn.v1.SendService/Send",
      "rpc.status_code": "INTERNAL",
      "error.type": "INTERNAL",
      ...CAME_BY[client.name],
    });
    expect(active).toEqual([traceId]);
    expect(ports.lines.find(({ msg }) => msg === "at work")).toMatchObject({ trace_id: traceId, actor: "key:k1" });
    expect(JSON.stringify(span?.attributes)).not.toContain("key:*");
  }
});

test("a stream's span is active whenever its handler runs", async () => {
  for (const client of clients) {
    active = [];
    await client.call(StreamService.method.subscribe, { userId: "u1" }, { ...key, headers });
    expect(active).toEqual([traceId, traceId]);
  }
});

test("a malformed traceparent begins a new trace", async () => {
  for (const client of clients) {
    exporter.reset();
    await client.call(
      StreamService.method.getPresence,
      { userIds: ["u1"] },
      { ...key, headers: { traceparent: "00-zz" } },
    );
    const [span] = exporter.getFinishedSpans();
    expect(span?.parentSpanContext).toBeUndefined();
  }
});

test("each call is one line in the log, without what it carries", async () => {
  for (const client of clients) {
    ports.lines.length = 0;
    const request = { to: { userIds: ["canary-user"] }, content: { title: "canary-title" } };
    await client.call(SendService.method.send, request, { authorization: "Bearer key:SEND" });
    const ended = ports.lines.filter(({ msg }) => msg === "call ended");
    expect(ended).toMatchObject([
      {
        level: "error",
        method: "posthorn.v1.SendService/Send",
        code: "INTERNAL",
        actor: "key:k1",
        request_id: expect.any(String),
        trace_id: expect.any(String),
        span_id: expect.any(String),
      },
    ]);
    expect(JSON.stringify(ports.lines)).not.toMatch(/canary|Bearer|key:SEND/);
  }
});
