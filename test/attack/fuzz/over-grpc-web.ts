import { fromBinary, fromJson } from "@bufbuild/protobuf";
import { StatusSchema } from "#gen/google/rpc/status_pb.ts";
import { type Answer, broken, type Outgoing } from "./answer.ts";
import { framed } from "./over-grpc.ts";
import { readFrames } from "./read-frames.ts";

/** The frame that holds the trailers. */
const TRAILERS = 0x80;

/** gRPC-Web by hand, over fetch as in a browser. In base64 (`grpc-web-text`) it is not served. */
export async function overGrpcWeb(baseUrl: string, outgoing: Outgoing): Promise<Answer> {
  const { method, bodies, form, headers, patienceMs } = outgoing;
  const closing = new AbortController();
  const patience = setTimeout(() => closing.abort("hung"), patienceMs);
  const contentType = `application/grpc-web+${form === "json" ? "json" : "proto"}`;
  try {
    const response = await fetch(new URL(`/${method.parent.typeName}/${method.name}`, baseUrl), {
      method: "POST",
      headers: { "content-type": contentType, "x-grpc-web": "1", ...headers },
      body: Buffer.concat(bodies.map(framed)),
      signal: closing.signal,
    });
    const head = JSON.stringify(Object.fromEntries(response.headers));
    if (response.status !== 200) return broken(`HTTP status ${response.status}: ${head}`);
    const read = await readFrames(response, method, TRAILERS);
    const messages = read.messages.map((bytes) =>
      form === "json"
        ? fromJson(method.output, JSON.parse(bytes.toString()), { ignoreUnknownFields: false })
        : fromBinary(method.output, bytes),
    );
    if (read.wasLeft) return { outcome: 0, messages, status: undefined, words: head };
    // What is refused before there is an answer may be told in the head.
    const trailers = read.end === undefined ? response.headers : trailersIn(read.end);
    const words = `${head} ${JSON.stringify(Object.fromEntries(trailers))}`;
    const code = trailers.get("grpc-status");
    if (code === null) return broken(`no grpc-status: ${words}`);
    const details = trailers.get("grpc-status-details-bin");
    const status = details === null ? undefined : fromBinary(StatusSchema, Buffer.from(details, "base64"));
    return { outcome: Number(code), messages, status, words: decodeURI(words) };
  } catch (error) {
    if (closing.signal.reason === "hung") return { ...broken("no answer"), outcome: "hung" };
    return broken(`${String(error)} ${String((error as Error).cause ?? "")}`);
  } finally {
    clearTimeout(patience);
    closing.abort("done");
  }
}

/** Lines as in HTTP/1.1. */
function trailersIn(bytes: Buffer): Headers {
  const trailers = new Headers();
  for (const line of bytes.toString("latin1").split("\r\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) trailers.append(line.slice(0, colon), line.slice(colon + 1).trim());
  }
  return trailers;
}
