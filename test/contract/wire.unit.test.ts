import { connect, type IncomingHttpHeaders } from "node:http2";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "#gen/google/rpc/status_pb.ts";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { GetCountsRequestSchema } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { SubscribeRequestSchema } from "#gen/posthorn/v1/stream_service_pb.ts";
import { Code, ERRORS, Fault } from "#src/errors.ts";
import { startPorts } from "../rpc/fakes.ts";

/** The bytes that answers and refusals are made of, as the specifications of the protocols have them. */

const MESSAGE = "Là-bas: ☃ \u{1F4EF} 100%\n";
const COUNTS = "/posthorn.v1.InboxService/GetCounts";
const SUBSCRIBE = "/posthorn.v1.StreamService/Subscribe";
const authorization = "Bearer key:*";
const count = toBinary(GetCountsRequestSchema, create(GetCountsRequestSchema, { userId: "u1" }));
const subscribe = toBinary(SubscribeRequestSchema, create(SubscribeRequestSchema, { userId: "u1" }));

let ports: Awaited<ReturnType<typeof startPorts>>;
let thrown: Fault;
beforeAll(async () => {
  ports = await startPorts({
    handlers: {
      "InboxService.GetCounts": async () => {
        throw thrown;
      },
      "StreamService.Subscribe": async function* () {
        yield { event: { case: "heartbeat", value: {} } };
        throw thrown;
      },
    },
  });
});
afterAll(() => ports[Symbol.asyncDispose]());

/** https://connectrpc.com/docs/protocol#error-codes */
const CONNECT: Readonly<Record<number, readonly [name: string, status: number]>> = {
  [Code.CANCELLED]: ["canceled", 499],
  [Code.UNKNOWN]: ["unknown", 500],
  [Code.INVALID_ARGUMENT]: ["invalid_argument", 400],
  [Code.DEADLINE_EXCEEDED]: ["deadline_exceeded", 504],
  [Code.NOT_FOUND]: ["not_found", 404],
  [Code.ALREADY_EXISTS]: ["already_exists", 409],
  [Code.PERMISSION_DENIED]: ["permission_denied", 403],
  [Code.RESOURCE_EXHAUSTED]: ["resource_exhausted", 429],
  [Code.FAILED_PRECONDITION]: ["failed_precondition", 400],
  [Code.ABORTED]: ["aborted", 409],
  [Code.OUT_OF_RANGE]: ["out_of_range", 400],
  [Code.UNIMPLEMENTED]: ["unimplemented", 501],
  [Code.INTERNAL]: ["internal", 500],
  [Code.UNAVAILABLE]: ["unavailable", 503],
  [Code.UNAUTHENTICATED]: ["unauthenticated", 401],
};
const REASONS = Object.entries(ErrorReason).filter(([, reason]) => reason !== ErrorReason.UNSPECIFIED);

type Raw = { headers: IncomingHttpHeaders; trailers: IncomingHttpHeaders; body: Buffer };

/** One request over HTTP/2 and everything that came back. */
async function post(port: number, path: string, contentType: string, body: Uint8Array): Promise<Raw> {
  const session = connect(`http://127.0.0.1:${port}`);
  try {
    const stream = session.request({
      ":method": "POST",
      ":path": path,
      "content-type": contentType,
      te: "trailers",
      authorization,
    });
    stream.end(body);
    const chunks: Buffer[] = [];
    let headers: IncomingHttpHeaders = {};
    let trailers: IncomingHttpHeaders = {};
    stream.on("response", (received) => (headers = received));
    stream.on("trailers", (received) => (trailers = received));
    for await (const chunk of stream) chunks.push(chunk);
    return { headers, trailers, body: Buffer.concat(chunks) };
  } finally {
    session.destroy();
  }
}

/** Messages behind a byte of flags and four of length, as gRPC, gRPC-Web and Connect streams have them. */
function framed(message: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

function frames(body: Buffer): { flags: number; data: Buffer }[] {
  const found = [];
  for (let at = 0; at < body.length; ) {
    const end = at + 5 + body.readUInt32BE(at + 1);
    found.push({ flags: body.readUInt8(at), data: body.subarray(at + 5, end) });
    at = end;
  }
  return found;
}

describe.each(REASONS)("%s", (name, reason) => {
  const fault = () => new Fault(reason as never, { metadata: { request_id: "r1" } });
  const { code } = ERRORS[reason as keyof typeof ERRORS];

  test("is a status of HTTP and a code in Connect, over HTTP/1.1 and HTTP/2", async () => {
    thrown = fault();
    const [connectCode, status] = CONNECT[code] ?? [];
    const headers = { "content-type": "application/json", authorization };
    const answer = await fetch(`http://127.0.0.1:${ports.http.port}${COUNTS}`, {
      method: "POST",
      headers,
      body: '{"userId":"u1"}',
    });
    expect([answer.status, answer.headers.get("content-type")]).toEqual([status, "application/json"]);
    const body = await answer.json();
    expect(body).toMatchObject({ code: connectCode, message: thrown.message });
    const raw = await post(ports.http.port, COUNTS, "application/proto", count);
    expect([raw.headers[":status"], raw.headers["content-type"]]).toEqual([status, "application/json"]);
    if (reason !== ErrorReason.INTERNAL) expect(JSON.parse(raw.body.toString())).toEqual(body);
  });

  test("is a number in the trailers of gRPC, on both ports", async () => {
    for (const { port } of [ports.grpc, ports.http]) {
      thrown = fault();
      const { headers, trailers } = await post(port, COUNTS, "application/grpc", framed(count));
      expect(headers[":status"]).toBe(200);
      expect(headers["content-type"]).toMatch(/^application\/grpc/);
      const status = { ...headers, ...trailers };
      expect([status["grpc-status"], detailsIn(String(status["grpc-status-details-bin"])).reason]).toEqual([
        `${code}`,
        name,
      ]);
    }
  });
});

/** The google.rpc.Status of a binary trailer, with what its ErrorInfo says. */
function detailsIn(base64: string) {
  const status = fromBinary(StatusSchema, Buffer.from(base64, "base64"));
  const [info] = status.details;
  const { reason, domain } = fromBinary(ErrorInfoSchema, info?.value ?? new Uint8Array());
  return { code: status.code, message: status.message, typeUrl: info?.typeUrl, reason, domain };
}

describe("a message that is not ASCII", () => {
  const inside = {
    code: Code.NOT_FOUND,
    message: MESSAGE,
    typeUrl: "type.googleapis.com/google.rpc.ErrorInfo",
    reason: "NOT_FOUND",
    domain: "posthorn",
  };
  const refuse = () => (thrown = new Fault(ErrorReason.NOT_FOUND, { message: MESSAGE }));

  test.each([
    ["a call", COUNTS, count],
    ["a stream", SUBSCRIBE, subscribe],
  ])("is percent-encoded in gRPC, and as it is in the details, at the end of %s", async (_, path, request) => {
    for (const { port } of [ports.grpc, ports.http]) {
      refuse();
      const { headers, trailers, body } = await post(port, path, "application/grpc", framed(request));
      const end = { ...headers, ...trailers };
      expect(end["grpc-message"]).toMatch(/^[\x20-\x7e]+$/);
      expect(decodeURIComponent(String(end["grpc-message"]))).toBe(MESSAGE);
      expect(String(end["grpc-message"])).toContain("100%25%0A");
      expect(detailsIn(String(end["grpc-status-details-bin"]))).toEqual(inside);
      expect(frames(body)).toHaveLength(path === SUBSCRIBE ? 1 : 0);
    }
  });

  test.each([
    ["a call", COUNTS, count],
    ["a stream", SUBSCRIBE, subscribe],
  ])("is in the last frame of gRPC-Web, at the end of %s", async (_, path, request) => {
    refuse();
    const { headers, body } = await post(ports.http.port, path, "application/grpc-web+proto", framed(request));
    expect([headers[":status"], headers["content-type"]]).toEqual([200, "application/grpc-web+proto"]);
    const last = frames(body).at(-1);
    expect(last?.flags).toBe(0x80);
    const lines = String(last?.data).trim().split("\r\n");
    const end = Object.fromEntries(lines.map((line) => [line.split(":")[0], line.slice(line.indexOf(":") + 1).trim()]));
    expect(end["grpc-status"]).toBe("5");
    expect(decodeURIComponent(end["grpc-message"] ?? "")).toBe(MESSAGE);
    expect(detailsIn(end["grpc-status-details-bin"] ?? "")).toEqual(inside);
  });

  test("is plain in Connect, and every detail can be read without its schema", async () => {
    refuse();
    const { body } = await post(ports.http.port, COUNTS, "application/json", Buffer.from('{"userId":"u1"}'));
    const problem = JSON.parse(body.toString());
    expect(problem).toEqual({
      code: "not_found",
      message: MESSAGE,
      details: [
        { type: "google.rpc.ErrorInfo", value: expect.any(String), debug: { reason: "NOT_FOUND", domain: "posthorn" } },
      ],
    });
    const [{ value }] = problem.details;
    expect(value).not.toContain("=");
    expect(fromBinary(ErrorInfoSchema, Buffer.from(value, "base64"))).toMatchObject({ reason: "NOT_FOUND" });
  });

  test("is in the last message of a Connect stream", async () => {
    refuse();
    const request = framed(Buffer.from('{"userId":"u1"}'));
    const { headers, body } = await post(ports.http.port, SUBSCRIBE, "application/connect+json", request);
    expect([headers[":status"], headers["content-type"]]).toEqual([200, "application/connect+json"]);
    const [first, last] = frames(body);
    expect([first?.flags, JSON.parse(String(first?.data))]).toEqual([0, { heartbeat: {} }]);
    expect(last?.flags).toBe(2);
    expect(JSON.parse(String(last?.data))).toEqual({
      error: {
        code: "not_found",
        message: MESSAGE,
        details: [
          {
            type: "google.rpc.ErrorInfo",
            value: expect.any(String),
            debug: { reason: "NOT_FOUND", domain: "posthorn" },
          },
        ],
      },
    });
  });
});

describe("bytes that are no request", () => {
  const nonsense = Buffer.from("ffffff", "hex");

  /** Code and reason of a refused call, whatever the protocol. */
  function refusal({ headers, trailers, body }: Raw): [code: number | undefined, reason: string, message: string] {
    const end: Record<string, unknown> = { ...headers, ...trailers };
    const last = frames(String(headers["content-type"]).includes("grpc-web") ? body : Buffer.alloc(0)).at(-1);
    for (const line of String(last?.data ?? "").split("\r\n")) end[line.split(":")[0] ?? ""] = line.split(": ")[1];
    if (end["grpc-status"] !== undefined) {
      const { code, reason, message } = detailsIn(String(end["grpc-status-details-bin"]));
      return [code, reason, message];
    }
    const streams = String(headers["content-type"]).startsWith("application/connect");
    const { code, details, message } = streams
      ? JSON.parse(String(frames(body).at(-1)?.data)).error
      : JSON.parse(body.toString());
    const number = Object.entries(CONNECT).find(([, [name]]) => name === code)?.[0];
    return [Number(number), details?.[0]?.debug?.reason, message];
  }

  describe.each([
    ["a message that is none", nonsense, framed(nonsense)],
    ["a message that is cut off", undefined, framed(count).subarray(0, 6)],
    ["no message at all", undefined, Buffer.alloc(0)],
    ["two messages", undefined, Buffer.concat([framed(count), framed(count)])],
  ])("%s", (_, bare, enveloped) => {
    test.each([
      ["a call", COUNTS],
      ["a stream", SUBSCRIBE],
    ])("is refused in the same words everywhere, for %s", async (_, path) => {
      thrown = new Fault(ErrorReason.NOT_FOUND);
      const answers = [
        await post(ports.grpc.port, path, "application/grpc", enveloped),
        await post(ports.http.port, path, "application/grpc", enveloped),
        await post(ports.http.port, path, "application/grpc-web+proto", enveloped),
      ];
      if (path === COUNTS && bare) answers.push(await post(ports.http.port, path, "application/proto", bare));
      if (path === SUBSCRIBE) answers.push(await post(ports.http.port, path, "application/connect+proto", enveloped));
      const same = [Code.INVALID_ARGUMENT, "INVALID_REQUEST", "The request cannot be read."];
      expect(answers.map(refusal)).toEqual(answers.map(() => same));
    });
  });
});
