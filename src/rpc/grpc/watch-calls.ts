import { constants, type ServerHttp2Stream } from "node:http2";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault } from "#src/errors.ts";

/** What is watched of a call: an Exchange, or a call that needs none. */
export type Watchable = {
  /** Its answer is complete. */
  readonly ended: boolean;
  /** It has ended, and not well. */
  readonly refused: boolean;
  abort(fault: Fault): void;
};

/** What takes the messages of a request apart, as grpc-js 1.14 has it: `readState` is 0 between two messages. */
export type Decoder = { readonly readState: number; readonly readPartialMessage: object };

export type CallWatch = Disposable & {
  /** Until the stream closes. A request that is one message has to come whole; `streaming`: see `messages`. */
  add(stream: ServerHttp2Stream, call: Watchable, streaming: boolean): void;
  /** From now on each message of the request has to come whole. */
  messages(stream: ServerHttp2Stream, decoder: Decoder): void;
};

type Watched = {
  readonly call: Watchable;
  readonly streaming: boolean;
  decoder: Decoder | undefined;
  /** The message of a stream that is coming; grpc-js makes a list for the parts of each. */
  message: object | undefined;
  /** When what has to come began to. */
  since: number;
  endedAt: number | undefined;
};

const LOOK_EVERY_MS = 1_000;
/** How long a caller has to take a refusal before the stream is reset. */
const LINGER_MS = 5_000;

/**
 * Ends calls of which a message stays unfinished, or the answer untaken, for `requestTimeoutMs`: both are memory. One
 * timer looks at all of them, so that a call or a message costs nothing more.
 */
export function watchCalls(requestTimeoutMs: number): CallWatch {
  const watched = new Map<ServerHttp2Stream, Watched>();

  const look = () => {
    const now = performance.now();
    for (const [stream, each] of watched) {
      const { call } = each;
      if (call.ended) {
        each.endedAt ??= now;
        if (now - each.endedAt > (call.refused ? LINGER_MS : requestTimeoutMs)) stream.close(constants.NGHTTP2_CANCEL);
        continue;
      }
      if (each.streaming) lookForMessage(stream, each, now);
      if (now - each.since > requestTimeoutMs && !stream.readableEnded)
        call.abort(new Fault(ErrorReason.DEADLINE_EXCEEDED));
    }
  };
  const timer = setInterval(look, LOOK_EVERY_MS);
  timer.unref();
  // One for all: a closure of each stream's own would live as long as the stream.
  function onClose(this: ServerHttp2Stream): void {
    watched.delete(this);
  }

  return {
    add(stream, call, streaming) {
      const since = performance.now();
      watched.set(stream, { call, streaming, decoder: undefined, message: undefined, since, endedAt: undefined });
      stream.on("close", onClose);
    },
    messages(stream, decoder) {
      const each = watched.get(stream);
      if (each !== undefined) each.decoder = decoder;
    },
    [Symbol.dispose]: () => clearInterval(timer),
  };
}

/** A new message has its time before it. So has one that we do not read on: the rest of it cannot come. */
function lookForMessage(stream: ServerHttp2Stream, each: Watched, now: number): void {
  const { decoder } = each;
  const coming = decoder !== undefined && decoder.readState !== 0 && !stream.isPaused();
  const message = coming ? decoder.readPartialMessage : undefined;
  if (message !== undefined && message === each.message) return;
  each.message = message;
  each.since = now;
}
