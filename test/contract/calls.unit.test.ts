import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AdminService } from "#gen/posthorn/v1/admin_service_pb.ts";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { InboxService } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { StreamService } from "#gen/posthorn/v1/stream_service_pb.ts";
import { Code, Fault } from "#src/errors.ts";
import { createApiLimits } from "#src/limits/api-limits.ts";
import type { Call } from "#src/rpc/call.ts";
import type { Answer } from "../rpc/callers.ts";
import { startPorts } from "../rpc/fakes.ts";
import { everyTransport, type TransportCaller } from "./transports.ts";

/** How calls end that are not simply answered: the same over every transport. */

const { send, sendBatch, sendStream } = SendService.method;
const { subscribe } = StreamService.method;
const key = { authorization: "Bearer key:*" };
const valid = { to: { userIds: ["u1"] }, content: { title: "t" } };
const large = { ...valid, content: { title: "t", body: "é".repeat(200 * 1024) } };
const PATIENTLY = { timeout: 20_000 };
const heartbeat = { event: { case: "heartbeat", value: {} } };

let ports: Awaited<ReturnType<typeof startPorts>>;
let clients: TransportCaller[];
/** What handlers have in hand and were aborted with, by the device or idempotency key of the request. */
const begun: string[] = [];
const aborted: [name: string, code: number][] = [];
/** A handler that never answers. */
const wait = (name: string, { signal }: Call) =>
  new Promise<never>(() => {
    begun.push(name);
    signal.addEventListener("abort", () => aborted.push([name, signal.reason.code]));
  });
const codesOf = (name: string) => aborted.filter(([of]) => of === name).map(([, code]) => code);

beforeAll(async () => {
  const rate = { requestsPerSecond: 1, burst: 1 };
  const none = { requestsPerSecond: 0, burst: 0 };
  const limited = createApiLimits({ perKey: rate, perTenant: none }, () => 0);
  ports = await startPorts({
    // Only keys that may nothing but this are limited, so that the other tests are not.
    limits: (principal) => (principal.kind === "key" && principal.scopes.size === 1 ? limited(principal) : undefined),
    handlers: {
      "SendService.Send": ({ idempotencyKey }, call: Call) => wait(idempotencyKey, call),
      "StreamService.Subscribe": async function* ({ deviceId }, call: Call) {
        yield heartbeat;
        yield heartbeat;
        if (deviceId === "full") throw new Fault(ErrorReason.OVERLOADED, { retryAfterMs: 2_500 });
        await wait(deviceId, call);
      },
      "SendService.SendStream": async function* (requests) {
        for await (const { chunkId } of requests) yield { chunkId };
      },
    },
  });
  clients = everyTransport(ports);
});
afterAll(async () => {
  for (const client of clients) await client[Symbol.asyncDispose]();
  await ports[Symbol.asyncDispose]();
});

/** Calls over every transport at once; all answers have to be the same. */
async function everywhere(call: (client: TransportCaller) => Promise<Answer>, among = clients): Promise<Answer> {
  const answers = await Promise.all(among.map(async (client) => ({ name: client.name, ...(await call(client)) })));
  const [first] = answers;
  for (const { name, ...answer } of answers) expect(answer, name).toEqual({ ...first, name: undefined });
  return first!;
}

test("there are all the ways to call", () => {
  expect(clients.map(({ name }) => name)).toEqual([
    "grpc",
    "grpc, connect-node",
    "grpc, HTTP port",
    "grpc-web json, HTTP/2",
    "grpc-web, HTTP/1.1",
    "connect json, HTTP/1.1",
    "connect binary, HTTP/1.1",
    "grpc-web, HTTP/2",
    "connect json, HTTP/2",
    "connect binary, HTTP/2",
    "connect json by GET, HTTP/1.1",
  ]);
});

test("the server's deadline", async () => {
  const forever = () => new Promise(() => undefined);
  const deadlines = { defaultUnaryMs: 300, maxUnaryMs: 60_000 };
  await using hasty = await startPorts({ deadlines, handlers: { "SendService.Send": forever } });
  const those = everyTransport(hasty);
  const { problem } = await everywhere((client) => client.call(send, valid, key), those);
  for (const client of those) await client[Symbol.asyncDispose]();
  expect(problem).toMatchObject({
    code: Code.DEADLINE_EXCEEDED,
    message: "The deadline passed before the answer was ready.",
    details: [{ value: { reason: "DEADLINE_EXCEEDED" } }],
  });
});

const endless = [
  ["a call", send, { ...valid, idempotencyKey: "late" }, { ...valid, idempotencyKey: "left" }],
  ["a stream", subscribe, { userId: "u1", deviceId: "late-stream" }, { userId: "u1", deviceId: "left-stream" }],
] as const;

test.each(endless)("the caller's own deadline, of %s", async (_, method, request) => {
  // Client and server both count: the words are those of whoever is first, the code is the same.
  const answers = await Promise.all(clients.map((client) => client.call(method, request, { ...key, timeoutMs: 150 })));
  expect(answers.map(({ problem }) => problem?.code)).toEqual(clients.map(() => Code.DEADLINE_EXCEEDED));
});

test.each(endless)("a caller that leaves %s", async (_, method, __, request) => {
  const name = "deviceId" in request ? request.deviceId : request.idempotencyKey;
  const leaving = new AbortController();
  const calls = clients.map((client) =>
    client.call(method, request, { ...key, signal: leaving.signal, timeoutMs: 30_000 }),
  );
  await expect.poll(() => begun.filter((each) => each === name), PATIENTLY).toHaveLength(clients.length);
  leaving.abort();
  const answers = await Promise.all(calls);
  expect(answers.map(({ problem }) => problem?.code)).toEqual(clients.map(() => Code.CANCELLED));
  await expect.poll(() => codesOf(name), PATIENTLY).toEqual(clients.map(() => Code.CANCELLED));
});

test("a stream that ends with an error after some messages", async () => {
  const { messages, problem } = await everywhere((client) =>
    client.call(subscribe, { userId: "u1", deviceId: "full" }, key),
  );
  expect(messages).toHaveLength(2);
  expect(problem).toMatchObject({
    code: Code.RESOURCE_EXHAUSTED,
    message: "The server has too much in hand. Retry later.",
    details: [{ value: { reason: "OVERLOADED" } }, { value: { retryDelay: { seconds: 2n, nanos: 500_000_000 } } }],
  });
});

test("a limit that is used up", async () => {
  // One limit for all that call: the first of them used it up.
  const scopes = { authorization: "Bearer key:INBOX" };
  const { getCounts } = InboxService.method;
  await clients[0]?.call(getCounts, { userId: "u1" }, scopes);
  const { problem } = await everywhere((client) => client.call(getCounts, { userId: "u1" }, scopes));
  expect(problem?.details.map(({ type }) => type)).toEqual([
    "google.rpc.ErrorInfo",
    "google.rpc.RetryInfo",
    "google.rpc.QuotaFailure",
  ]);
  expect(problem).toMatchObject({
    code: Code.RESOURCE_EXHAUSTED,
    details: [{ value: { reason: "API_LIMIT_EXCEEDED" } }, {}, {}],
  });
});

describe("a message that is too large", () => {
  const tooLarge = {
    code: Code.RESOURCE_EXHAUSTED,
    message: "The message is larger than the server accepts. Send less at once.",
    details: [{ value: { reason: "MESSAGE_TOO_LARGE" } }],
  };

  test("in a call", async () => {
    const { problem } = await everywhere((client) => client.call(sendBatch, { items: [large] }, key));
    expect(problem).toMatchObject(tooLarge);
  });

  test("in a stream of requests, after one that was answered", async () => {
    const chunks = [
      { chunkId: 1n, items: [valid] },
      { chunkId: 2n, items: [large] },
    ];
    const both = clients.filter(({ bidi }) => bidi);
    const { problem } = await everywhere(
      async (client) => ({ ...(await client.call(sendStream, chunks, key)), messages: [] }),
      both,
    );
    expect(problem).toMatchObject(tooLarge);
  });
});

test("an answer with nothing in it", async () => {
  const { messages } = await everywhere((client) => client.call(AdminService.method.whoAmI, {}, key));
  expect(messages).toHaveLength(1);
});
