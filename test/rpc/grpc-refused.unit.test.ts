import { once } from "node:events";
import { type ClientHttp2Session, connect } from "node:http2";
import { create, toBinary } from "@bufbuild/protobuf";
import { afterEach, describe, expect, test } from "vitest";
import { SendStreamRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import { Code } from "#src/errors.ts";
import { startPorts } from "./fakes.ts";

// A connection lives for half an hour and carries many callers behind a proxy. What a refused call leaves on it adds up.

let disposing = new AsyncDisposableStack();
afterEach(async () => {
  await disposing.disposeAsync();
  disposing = new AsyncDisposableStack();
});

const frame = (payload: Uint8Array) => {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(payload.byteLength, 1);
  return Buffer.concat([head, payload]);
};
const items = frame(
  toBinary(
    SendStreamRequestSchema,
    create(SendStreamRequestSchema, { items: [{ content: { body: "x".repeat(9000) } }] }),
  ),
);

type Sent = { path: string; authorization?: string; headers?: object; body: Buffer };

async function post(session: ClientHttp2Session, { path, authorization, headers, body }: Sent): Promise<number> {
  const stream = session.request({
    ":method": "POST",
    ":path": `/posthorn.v1.${path}`,
    "content-type": "application/grpc",
    te: "trailers",
    ...(authorization === undefined ? {} : { authorization }),
    ...headers,
  });
  let status: unknown;
  const note = (each: { "grpc-status"?: unknown }) => {
    status = each["grpc-status"] ?? status;
  };
  stream.on("response", note);
  stream.on("trailers", note);
  stream.on("error", () => undefined);
  stream.resume();
  stream.end(body);
  await once(stream, "close");
  return Number(status);
}

describe("a refused call leaves nothing on its connection", () => {
  const key = "Bearer key:*";
  test.each<[string, Sent, number]>([
    [
      "without a credential, streaming",
      { path: "SendService/SendStream", body: Buffer.concat([items, items, items]) },
      Code.UNAUTHENTICATED,
    ],
    ["without a credential, unary", { path: "SendService/Send", body: items }, Code.UNAUTHENTICATED],
    ["without a credential, server streaming", { path: "StreamService/Subscribe", body: items }, Code.UNAUTHENTICATED],
    [
      "with two messages",
      { path: "SendService/Send", authorization: key, body: Buffer.concat([items, items]) },
      Code.INVALID_ARGUMENT,
    ],
    [
      "with an oversize message",
      { path: "SendService/Send", authorization: key, body: frame(Buffer.alloc(300_000)) },
      Code.RESOURCE_EXHAUSTED,
    ],
    [
      "with bad compression",
      { path: "SendService/Send", authorization: key, headers: { "grpc-encoding": "br" }, body: items },
      Code.INVALID_ARGUMENT,
    ],
    ["of an unknown method", { path: "SendService/None", authorization: key, body: items }, Code.UNIMPLEMENTED],
  ])("%s", async (_, sent, code) => {
    const { grpc } = disposing.use(await startPorts({ grpc: { maxConcurrentStreams: 20 } }));
    const session = connect(`http://127.0.0.1:${grpc.port}`);
    session.on("error", () => undefined);
    disposing.defer(() => session.destroy());
    // More than there may be at a time: each has to make room for the next.
    for (let call = 0; call < 60; call++) expect([call, await post(session, sent)]).toEqual([call, code]);
  });
});
