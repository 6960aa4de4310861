import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { context, propagation, type Span, trace } from "@opentelemetry/api";
import { InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { extractTrace, startTracing } from "#src/telemetry/traces.ts";

const quiet = { serviceName: "t", instanceId: "i", otlpEndpoint: undefined, otlpHeaders: undefined, sampleRatio: 1 };
const caller = { traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", tracestate: "vendor=x" };
const begin = (name: string, parent = context.active()): Span => trace.getTracer("t").startSpan(name, {}, parent);
const injected = (from = context.active()) => {
  const carrier: Record<string, string> = {};
  propagation.inject(from, carrier);
  return carrier;
};

describe("propagation", () => {
  it("a trace goes through a carrier of strings and comes out as the parent", async () => {
    const exporter = new InMemorySpanExporter();
    await using _tracing = startTracing(quiet, { processor: new SimpleSpanProcessor(exporter) });
    const sender = begin("send", extractTrace(caller));
    const carrier = injected(trace.setSpan(context.active(), sender));
    const receiver = begin("receive", extractTrace(carrier));
    receiver.end();
    sender.end();
    expect(carrier).toEqual({
      traceparent: `00-0af7651916cd43dd8448eb211c80319c-${sender.spanContext().spanId}-01`,
      tracestate: "vendor=x",
    });
    const [received] = exporter.getFinishedSpans();
    expect(received?.parentSpanContext?.spanId).toBe(sender.spanContext().spanId);
    expect(received?.resource.attributes).toMatchObject({ "service.name": "t", "service.instance.id": "i" });
  });

  it("the active span survives awaits and is what inject writes", async () => {
    await using _tracing = startTracing(quiet);
    const span = begin("work");
    await context.with(trace.setSpan(context.active(), span), async () => {
      await Promise.resolve();
      expect(injected().traceparent).toContain(span.spanContext().spanId);
    });
  });

  it("anything in a carrier is taken, and only a trace context becomes one", async () => {
    await using _tracing = startTracing(quiet);
    fc.assert(
      fc.property(fc.dictionary(fc.constantFrom("traceparent", "tracestate", "baggage"), fc.string()), (carrier) => {
        expect(trace.getSpanContext(extractTrace(carrier))).toBeUndefined();
      }),
    );
  });
});

describe("sampling", () => {
  it("the caller's decision is kept, whatever the ratio", async () => {
    const exporter = new InMemorySpanExporter();
    await using _tracing = startTracing({ ...quiet, sampleRatio: 0 }, { processor: new SimpleSpanProcessor(exporter) });
    begin("sampled", extractTrace(caller)).end();
    begin("not sampled", extractTrace({ traceparent: caller.traceparent.replace(/1$/, "0") })).end();
    begin("own").end();
    expect(exporter.getFinishedSpans().map(({ name }) => name)).toEqual(["sampled"]);
  });

  it("without an endpoint spans are not recorded but have ids", async () => {
    await using _tracing = startTracing(quiet);
    const span = begin("work");
    expect(span.isRecording()).toBe(false);
    expect(trace.isSpanContextValid(span.spanContext())).toBe(true);
  });
});

describe("export", () => {
  it("what is left is sent when tracing stops, to the endpoint's path with its headers", async () => {
    const requests: { url: string | undefined; key: unknown; body: string }[] = [];
    await using collector = await collecting(async (request) => {
      let body = "";
      for await (const piece of request) body += piece;
      requests.push({ url: request.url, key: request.headers["x-key"], body });
    });
    {
      await using _tracing = startTracing({
        ...quiet,
        otlpEndpoint: `${collector.url}/`,
        otlpHeaders: "x-key=a%20b, y=z",
      });
      begin("last words").end();
    }
    expect(requests).toHaveLength(1);
    expect(requests[0]).toMatchObject({ url: "/v1/traces", key: "a b", body: expect.stringContaining("last words") });
  });

  it("a collector that never answers holds the shutdown no longer than allowed", async () => {
    await using collector = await collecting(() => new Promise(() => {}));
    const tracing = startTracing({ ...quiet, otlpEndpoint: collector.url }, { flushMs: 50 });
    begin("lost").end();
    const began = performance.now();
    await tracing[Symbol.asyncDispose]();
    expect(performance.now() - began).toBeLessThan(1_500);
  });
});

it("while the collector is stuck, spans beyond a bound are dropped and nobody waits", async () => {
  const released = Promise.withResolvers<void>();
  let received = 0;
  await using collector = await collecting(async (request) => {
    await released.promise;
    let body = "";
    for await (const piece of request) body += piece;
    received += body.split('"name":"flood"').length - 1;
  });
  {
    await using _tracing = startTracing({ ...quiet, otlpEndpoint: collector.url }, { flushMs: 10_000 });
    for (let n = 0; n < 30_000; n++) {
      begin("flood").end();
      if (n % 1_000 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    released.resolve();
  }
  expect(received).toBeGreaterThan(1_000);
  expect(received).toBeLessThan(12_000);
});

it("starts and stops over and over, and leaves nothing behind", async () => {
  for (let round = 0; round < 200; round++) {
    await using _tracing = startTracing(quiet);
    expect(trace.isSpanContextValid(begin("work").spanContext())).toBe(true);
  }
  expect(trace.isSpanContextValid(begin("work").spanContext())).toBe(false);
});

async function collecting(
  take: (request: IncomingMessage) => Promise<void>,
): Promise<AsyncDisposable & { url: string }> {
  const server = createServer(async (request, response) => {
    await take(request);
    response.setHeader("content-type", "application/json").end("{}");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}
