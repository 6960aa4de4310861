import { create, toBinary } from "@bufbuild/protobuf";
import { afterEach, describe, expect, test, vi } from "vitest";
import { InboxService } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { StreamService, SubscribeResponseSchema } from "#gen/posthorn/v1/stream_service_pb.ts";
import { Code } from "#src/errors.ts";
import { type Call, Encoded } from "#src/rpc/call.ts";
import { type Caller, callers, reasonOf } from "./callers.ts";
import { type Overrides, startPorts } from "./fakes.ts";

/** Deadlines, cancellation, streams: the same on every protocol. */

const { send, sendStream } = SendService.method;
const { subscribe } = StreamService.method;
const key = { authorization: "Bearer key:*" };
const valid = { to: { userIds: ["u1"] }, content: { title: "t" } };
const heartbeat = (headSequence = 1n) => ({ event: { case: "heartbeat", value: { headSequence } } });

const cleanUp = new AsyncDisposableStack();
let disposing = cleanUp;
afterEach(async () => {
  await disposing.disposeAsync();
  disposing = new AsyncDisposableStack();
});

async function start(overrides: Overrides = {}) {
  const ports = disposing.use(await startPorts(overrides));
  const clients = callers(ports);
  for (const client of clients) disposing.use(client);
  return { ports, clients };
}

const PROTOCOLS = ["grpc", "connect json http/1.1", "connect binary h2", "grpc-web http/1.1", "grpc over http port"];
const named = (clients: Caller[], name: string) => clients.find((each) => each.name === name)!;

describe.each(PROTOCOLS)("by %s", (protocol) => {
  test("a handler sees its caller and the valid request", async () => {
    let seen: { request: unknown; call: Call } | undefined;
    const { clients } = await start({
      handlers: {
        "InboxService.GetCounts": async (request, call) => {
          seen = { request, call };
          return { counts: { unread: 7 } };
        },
      },
    });
    const answer = await named(clients, protocol).call(
      InboxService.method.getCounts,
      { userId: "u1" },
      { authorization: "Bearer user:u1" },
    );
    expect(answer.messages).toMatchObject([{ counts: { unread: 7 } }]);
    expect(seen?.request).toMatchObject({ userId: "u1" });
    expect(seen?.call).toMatchObject({ tenantId: expect.stringMatching(/^0189/), actor: "user:u1" });
    expect(seen?.call.signal.aborted).toBe(false);
  });

  test("a deadline ends the call for the caller and for the handler", async () => {
    const aborted = Promise.withResolvers<unknown>();
    const { clients, ports } = await start({
      handlers: {
        "SendService.Send": (_, call: Call) =>
          new Promise(() => call.signal.addEventListener("abort", () => aborted.resolve(call.signal.reason))),
      },
    });
    const answer = await named(clients, protocol).call(send, valid, { ...key, timeoutMs: 150 });
    expect(answer.problem?.code).toBe(Code.DEADLINE_EXCEEDED);
    expect(await aborted.promise).toMatchObject({ code: expect.any(Number) });
    await vi.waitFor(async () => expect(await ports.registry.metrics()).toMatch(/rpc_active\{[^}]*\} 0/));
  });

  test("the server's own deadline ends a call whose caller set none", async () => {
    const { clients } = await start({
      deadlines: { defaultUnaryMs: 100, maxUnaryMs: 200 },
      handlers: { "SendService.Send": () => new Promise(() => undefined) },
    });
    const client = named(clients, protocol);
    const answer = await client.call(send, valid, key);
    expect([answer.problem?.code, reasonOf(answer)]).toEqual([Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"]);
    const longer = await client.call(send, valid, { ...key, timeoutMs: 60_000 });
    expect([longer.problem?.code, reasonOf(longer)]).toEqual([Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"]);
  });

  test("a caller that leaves a stream ends its handler", async () => {
    const aborted = Promise.withResolvers<number>();
    const finished = Promise.withResolvers<void>();
    const { clients } = await start({
      handlers: {
        "StreamService.Subscribe": async function* (_, call: Call) {
          call.signal.addEventListener("abort", () => aborted.resolve(call.signal.reason.code));
          try {
            yield heartbeat();
            await aborted.promise;
          } finally {
            finished.resolve();
          }
        },
      },
    });
    const leave = new AbortController();
    const answer = await named(clients, protocol).call(
      subscribe,
      { userId: "u1" },
      { ...key, signal: leave.signal, onMessage: () => leave.abort() },
    );
    expect(answer.messages).toHaveLength(1);
    expect(answer.problem?.code).toBe(Code.CANCELLED);
    expect(await aborted.promise).toBe(Code.CANCELLED);
    await finished.promise;
  });

  test("encoded answers arrive as the message they are", async () => {
    const bytes = toBinary(SubscribeResponseSchema, create(SubscribeResponseSchema, heartbeat(42n) as never));
    const { clients } = await start({
      handlers: {
        "StreamService.Subscribe": async function* () {
          yield new Encoded(bytes);
          yield heartbeat(43n);
        },
      },
    });
    const { messages, problem } = await named(clients, protocol).call(subscribe, { userId: "u1" }, key);
    expect(problem).toBeUndefined();
    expect(messages).toMatchObject([
      { event: { case: "heartbeat", value: { headSequence: 42n } } },
      { event: { case: "heartbeat", value: { headSequence: 43n } } },
    ]);
  });

  test("a stream ends when its credential is revoked or expires", async () => {
    let good = true;
    const endless = async function* () {
      yield heartbeat();
      await new Promise(() => undefined);
    };
    const { clients } = await start({
      handlers: { "StreamService.Subscribe": endless },
      stillValid: async () => good,
      authenticate: async (authorization) => ({
        kind: "user",
        tenantId: "t1",
        userId: "u1",
        issuedAt: undefined,
        expiresAt: new Date(Date.now() + (authorization === "short" ? 300 : 60_000)),
      }),
    });
    const client = named(clients, protocol);
    const expired = await client.call(subscribe, {}, { authorization: "short" });
    expect([expired.problem?.code, reasonOf(expired)]).toEqual([Code.UNAUTHENTICATED, "CREDENTIAL_EXPIRED"]);
    const revoked = await client.call(subscribe, {}, { authorization: "long", onMessage: () => (good = false) });
    expect([revoked.problem?.code, reasonOf(revoked)]).toEqual([Code.UNAUTHENTICATED, "CREDENTIAL_INVALID"]);
  });

  test("a slow reader slows the handler down", async () => {
    if (protocol === "grpc-web http/1.1" || protocol === "connect json http/1.1") return; // Kernel buffers decide there.
    let made = 0;
    const big = {
      announcement: undefined,
      event: { case: "announcement", value: { category: "x".repeat(64 * 1024) } },
    };
    const { clients } = await start({
      handlers: {
        "StreamService.Subscribe": async function* (_, call: Call) {
          while (!call.signal.aborted && made < 2_000) {
            made++;
            yield big;
          }
        },
      },
    });
    const leave = new AbortController();
    const blocked = Promise.withResolvers<void>();
    const call = named(clients, protocol).call(
      subscribe,
      { userId: "u1" },
      {
        ...key,
        signal: leave.signal,
        onMessage: () => {
          // The client's event loop is this one: it must give the server time while it does not read.
          leave.abort();
          blocked.resolve();
        },
      },
    );
    await blocked.promise;
    await call;
    expect(made).toBeLessThan(500);
  });

  test("requests that stream are answered one by one", async () => {
    if (protocol.endsWith("http/1.1")) return;
    const { clients } = await start({
      handlers: {
        "SendService.SendStream": async function* (requests) {
          for await (const { chunkId } of requests) yield { chunkId };
        },
      },
    });
    const chunks = Array.from({ length: 100 }, (_, i) => ({ chunkId: BigInt(i), items: [valid] }));
    const { messages, problem } = await named(clients, protocol).call(sendStream, chunks, key);
    expect(problem).toBeUndefined();
    expect(messages.map((each) => Reflect.get(each, "chunkId"))).toEqual(chunks.map(({ chunkId }) => chunkId));
  });

  test("a limit is told before the request is looked at", async () => {
    const { createApiLimits } = await import("#src/limits/api-limits.ts");
    const rate = { requestsPerSecond: 1, burst: 2 };
    const { clients } = await start({
      limits: createApiLimits({ perKey: rate, perTenant: { requestsPerSecond: 0, burst: 0 } }, () => 0),
    });
    const client = named(clients, protocol);
    await client.call(send, valid, key);
    await client.call(send, valid, key);
    const third = await client.call(send, { type: "not valid !" }, key);
    expect([third.problem?.code, reasonOf(third)]).toEqual([Code.RESOURCE_EXHAUSTED, "API_LIMIT_EXCEEDED"]);
    expect(third.problem?.details.map(({ type }) => type)).toEqual([
      "google.rpc.ErrorInfo",
      "google.rpc.RetryInfo",
      "google.rpc.QuotaFailure",
    ]);
  });

  test("a message over the limit is refused, and the connection goes on", async () => {
    const { clients } = await start();
    const client = named(clients, protocol);
    const large = { ...valid, content: { title: "t", body: "x".repeat(300 * 1024) } };
    const answer = await client.call(send, large, key);
    expect([answer.problem?.code, reasonOf(answer)]).toEqual([Code.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE"]);
    expect((await client.call(send, valid, key)).problem).toBeUndefined();
  });

  test("drain lets calls finish, and tells those that do not", async () => {
    const begun = Promise.withResolvers<void>();
    const go = Promise.withResolvers<void>();
    const { clients, ports } = await start({
      handlers: {
        "SendService.Send": async () => {
          begun.resolve();
          await go.promise;
          return {};
        },
        "StreamService.Subscribe": async function* () {
          yield heartbeat();
          await new Promise(() => undefined);
        },
      },
    });
    const client = named(clients, protocol);
    const open = Promise.withResolvers<void>();
    const stream = client.call(subscribe, { userId: "u1" }, { ...key, onMessage: () => open.resolve() });
    const slow = client.call(send, valid, key);
    await Promise.all([begun.promise, open.promise]);
    const drained = Promise.all([ports.grpc.drain(300), ports.http.drain(300)]);
    go.resolve();
    expect((await slow).problem).toBeUndefined();
    const ended = await stream;
    expect([ended.problem?.code, reasonOf(ended)]).toEqual([Code.UNAVAILABLE, "SHUTTING_DOWN"]);
    await drained;
  });
});

test("a port starts and stops many times, with streams open", async () => {
  for (let i = 0; i < 30; i++) {
    const ports = await startPorts({
      handlers: {
        "StreamService.Subscribe": async function* () {
          yield heartbeat();
          await new Promise(() => undefined);
        },
      },
    });
    const clients = callers(ports);
    const open = clients.map((client) => {
      const first = Promise.withResolvers<void>();
      const done = client.call(subscribe, { userId: "u1" }, { ...key, onMessage: () => first.resolve() });
      return { first: first.promise, done };
    });
    await Promise.all(open.map(({ first }) => first));
    await ports[Symbol.asyncDispose]();
    for (const { done } of open) expect((await done).problem?.code).toBe(Code.UNAVAILABLE);
    for (const client of clients) await client[Symbol.asyncDispose]();
  }
}, 60_000);
