import type { Message } from "@bufbuild/protobuf";
import { createContextKey, createContextValues, type HandlerContext } from "@connectrpc/connect";
import {
  createUniversalMethodHandler,
  type ProtocolHandlerFactory,
  type UniversalHandler,
  type UniversalHandlerOptions,
} from "@connectrpc/connect/protocol";
import { createHandlerFactory as connectProtocol } from "@connectrpc/connect/protocol-connect";
import { createHandlerFactory as grpcProtocol } from "@connectrpc/connect/protocol-grpc";
import { createHandlerFactory as grpcWebProtocol } from "@connectrpc/connect/protocol-grpc-web";
import { compressionGzip } from "@connectrpc/connect-node";
import { Code } from "#src/errors.ts";
import type { Exchange } from "../exchange.ts";
import { callStream, callUnary, type Pipeline } from "../pipeline.ts";
import type { Procedure } from "../procedure.ts";
import { unreadable } from "../to-fault.ts";
import { connectErrorOf, faultOfConnect } from "./connect-errors.ts";
import type { HttpResponse } from "./dual.ts";
import { sendHead } from "./http-exchange.ts";
import type { Incoming } from "./incoming.ts";

type Spec = Parameters<ProtocolHandlerFactory>[0];

/** The exchange and the answer of the HTTP request that a handler of the library is serving. */
type Served = { readonly exchange: Exchange; readonly response: HttpResponse; readonly incoming: Incoming };
const served = createContextKey<Served | undefined>(undefined);

export function contextOf(of: Served) {
  return createContextValues().set(served, of);
}

/**
 * A handler of the Connect library for each procedure, speaking Connect, gRPC-Web and gRPC.
 *
 * Toward the library every method streams both ways, except unary ones in the Connect protocol, whose form differs. On
 * the wire that is the same, and it lets all errors of reading a request come through our iterators.
 *
 * gzip only: brotli costs seconds of CPU at the library's quality, and nothing needs it.
 */
export function connectHandlers(pipeline: Pipeline, maxReceiveBytes: number): Map<string, UniversalHandler> {
  const options: Partial<UniversalHandlerOptions> = {
    acceptCompression: [compressionGzip],
    readMaxBytes: maxReceiveBytes,
    binaryOptions: { readUnknownFields: false },
    // A misspelt filter would widen what is cancelled or cleared, so JSON that names what there is not is refused.
    jsonOptions: { ignoreUnknownFields: false },
    requestGate: admit,
  };
  const [connect, grpc, grpcWeb] = [connectProtocol(options), grpcProtocol(options), grpcWebProtocol(options)];
  return new Map(
    [...pipeline.procedures].map(([path, procedure]) => {
      const streaming = streamingSpec(procedure, pipeline);
      const protocols = [
        always(grpc, streaming),
        always(grpcWeb, streaming),
        always(connect, procedure.kind === "unary" ? unarySpec(procedure) : streaming),
      ];
      return [path, createUniversalMethodHandler(streaming, protocols)];
    }),
  );
}

function always(factory: ProtocolHandlerFactory, spec: Spec): ProtocolHandlerFactory {
  return Object.assign(() => factory(spec), { protocolName: factory.protocolName });
}

/** Runs before the body is read. */
async function admit(context: HandlerContext): Promise<void> {
  const { exchange } = servedBy(context);
  try {
    await exchange.race(exchange.admit());
  } catch (error) {
    throw connectErrorOf(exchange.fail(error));
  }
}

function unarySpec(procedure: Procedure): Spec {
  const impl = async (request: Message, context: HandlerContext) => {
    const { exchange, incoming } = servedBy(context);
    incoming.wasRead();
    try {
      const output = await exchange.race(callUnary(exchange, exchange.accept(request)));
      const message = procedure.message(output);
      exchange.succeed();
      tellHeaders(exchange, context);
      return message;
    } catch (error) {
      throw connectErrorOf(exchange.fail(error));
    }
  };
  return { kind: "unary", method: procedure.method, impl } as unknown as Spec;
}

function streamingSpec(procedure: Procedure, pipeline: Pipeline): Spec {
  const impl = async function* (requests: AsyncIterable<Message>, context: HandlerContext) {
    const { exchange, response, incoming } = servedBy(context);
    let answers: AsyncIterator<unknown> | undefined;
    try {
      const accepted = acceptEach(exchange, requests, incoming);
      const request = procedure.kind === "bidi_streaming" ? accepted : await theOnly(accepted);
      if (procedure.kind === "unary") {
        const output = procedure.message(await exchange.race(callUnary(exchange, request as Message)));
        exchange.succeed();
        tellHeaders(exchange, context);
        yield output;
        return;
      }
      pipeline.watch(exchange);
      answers = callStream(exchange, request);
      sendHead(response, context.responseHeader);
      for (;;) {
        const { done, value } = await exchange.race(answers.next());
        if (done) break;
        yield procedure.message(value);
      }
      exchange.succeed();
    } catch (error) {
      throw connectErrorOf(exchange.fail(error));
    } finally {
      answers?.return?.().catch(() => undefined);
    }
  };
  return { kind: "bidi_streaming", method: procedure.method, impl } as unknown as Spec;
}

async function* acceptEach(
  exchange: Exchange,
  requests: AsyncIterable<Message>,
  incoming: Incoming,
): AsyncGenerator<Message> {
  try {
    for await (const request of requests) {
      incoming.wasRead();
      yield exchange.accept(request);
    }
  } catch (error) {
    throw await faultOfConnect(error, incoming);
  }
}

async function theOnly(requests: AsyncGenerator<Message>): Promise<Message> {
  const first = await requests.next();
  if (first.done) throw unreadable(Code.INVALID_ARGUMENT);
  if (!(await requests.next()).done) throw unreadable(Code.INVALID_ARGUMENT);
  return first.value;
}

/** The library sends the head with the first bytes of the answer. */
function tellHeaders({ answerHeaders }: Exchange, { responseHeader }: HandlerContext): void {
  for (const [name, value] of answerHeaders ?? []) responseHeader.set(name, value);
}

function servedBy(context: HandlerContext): Served {
  const found = context.values.get(served);
  if (found === undefined) throw new Error("a call came in beside the server");
  return found;
}
