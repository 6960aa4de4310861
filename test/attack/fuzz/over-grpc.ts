import { type ClientHttp2Session, constants, type IncomingHttpHeaders } from "node:http2";
import { gunzipSync } from "node:zlib";
import { fromBinary, type Message } from "@bufbuild/protobuf";
import { StatusSchema } from "#gen/google/rpc/status_pb.ts";
import { type Answer, broken, ENOUGH_MESSAGES, type Outgoing, QUIET_MS } from "./answer.ts";

/** gRPC by hand on an HTTP/2 session, so that nothing a client library knows better is in the way. */
export function overGrpc(session: ClientHttp2Session, outgoing: Outgoing): Promise<Answer> {
  const { method, bodies, headers, patienceMs } = outgoing;
  return new Promise((resolve) => {
    const stream = session.request({
      ":method": "POST",
      ":path": `/${method.parent.typeName}/${method.name}`,
      "content-type": "application/grpc",
      te: "trailers",
      ...headers,
    });
    const chunks: Buffer[] = [];
    let ends: IncomingHttpHeaders = {};
    let quiet: NodeJS.Timeout | undefined;
    const settle = (answer: Answer) => {
      clearTimeout(patience);
      clearTimeout(quiet);
      resolve(answer);
      stream.close(constants.NGHTTP2_CANCEL);
    };
    const patience = setTimeout(() => settle({ ...broken("no answer"), outcome: "hung" }), patienceMs);
    const leave = () => settle({ outcome: 0, messages: decoded(chunks, outgoing), status: undefined, words: "" });
    stream.on("error", (error) => settle(broken(String(error))));
    stream.on("response", (head) => {
      ends = { ...ends, ...head };
    });
    stream.on("trailers", (trailers) => {
      ends = { ...ends, ...trailers };
    });
    stream.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      if (method.methodKind !== "server_streaming") return;
      clearTimeout(quiet);
      quiet = setTimeout(leave, QUIET_MS);
      if (framesOf(Buffer.concat(chunks)).length >= ENOUGH_MESSAGES) leave();
    });
    stream.on("close", () => {
      try {
        settle(read(ends, chunks, outgoing));
      } catch (error) {
        settle(broken(String(error)));
      }
    });
    for (const body of bodies) stream.write(framed(body));
    stream.end();
  });
}

function read(ends: IncomingHttpHeaders, chunks: Buffer[], outgoing: Outgoing): Answer {
  const words = JSON.stringify(ends);
  const code = Number(ends["grpc-status"] ?? Number.NaN);
  if (Number.isNaN(code)) return broken(`no grpc-status: ${words}`);
  const details = ends["grpc-status-details-bin"];
  const status = typeof details === "string" ? fromBinary(StatusSchema, Buffer.from(details, "base64")) : undefined;
  return { outcome: code, messages: decoded(chunks, outgoing), status, words: decodeURI(words) };
}

function decoded(chunks: Buffer[], { method }: Outgoing): Message[] {
  return framesOf(Buffer.concat(chunks)).map(({ data }) => fromBinary(method.output, data));
}

/** A message behind its flag and length (gRPC and Connect streams alike). */
export function framed(body: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.byteLength, 1);
  return Buffer.concat([head, body]);
}

export type Frame = { flags: number; data: Buffer };

export function framesOf(bytes: Buffer): Frame[] {
  const frames: Frame[] = [];
  for (let at = 0; at + 5 <= bytes.length; ) {
    const end = at + 5 + bytes.readUInt32BE(at + 1);
    if (end > bytes.length) break;
    const flags = bytes[at] ?? 0;
    const data = bytes.subarray(at + 5, end);
    // A request that names gzip is answered in it.
    frames.push({ flags, data: (flags & 1) === 0 ? data : gunzipSync(data) });
    at = end;
  }
  return frames;
}
