// curl, which knows of HTTP only: Connect in JSON, and gRPC-Web by the byte. And gRPC-Web by its stock client.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { beforeAll, describe, expect, test } from "vitest";
import { BadRequestSchema, ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { SendRequestSchema, SendResponseSchema, SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { StreamService } from "#gen/posthorn/v1/stream_service_pb.ts";
import { platformOfFile } from "../support/platform.ts";
import { isOnPath } from "./toolchain.ts";

const node = await platformOfFile();
const at = (method: string) => `${node.platform.httpUrl}/posthorn.v1.${method}`;
const key = `authorization: Bearer ${node.tenant.apiKey}`;
const json = "content-type: application/json";
let token: string;
beforeAll(async () => {
  token = (await node.key.admin.createUserToken({ userId: "ada" })).token;
});

describe.skipIf(!isOnPath("curl"))("curl", () => {
  test("sends, and gets the notification by GET", async () => {
    const request = { to: { userIds: ["ada"] }, content: { title: "Hello" }, waitForDecision: "5s" };
    const sent = await curl("-H", key, "-H", json, "-d", JSON.stringify(request), at("SendService/Send"));
    expect(sent.status).toBe(200);
    const { results } = JSON.parse(sent.body.toString());
    expect(results).toMatchObject([{ userId: "ada", status: "STATUS_DELIVERED" }]);

    const query = ["connect=v1", "encoding=json", `message=${JSON.stringify({ id: results[0].notificationId })}`];
    const parts = query.flatMap((part) => ["--data-urlencode", part]);
    const got = await curl("--get", "-H", key, ...parts, at("SendService/GetNotification"));
    expect(got.status).toBe(200);
    expect(JSON.parse(got.body.toString()).notification).toMatchObject({ content: { title: "Hello" } });
  });

  test("cannot change anything by GET", async () => {
    const message = JSON.stringify({ to: { userIds: ["ada"] }, content: { title: "By a link" } });
    const parts = ["connect=v1", "encoding=json", `message=${message}`].flatMap((part) => ["--data-urlencode", part]);
    expect((await curl("--get", "-H", key, ...parts, at("SendService/Send"))).status).toBe(405);
  });

  test("reads the field and the reason of a refusal as JSON", async () => {
    const request = JSON.stringify({ to: { userIds: ["ada lovelace"] }, content: { title: "Hello" } });
    const { status, body } = await curl("-H", key, "-H", json, "-d", request, at("SendService/Send"));
    expect(status).toBe(400);
    expect(JSON.parse(body.toString())).toMatchObject({
      code: "invalid_argument",
      details: expect.arrayContaining([
        expect.objectContaining({
          type: "google.rpc.ErrorInfo",
          debug: expect.objectContaining({ reason: "INVALID_REQUEST" }),
        }),
        expect.objectContaining({
          type: "google.rpc.BadRequest",
          debug: { fieldViolations: [expect.objectContaining({ field: "to.user_ids[0]" })] },
        }),
      ]),
    });
  });

  test("follows a stream of JSON in envelopes", async () => {
    const headers = ["-H", `authorization: Bearer ${token}`, "-H", "content-type: application/connect+json"];
    const args = ["-sN", ...headers, "--data-binary", "@-", at("StreamService/Subscribe")];
    const child: ChildProcess = spawn("curl", args, { stdio: ["pipe", "pipe", "inherit"] });
    child.stdin?.end(envelope(Buffer.from("{}")));
    try {
      let titled = false;
      const kinds: string[] = [];
      for await (const message of envelopes(child.stdout as AsyncIterable<Buffer>)) {
        const event = JSON.parse(message.toString());
        kinds.push(...Object.keys(event));
        if ("caughtUp" in event) {
          await node.key.send.send({ to: { userIds: ["ada"] }, content: { title: "Hello, stream" } });
        }
        titled = event.notification?.entry.content.title === "Hello, stream";
        if (titled) break;
      }
      expect(titled).toBe(true);
      expect(kinds.slice(0, 2)).toEqual(["hello", "caughtUp"]);
    } finally {
      child.kill("SIGKILL");
    }
  });

  test("speaks gRPC-Web with a body of protobuf", async () => {
    const request = create(SendRequestSchema, { to: { userIds: ["ada"] }, content: { title: "By the byte" } });
    const answer = await curl(
      ...["-H", key, "-H", "content-type: application/grpc-web+proto", "-H", "x-grpc-web: 1"],
      ...["--data-binary", "@-", at("SendService/Send")],
      envelope(toBinary(SendRequestSchema, request)),
    );
    expect(answer.status).toBe(200);
    const [message, trailers] = await collect(envelopes([answer.body]));
    expect(fromBinary(SendResponseSchema, message ?? new Uint8Array()).results).toMatchObject([{ userId: "ada" }]);
    expect(trailers?.toString()).toMatch(/^grpc-status: ?0\r?$/m);
  });
});

describe("gRPC-Web", () => {
  const transport = createGrpcWebTransport({ baseUrl: node.platform.httpUrl });
  const sender = createClient(SendService, transport);
  const headers = { authorization: `Bearer ${node.tenant.apiKey}` };

  test("sends", async () => {
    const request = { to: { userIds: ["ada"] }, content: { title: "Hello" }, waitForDecision: { seconds: 5n } };
    const { results } = await sender.send(request, { headers });
    expect(results).toMatchObject([{ userId: "ada", status: Status.DELIVERED }]);
  });

  test("reads the field and the reason of a refusal", async () => {
    const request = { to: { userIds: ["ada lovelace"] }, content: { title: "Hello" } };
    const error = ConnectError.from(await sender.send(request, { headers }).catch((thrown: unknown) => thrown));
    expect(error.findDetails(ErrorInfoSchema)).toMatchObject([{ reason: "INVALID_REQUEST" }]);
    expect(error.findDetails(BadRequestSchema)).toMatchObject([{ fieldViolations: [{ field: "to.user_ids[0]" }] }]);
  });

  test("follows a stream, and goes on from its cursor", async () => {
    const streams = createClient(StreamService, transport);
    const titles: string[] = [];
    let cursor = "";
    for (const title of ["first", "second"]) {
      const asUser = { headers: { authorization: `Bearer ${token}` } };
      for await (const { event } of streams.subscribe({ cursor }, asUser)) {
        if (event.value && "cursor" in event.value) cursor = event.value.cursor || cursor;
        if (event.case === "caughtUp" && title === "first") {
          await node.key.send.send({ to: { userIds: ["ada"] }, content: { title } });
        }
        if (event.case === "notification" && titles.push(event.value.entry?.content?.title ?? "")) break;
      }
      if (title === "first") await node.key.send.send({ to: { userIds: ["ada"] }, content: { title: "second" } });
    }
    expect(titles).toEqual(["first", "second"]);
  });
});

/** Runs curl with these arguments, the last of which may be what it reads from standard input. */
function curl(...args: [...string[], string | Buffer]): Promise<{ status: number; body: Buffer }> {
  const input = args.at(-1);
  const words = args.filter((arg) => typeof arg === "string");
  return new Promise((resolve, reject) => {
    const options = { encoding: "buffer", maxBuffer: 1 << 24 } as const;
    const child = execFile("curl", ["-sS", "-w", "%{stderr}%{http_code}", ...words], options, (error, body, err) => {
      if (error) reject(error);
      else resolve({ status: Number(err.toString()), body });
    });
    child.stdin?.end(Buffer.isBuffer(input) ? input : undefined);
  });
}

/** The five bytes before a message: flags, and how long it is. */
function envelope(message: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

async function* envelopes(chunks: AsyncIterable<Buffer> | Iterable<Buffer>): AsyncGenerator<Buffer> {
  let rest = Buffer.alloc(0);
  for await (const chunk of chunks) {
    rest = Buffer.concat([rest, chunk]);
    for (;;) {
      const end = rest.length < 5 ? Number.POSITIVE_INFINITY : 5 + rest.readUInt32BE(1);
      if (rest.length < end) break;
      yield rest.subarray(5, end);
      rest = rest.subarray(end);
    }
  }
}

async function collect<T>(all: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of all) items.push(item);
  return items;
}
