import { createServer } from "node:net";
import { create } from "@bufbuild/protobuf";
import postgres from "postgres";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ErrorInfo } from "#gen/google/rpc/error_details_pb.ts";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { CancelNotificationsRequestSchema, SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { StreamService } from "#gen/posthorn/v1/stream_service_pb.ts";
import { NotificationTypeSchema } from "#gen/posthorn/v1/type_service_pb.ts";
import { Code, Fault, invalidField, invalidRequest } from "#src/errors.ts";
import { isDependencyDown } from "#src/rpc/dependency-errors.ts";
import { createViolations } from "#src/rpc/validate.ts";
import { checkDefinition, definitionOf } from "#src/types/type.ts";
import { everyTransport, type TransportCaller } from "../contract/transports.ts";
import { type Answer, reasonOf } from "./callers.ts";
import { startPorts } from "./fakes.ts";

let thrown: () => unknown = () => undefined;
const fail = () => {
  const error = thrown();
  if (error !== undefined) throw error;
};

let ports: Awaited<ReturnType<typeof startPorts>>;
let clients: TransportCaller[];

beforeAll(async () => {
  ports = await startPorts({
    handlers: {
      "SendService.Send": async () => {
        fail();
        return {};
      },
      "SendService.SendStream": async function* (requests) {
        for await (const { chunkId } of requests) yield { chunkId };
      },
      "StreamService.Subscribe": async function* () {
        yield { event: { case: "heartbeat", value: {} } };
        fail();
      },
    },
  });
  clients = everyTransport(ports);
});
afterAll(async () => {
  for (const client of clients) await client[Symbol.asyncDispose]();
  await ports[Symbol.asyncDispose]();
});

const { send } = SendService.method;
const { subscribe } = StreamService.method;
const key = { authorization: "Bearer key:*" };
const valid = { to: { userIds: ["u1"] }, content: { title: "t" } };

const problems: Record<string, () => unknown> = {
  "a refused field": () => invalidField("content.title", "is too long"),
  "many refused fields": () =>
    new Fault(ErrorReason.INVALID_REQUEST, {
      fields: Array.from({ length: 500 }, (_, i) => ({ field: `items[${i}]`, description: "x".repeat(1_000) })),
    }),
  "an exhausted limit": () =>
    new Fault(ErrorReason.API_LIMIT_EXCEEDED, {
      retryAfterMs: 1_500,
      metadata: { limit: "10", usage: "10", window: "1s" },
      quota: [{ subject: "key:k1", description: "10 calls per 1s" }],
    }),
  "a missing resource": () => new Fault(ErrorReason.NOT_FOUND, { metadata: { resource: "type" } }),
  "a message cut inside a surrogate pair": () => new Fault(ErrorReason.NOT_FOUND, { message: "😀".slice(0, 1) }),
  "an endless message": () => new Fault(ErrorReason.NOT_FOUND, { message: "é%\n".repeat(100_000) }),
  "a dependency that is away": () => Object.assign(new Error("connect"), { code: "ECONNREFUSED" }),
};

describe.each(Object.keys(problems))("%s", (name) => {
  test.each([
    ["unary", send, valid],
    ["streaming", subscribe, { userId: "u1" }],
  ] as const)("is the same on every protocol, %s", async (_, method, request) => {
    thrown = problems[name]!;
    const answers = await Promise.all(clients.map((client) => client.call(method, request, key)));
    const [first] = answers;
    expect(first?.problem?.details.length).toBeGreaterThan(0);
    for (const answer of answers) expect(answer.problem).toEqual(first?.problem);
    if (method === subscribe) for (const { messages } of answers) expect(messages).toHaveLength(1);
  });
});

test("a Fault's code, message and details come out as they went in", async () => {
  thrown = problems["an exhausted limit"]!;
  for (const client of clients) {
    const { problem } = await client.call(send, valid, key);
    expect(problem).toMatchObject({
      code: Code.RESOURCE_EXHAUSTED,
      message: "The request limit is used up.",
      details: [
        {
          type: "google.rpc.ErrorInfo",
          value: { reason: "API_LIMIT_EXCEEDED", domain: "posthorn", metadata: { limit: "10", window: "1s" } },
        },
        { type: "google.rpc.RetryInfo", value: { retryDelay: { seconds: 1n, nanos: 500_000_000 } } },
        { type: "google.rpc.QuotaFailure", value: { violations: [{ subject: "key:k1" }] } },
      ],
    });
  }
});

test("a defect is INTERNAL with the request id, and its cause only in the log", async () => {
  thrown = () => Object.assign(new Error('duplicate key in "canary"'), { query: "select canary from secrets" });
  for (const client of clients)
    for (const [method, request] of [
      [send, valid],
      [subscribe, { userId: "u1" }],
    ] as const) {
      ports.lines.length = 0;
      const { problem } = await client.call(method, request, key);
      expect(problem?.code).toBe(Code.INTERNAL);
      expect(JSON.stringify(problem, (_, v) => (typeof v === "bigint" ? String(v) : v))).not.toMatch(
        /canary|select|at /,
      );
      const info = problem?.details[0]?.value as unknown as ErrorInfo;
      const line = ports.lines.find((each) => each.request_id === info.metadata.request_id);
      expect(line).toMatchObject({ level: "error", reason: "INTERNAL", err: { stack: expect.any(String) } });
    }
});

test("violations of the contract name their fields, on every message of a stream too", async () => {
  thrown = () => undefined;
  const broken = { ...valid, tags: ["a b"], type: "1" };
  for (const client of clients) {
    const { problem } = await client.call(send, broken, key);
    expect(problem?.message).toMatch(/^type: does not match .* \(and 1 more\)$/);
    expect(problem?.details[1]).toMatchObject({
      type: "google.rpc.BadRequest",
      value: { fieldViolations: [{ field: "type" }, { field: "tags[0]" }] },
    });
  }
  for (const client of clients.filter(({ bidi }) => bidi)) {
    const chunks = [{ chunkId: 1n, items: [valid] }, { chunkId: 2n }];
    const answer = await client.call(SendService.method.sendStream, chunks, key);
    expect(answer.messages).toMatchObject([{ chunkId: 1n }]);
    expect(answer.problem?.message).toMatch(/^items: must contain at least 1 item/);
    expect(answer.problem?.code).toBe(Code.INVALID_ARGUMENT);
  }
});

test("an empty request and an empty answer are messages", async () => {
  thrown = () => undefined;
  const { whoAmI } = (await import("#gen/posthorn/v1/admin_service_pb.ts")).AdminService.method;
  for (const client of clients) expect((await client.call(whoAmI, {}, key)).messages).toHaveLength(1);
});

test("numbers that JSON does not have are refused", async () => {
  thrown = () => undefined;
  for (const client of clients.filter(({ name }) => !name.includes("json"))) {
    const answer: Answer = await client.call(
      send,
      { ...valid, content: { title: "t", data: { deep: [{ n: Number.POSITIVE_INFINITY }] } } },
      key,
    );
    expect([answer.problem?.code, reasonOf(answer)]).toEqual([Code.INVALID_ARGUMENT, "INVALID_REQUEST"]);
    expect(answer.problem?.message).toBe("content.data: numbers must be finite");
  }
});

test("a real driver that finds nobody is a dependency that is away", async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  const sql = postgres({ host: "127.0.0.1", port, max: 1, connect_timeout: 2 });
  const error = await sql`select 1`.catch((each) => each);
  await sql.end({ timeout: 1 });
  expect(isDependencyDown(error)).toBe(true);
  expect(isDependencyDown(new Error("query failed", { cause: error }))).toBe(true);
  expect(isDependencyDown(Object.assign(new Error("x"), { severity: "ERROR", code: "23505" }))).toBe(false);
  expect(isDependencyDown(Object.assign(new Error("x"), { severity: "ERROR", code: "57014" }))).toBe(true);
  expect(isDependencyDown(new TypeError("x is not a function"))).toBe(false);
});

test("a rule about a whole request names the fields it weighs", () => {
  const both = create(CancelNotificationsRequestSchema, { ids: [crypto.randomUUID()], filter: { userId: "u1" } });
  for (const request of [both, create(CancelNotificationsRequestSchema)]) {
    const fields = createViolations()(CancelNotificationsRequestSchema, request);
    expect(fields.map(({ field }) => field)).toEqual(["ids", "filter"]);
    expect(invalidRequest(fields).message).toBe("ids: give either ids or a filter, not both (and 1 more)");
  }
});

test("a refusal that the contract's rules cannot say names its field in the message too", () => {
  const definition = { ...definitionOf(create(NotificationTypeSchema, { key: "k" })), description: "\0" };
  expect(() => checkDefinition(definition)).toThrow(/^type\.description: must not hold U\+0000/);
});
