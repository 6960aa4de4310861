import type { IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import { Metadata, type Server, type ServerInterceptor, type StatusObject } from "@grpc/grpc-js";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Code, Fault } from "#src/errors.ts";
import { messageOf, statusBytes } from "../fault-details.ts";
import { callerTimeout } from "../timeout.ts";
import { unreadable } from "../to-fault.ts";

/**
 * grpc-js refuses some calls before any handler sees them: unknown methods, messages that are too large or cannot be
 * read, deadlines that passed. Those refusals carry no details and codes of its own choice. What is here gives them the
 * code, message and details they have everywhere else.
 */

type Status = Partial<StatusObject>;
export type BaseCall = { sendStatus(status: Status): void };

const DETAILS = "grpc-status-details-bin";
/** The longest time-out grpc-js can wait for; a longer one would wrap round and expire at once. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

/** For the calls of known methods. */
export const completeStatus: ServerInterceptor = (_definition, call) => {
  (call as BaseCall).sendStatus = sendComplete;
  return call as ReturnType<ServerInterceptor>;
};

function sendComplete(this: BaseCall, status: Status): void {
  const complete = status.code === 0 || status.metadata?.get(DETAILS).length ? status : statusOf(refusal(status));
  Object.getPrototypeOf(this).sendStatus.call(this, complete);
}

function refusal({ code = Code.INTERNAL, details = "" }: Status): Fault {
  if (details.startsWith("Invalid grpc-timeout"))
    return unreadable(Code.INVALID_ARGUMENT, "its time-out is not one", "grpc-timeout");
  return unreadable(code);
}

/** A fault as grpc-js sends it. */
export function statusOf(fault: Fault): StatusObject {
  const bytes = statusBytes(fault);
  const metadata = new Metadata();
  metadata.set(DETAILS, Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  return { code: fault.code, details: messageOf(fault), metadata };
}

export type OnStream = (extra: unknown, stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void;
type OnUnknown = (error: Status, stream: ServerHttp2Stream, info: unknown) => void;

/**
 * For what comes before interceptors do: unknown methods, and time-outs too long for grpc-js. It wraps two private
 * methods of grpc-js 1.14; if a later version has none of these names, nothing is changed, and a test fails.
 */
export function completeUnknown(server: Server): void {
  wrap<OnUnknown>(server, "_respondWithError", (original) => (_error, stream, info) => {
    const { details, ...status } = statusOf(new Fault(ErrorReason.UNKNOWN_METHOD));
    original({ ...status, details: encodeURI(details) }, stream, info);
  });
  wrap<OnStream>(server, "_streamHandler", (original) => (extra, stream, headers) => {
    const ms = headers["grpc-timeout"] === undefined ? undefined : callerTimeout(headers, Number.POSITIVE_INFINITY);
    if (typeof ms === "number" && ms > MAX_TIMEOUT_MS) delete headers["grpc-timeout"];
    original(extra, stream, headers);
  });
}

/** Puts a function around a private method of grpc-js, if there is one of that name. */
// biome-ignore lint/suspicious/noExplicitAny: any function has any arguments.
export function wrap<F extends (...args: any[]) => void>(
  server: Server,
  name: string,
  wrapped: (original: F) => F,
): void {
  const original: unknown = Reflect.get(server, name);
  if (typeof original === "function") Reflect.set(server, name, wrapped(original.bind(server) as F));
}
