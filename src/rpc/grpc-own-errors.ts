import type { IncomingHttpHeaders, OutgoingHttpHeaders, ServerHttp2Stream } from "node:http2";
import type { Server } from "@grpc/grpc-js";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault } from "#src/errors.ts";
import { messageOf, statusBytes } from "./fault-details.ts";
import { callerTimeout } from "./timeout.ts";
import { unreadable } from "./to-fault.ts";

type OnStream = (extra: unknown, stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void;
type Headers = OutgoingHttpHeaders | undefined;

/** The longest time-out grpc-js can wait for; a longer one would wrap round and expire at once. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;
const DETAILS = "grpc-status-details-bin";

/**
 * grpc-js refuses some calls before any handler or interceptor sees them: unknown methods, messages that are too large
 * or cannot be read, deadlines that passed. Those refusals carry no details and codes of their own choice. This gives
 * them the same code, message and details as everywhere else, where they are written to the HTTP/2 stream.
 *
 * It replaces a private method of grpc-js 1.14. If a later version has none, nothing is changed, and a test fails.
 */
export function completeOwnErrors(server: Server, paths: ReadonlySet<string>): void {
  const original: unknown = Reflect.get(server, "_streamHandler");
  if (typeof original !== "function") return;
  const onStream: OnStream = (extra, stream, headers) => {
    const path = headers[":path"] ?? "";
    const known = paths.has(path);
    // Health and reflection speak for themselves.
    if (!path.startsWith("/grpc.")) {
      normalizeTimeout(headers);
      Object.defineProperty(stream, "respond", { value: known ? respondKnown : respondUnknown });
      Object.defineProperty(stream, "sendTrailers", { value: known ? trailersKnown : trailersUnknown });
    }
    (original as OnStream).call(server, extra, stream, headers);
  };
  Reflect.set(server, "_streamHandler", onStream);
}

function respondKnown(this: ServerHttp2Stream, headers: Headers, options?: object) {
  return Object.getPrototypeOf(this).respond.call(this, complete(headers, true), options);
}
function respondUnknown(this: ServerHttp2Stream, headers: Headers, options?: object) {
  return Object.getPrototypeOf(this).respond.call(this, complete(headers, false), options);
}
function trailersKnown(this: ServerHttp2Stream, headers: Headers) {
  return Object.getPrototypeOf(this).sendTrailers.call(this, complete(headers, true));
}
function trailersUnknown(this: ServerHttp2Stream, headers: Headers) {
  return Object.getPrototypeOf(this).sendTrailers.call(this, complete(headers, false));
}

function complete(headers: Headers, known: boolean): Headers {
  const status = headers?.["grpc-status"];
  if (headers === undefined || status === undefined || Number(status) === 0 || headers[DETAILS] !== undefined)
    return headers;
  const fault = known ? unreadable(Number(status)) : new Fault(ErrorReason.UNKNOWN_METHOD);
  return {
    ...headers,
    "grpc-status": fault.code,
    "grpc-message": encodeURIComponent(messageOf(fault)),
    [DETAILS]: Buffer.from(statusBytes(fault)).toString("base64"),
  };
}

function normalizeTimeout(headers: IncomingHttpHeaders): void {
  const ms = callerTimeout(headers, Number.POSITIVE_INFINITY);
  if (typeof ms === "number" && ms > MAX_TIMEOUT_MS) delete headers["grpc-timeout"];
}
