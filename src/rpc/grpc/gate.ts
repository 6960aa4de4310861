import type { IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import type { Server, ServerInterceptor } from "@grpc/grpc-js";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault } from "#src/errors.ts";
import { Exchange } from "../exchange.ts";
import type { OpenExchanges } from "../open-exchanges.ts";
import type { Pipeline } from "../pipeline.ts";
import { callerTimeout } from "../timeout.ts";
import { takingTurns } from "../turns.ts";
import { type BaseCall, type OnStream, statusOf, wrap } from "./own-errors.ts";
import type { CallWatch, Decoder } from "./watch-calls.ts";

export type Gate = {
  /** Gives calls that end before their handler runs a way to say so. */
  readonly interceptor: ServerInterceptor;
  /** The exchange of a call that was let in; undefined when grpc-js has moved what this looks at. */
  exchangeOf(call: object): Exchange | undefined;
};

const CALLS_AT_ONCE = 32;

/**
 * Lets calls in, or refuses them, before anything of their request is read: grpc-js reads a whole message before it calls a
 * handler, so that without this a message would cost memory whoever sends it.
 */
export function gateCalls(server: Server, pipeline: Pipeline, open: OpenExchanges, watch: CallWatch): Gate {
  const exchanges = new WeakMap<object, Exchange>();
  const turns = takingTurns(CALLS_AT_ONCE);

  const begin = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, goOn: () => void) => {
    const procedure = pipeline.procedures.get(headers[":path"] as string);
    // Health and reflection have limits of their own (see limitPublicCalls). The rest is answered at once.
    if (procedure === undefined || !headers["content-type"]?.startsWith("application/grpc")) return goOn();
    const exchange = new Exchange(pipeline, procedure, {
      transport: "grpc",
      httpVersion: "2.0",
      header: (name) => headers[name] as string | undefined,
      timeoutMs: callerTimeout(headers, Number.POSITIVE_INFINITY),
    });
    follow(stream, exchange);
    exchange.onAbort = (fault) => refuse(stream, fault);
    exchange.admit().then(
      () => {
        if (exchange.ended) return;
        exchanges.set(stream, exchange);
        goOn();
      },
      (error) => exchange.ended || refuse(stream, exchange.fail(error)),
    );
  };

  // Apart from `begin`, whose variables, the headers among them, would live as long as the stream otherwise.
  function follow(stream: ServerHttp2Stream, exchange: Exchange): void {
    open.add(exchange);
    watch.add(stream, exchange, exchange.procedure.kind === "bidi_streaming");
    stream.on("close", () => {
      open.delete(exchange);
      if (!exchange.ended) exchange.abort(new Fault(ErrorReason.CANCELLED));
    });
  }

  wrap<OnStream>(server, "_streamHandler", (original) => (extra, stream, headers) => {
    // grpc-js listens only once it has the call.
    stream.on("error", ignore);
    // Later: of calls that are cancelled as they come (rapid reset), only the frames are read.
    turns(stream.session ?? stream, () => {
      if (stream.closed || stream.destroyed) return;
      begin(stream, headers, () => {
        original(extra, stream, headers);
        // A request without a single byte has ended before grpc-js could hear it.
        if (stream.readableEnded) stream.emit("end");
      });
    });
  });

  return {
    interceptor: ({ requestStream }, call) => {
      const stream = Reflect.get(call, "stream") as ServerHttp2Stream;
      if (requestStream) watch.messages(stream, Reflect.get(call, "decoder") as Decoder);
      const exchange = exchanges.get(stream);
      if (exchange !== undefined) exchange.onAbort = (fault) => (call as BaseCall).sendStatus(statusOf(fault));
      return call as ReturnType<ServerInterceptor>;
    },
    exchangeOf(call) {
      const inner = Reflect.get(call, "call") as object | undefined;
      return inner && exchanges.get(Reflect.get(inner, "stream") as object);
    },
  };
}

function ignore(): void {}

/** Answers with nothing but the status. What still comes of the request goes nowhere. */
function refuse(stream: ServerHttp2Stream, fault: Fault): void {
  if (stream.destroyed || stream.headersSent) return;
  const { code, details, metadata } = statusOf(fault);
  stream.respond(
    {
      ":status": 200,
      "content-type": "application/grpc+proto",
      "grpc-status": code,
      "grpc-message": encodeURI(details),
      ...metadata.toHttp2Headers(),
    },
    { endStream: true },
  );
  stream.resume();
}
