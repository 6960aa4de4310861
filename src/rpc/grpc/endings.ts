import { constants, type ServerHttp2Stream } from "node:http2";
import type { ServerDuplexStream, ServerWritableStream } from "@grpc/grpc-js";
import type { Fault } from "#src/errors.ts";
import { statusOf } from "./own-errors.ts";

/** A streaming call of grpc-js, whatever its messages are. */
// biome-ignore lint/suspicious/noExplicitAny: it can be ended whatever it carries.
export type Writable = ServerWritableStream<any, any> | ServerDuplexStream<any, any>;

/** How long a caller has to read the end of a stream that was closed on it before the connection to it is reset. */
const LINGER_MS = 5_000;

/** Ends a stream with an error. One whose caller does not even read that is reset after a while. */
export function endWith(call: Writable, fault: Fault): void {
  if (call.destroyed) return;
  const timer = setTimeout(() => resetStream(call), LINGER_MS);
  timer.unref();
  call.once("close", () => clearTimeout(timer));
  call.once("cancelled", () => clearTimeout(timer));
  call.emit("error", statusOf(fault));
}

/** grpc-js has no way to reset a stream. */
export function resetStream(call: object): void {
  streamOf(call)?.close(constants.NGHTTP2_CANCEL);
}

/** The HTTP/2 stream below a call of grpc-js 1.14, which has no name for it. */
export function streamOf(call: object): ServerHttp2Stream | undefined {
  const inner = Reflect.get(call, "call") as { stream?: ServerHttp2Stream } | undefined;
  return inner?.stream;
}
