import type { ServerHttp2Stream } from "node:http2";
import type { ServerInterceptor } from "@grpc/grpc-js";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault } from "#src/errors.ts";
import { type BaseCall, statusOf } from "./own-errors.ts";
import type { CallWatch, Watchable } from "./watch-calls.ts";

/** The insides of a call of grpc-js 1.14. */
type Insides = BaseCall & {
  readonly stream: ServerHttp2Stream;
  readonly decoder: { maxReadMessageLength: number };
  maxReceiveMessageSize: number;
};

/** They ask with the name of a service, a file or a message. */
const MAX_REQUEST_BYTES = 4096;
/** Held at once on one connection. A client has one of each, a proxy those of several. */
const MAX_STREAMS = 10;

/**
 * Keeps health and reflection small. Whoever reaches the port may call them, with no credential and past the limits of
 * tenants, so that what they may cost is bounded here.
 */
export function limitPublicCalls(watch: CallWatch): ServerInterceptor {
  const streams = new WeakMap<object, number>();
  return ({ path, requestStream, responseStream }, call) => {
    if (!path.startsWith("/grpc.")) return call as ReturnType<ServerInterceptor>;
    const its = call as unknown as Insides;
    const { stream, decoder } = its;
    decoder.maxReadMessageLength = MAX_REQUEST_BYTES;
    its.maxReceiveMessageSize = MAX_REQUEST_BYTES;
    let refused = false;
    const watched: Watchable = {
      get ended() {
        return responseStream ? stream.writableEnded : stream.headersSent;
      },
      get refused() {
        return refused;
      },
      abort(fault) {
        refused = true;
        its.sendStatus(statusOf(fault));
      },
    };
    watch.add(stream, watched, requestStream);
    if (!responseStream) return call as ReturnType<ServerInterceptor>;

    const connection = stream.session ?? stream;
    const held = streams.get(connection) ?? 0;
    if (held >= MAX_STREAMS) watched.abort(tooMany());
    else {
      streams.set(connection, held + 1);
      stream.on("close", () => streams.set(connection, (streams.get(connection) ?? 1) - 1));
    }
    return call as ReturnType<ServerInterceptor>;
  };
}

function tooMany(): Fault {
  return new Fault(ErrorReason.TOO_MANY_STREAMS, {
    message: "The connection has too many open streams of health and reflection. Close one first.",
  });
}
