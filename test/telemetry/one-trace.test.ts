import { randomBytes } from "node:crypto";
import { SpanKind, SpanStatusCode } from "@opentelemetry/api";
import { InMemorySpanExporter, type ReadableSpan, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-node";
import { connect } from "nats";
import { afterAll, beforeEach, expect, test } from "vitest";
import { Channel, Priority } from "#gen/posthorn/v1/notification_pb.ts";
import type { Channels } from "#src/channels/channel.ts";
import { startTracing } from "#src/telemetry/traces.ts";
import { steppedClock } from "../batches/setup.ts";
import { platformOfFile } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { openReader } from "../support/stream-reader.ts";
import { until } from "../support/until.ts";

// A trace from the caller's call on one node through the decision on another to the stream of a third.

const exporter = new InMemorySpanExporter();
const tracing = startTracing(
  { serviceName: "test", otlpEndpoint: undefined, otlpHeaders: undefined, sampleRatio: 0 },
  { processor: new SimpleSpanProcessor(exporter) },
);
const services = await testServices();
const { clock, step } = steppedClock();
const between = {
  channels: (): Channels =>
    new Map([
      [Channel.EMAIL, { deliver: async () => ({ kind: "sent" }) }],
      [Channel.SMS, { deliver: async () => ({ kind: "rejected", cause: new Error("no such number") }) }],
    ]),
};
const api = await platformOfFile({ services, roles: ["api"], between });
await platformOfFile({ services, roles: ["worker", "scheduler"], tenant: api.tenant, clock, between });
const stream = await platformOfFile({ services, roles: ["stream"], tenant: api.tenant });
const { key } = api;
const watching = stream.clients(api.tenant.apiKey);
afterAll(() => tracing[Symbol.asyncDispose]());
beforeEach(() => exporter.reset());

const newTrace = () => randomBytes(16).toString("hex");
const CALLER = "b7ad6b7169203331";
const from = (traceId: string, sampled = true) => ({
  headers: { traceparent: `00-${traceId}-${CALLER}-0${sampled ? 1 : 0}` },
});
const spansOf = (traceId: string) =>
  exporter.getFinishedSpans().filter((span) => span.spanContext().traceId === traceId);
const to = (...userIds: string[]) => ({ to: { userIds }, content: { title: "canary-title" } });

async function open(userId: string) {
  const reader = openReader(watching, { userId });
  await reader.next("caughtUp");
  return reader;
}

/** The way from the caller to the span: names, outermost first. */
function wayTo(span: ReadableSpan | undefined, spans: readonly ReadableSpan[]): string[] {
  if (span === undefined) return [];
  const parent = spans.find((each) => each.spanContext().spanId === span.parentSpanContext?.spanId);
  return [...wayTo(parent, spans), span.name];
}

const named = (spans: readonly ReadableSpan[], name: string) => spans.filter((span) => span.name === name);

async function complete(traceId: string, streamSpans = 1): Promise<ReadableSpan[]> {
  return until(
    async () => spansOf(traceId),
    (spans) =>
      named(spans, "process live.user").length >= streamSpans &&
      named(spans, SEND).length > 0 &&
      // Of a chunk in several parts it ends when the first has long been on the stream.
      spans.some(({ name }) => name.startsWith("process ingest.")),
  );
}

const SEND = "posthorn.v1.SendService/Send";
const WAY = [SEND, "accept commit", "publish ingest.high", "process ingest.high", "process live.user"];

test("a Send's trace leads through commit, queue and decision to the stream, over three nodes", async () => {
  await using reader = await open("ada");
  const traceId = newTrace();
  await key.send.send({ ...to("ada"), priority: Priority.HIGH }, from(traceId));
  await reader.next("notification");
  const spans = await complete(traceId);
  const [last] = named(spans, "process live.user");
  expect(wayTo(last, spans)).toEqual(WAY);
  expect(named(spans, SEND)[0]?.parentSpanContext?.spanId).toBe(CALLER);
  expect(WAY.map((name) => named(spans, name)[0]?.kind)).toEqual([
    SpanKind.SERVER,
    SpanKind.INTERNAL,
    SpanKind.PRODUCER,
    SpanKind.CONSUMER,
    SpanKind.CONSUMER,
  ]);
  expect(named(spans, SEND)[0]?.attributes).toMatchObject({
    "rpc.system.name": "grpc",
    "rpc.method": SEND,
    "rpc.status_code": "OK",
    "posthorn.tenant.id": api.tenant.tenantId,
  });
  expect(named(spans, "publish ingest.high")[0]?.attributes).toMatchObject({
    "messaging.system.name": "nats",
    "messaging.operation.name": "publish",
    "messaging.operation.type": "send",
    "messaging.destination.template": "ingest.high",
    "messaging.destination.name": expect.stringMatching(/\.ingest\.high\.\d+$/),
    "messaging.destination.partition.id": expect.stringMatching(/^\d+$/),
  });
  expect(named(spans, "process ingest.high")[0]?.attributes).toMatchObject({
    "messaging.operation.type": "process",
    "messaging.consumer.group.name": expect.stringMatching(/^route_\d+$/),
    "posthorn.notification.count": 1,
  });
  expect(last?.attributes).toMatchObject({ "posthorn.inbox.sequence": 1, "posthorn.streams": 1 });
  expect(JSON.stringify(spans.map(({ attributes }) => attributes))).not.toMatch(/canary|ada/);
});

test("callers that share a commit and a chunk each have a trace that is complete, and the spans they share are linked", async () => {
  const users = Array.from({ length: 60 }, (_, n) => `shared-${n}`);
  const readers = await Promise.all(users.map(open));
  const traces = users.map(newTrace);
  await Promise.all(
    users.map((user, n) => key.send.send({ ...to(user), priority: Priority.HIGH }, from(traces[n] ?? ""))),
  );
  const all = await Promise.all(traces.map((traceId) => complete(traceId)));
  for (const spans of all) {
    const way = wayTo(named(spans, "process live.user")[0], spans);
    expect(way.filter((name) => name !== "publish ingest.high")).toEqual(
      WAY.filter((name) => name !== "publish ingest.high"),
    );
  }
  // Sixty Sends at once do not get sixty commits.
  const ids = new Set(all.flat().map((span) => span.spanContext().spanId));
  for (const shared of ["accept commit", "process ingest.high"]) {
    const links = all.flatMap((spans) => named(spans, shared).flatMap((span) => span.links));
    expect(links.length).toBeGreaterThan(0);
    expect(links.every(({ context }) => ids.has(context.spanId))).toBe(true);
  }
  for (const reader of readers) await reader.close();
});

test("of a batch each chunk is one span, and a few of its notifications are followed to the stream", async () => {
  const users = Array.from({ length: 20 }, (_, n) => `batch-${n}`);
  const readers = await Promise.all(users.map(open));
  const traceId = newTrace();
  const items = Array.from({ length: 400 }, (_, n) => to(users[n % 20] ?? ""));
  await key.send.sendBatch({ items }, from(traceId));
  for (const reader of readers)
    await until(
      async () => reader.sequences().length,
      (count) => count === 20,
    );
  const spans = await until(
    async () => spansOf(traceId),
    (found) =>
      named(found, "process ingest.normal").reduce(
        (sum, span) => sum + Number(span.attributes["posthorn.notification.count"]),
        0,
      ) === 400,
  );
  const chunks = named(spans, "process ingest.normal").length;
  expect(chunks).toBeLessThan(20);
  const followed = named(spans, "process live.user").length;
  expect(followed).toBeGreaterThan(0);
  expect(followed).toBeLessThanOrEqual(10 * chunks);
  for (const reader of readers) await reader.close();
});

test("a fan-out is part of the trace of its Send", async () => {
  await key.topics.upsertTopic({ topic: { key: "news" } });
  await key.topics.addMembers({ key: "news", userIds: ["fan-1", "fan-2"] });
  await using reader = await open("fan-1");
  const traceId = newTrace();
  await key.send.send({ to: { topics: ["news"] }, content: { title: "To all" } }, from(traceId));
  await reader.next("notification");
  const spans = await complete(traceId);
  expect(wayTo(named(spans, "process live.user")[0], spans)).toEqual([
    SEND,
    "accept commit",
    "publish ingest.normal",
    "process ingest.normal",
    "publish ingest.normal",
    "process ingest.normal",
    "process live.user",
  ]);
});

test("what is not recorded leaves no span and nothing in the queue's headers", async () => {
  await using reader = await open("quiet");
  const nats = await connect({ servers: services.natsUrl });
  const seen: boolean[] = [];
  nats.subscribe(`${services.namespace}.ingest.>`, {
    callback: (_, message) => void seen.push(message.headers?.has("traceparent") ?? false),
  });
  await nats.flush();
  const traceId = newTrace();
  await key.send.send(to("quiet"), from(traceId, false));
  await key.send.send(to("quiet"));
  await reader.next("notification");
  await reader.next("notification");
  expect(seen).toEqual([false, false]);
  expect(exporter.getFinishedSpans()).toEqual([]);
  await nats.close();
});

test("a trace goes on into the hand-overs of its notification, and into a step of its escalation whenever it is taken", async () => {
  const traceId = newTrace();
  const after = { seconds: 3600n };
  const escalation = { steps: [{ channel: Channel.SMS, after }], confirmationRequired: true };
  const channels = [Channel.IN_APP, Channel.EMAIL];
  await key.send.send({ ...to("grace"), channels, escalation, priority: Priority.HIGH }, from(traceId));
  const email = await until(
    async () => named(spansOf(traceId), "send email")[0],
    (span) => span !== undefined,
  );
  expect(wayTo(email, spansOf(traceId))).toEqual([...WAY.slice(0, -1), "send email"]);
  expect(email?.kind).toBe(SpanKind.CLIENT);
  expect(email?.status.code).toBe(SpanStatusCode.UNSET);
  expect(email?.attributes).toMatchObject({
    "messaging.system.name": "email",
    "messaging.operation.name": "send",
    "messaging.operation.type": "send",
    "messaging.destination.name": "email",
    "messaging.message.id": expect.stringMatching(/^[0-9a-f-]{36}$/),
    "posthorn.escalation.step": 0,
    "posthorn.hand_over.attempt": 1,
    "posthorn.outcome": "sent",
  });
  expect(named(spansOf(traceId), "escalate")).toEqual([]);
  step(3_600_000);
  const sms = await until(
    async () => named(spansOf(traceId), "send sms")[0],
    (span) => span !== undefined,
  );
  expect(wayTo(sms, spansOf(traceId))).toEqual([...WAY.slice(0, -1), "escalate", "send sms"]);
  expect(sms?.attributes).toMatchObject({ "posthorn.escalation.step": 1, "posthorn.outcome": "refused" });
  expect(sms?.status.code).toBe(SpanStatusCode.ERROR);
  expect(JSON.stringify(spansOf(traceId).map(({ attributes }) => attributes))).not.toMatch(/canary|grace|number/);
});
