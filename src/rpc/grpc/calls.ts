import {
  type handleBidiStreamingCall,
  type handleServerStreamingCall,
  type handleUnaryCall,
  Metadata,
  type ServerDuplexStream,
  type ServerUnaryCall,
} from "@grpc/grpc-js";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Code, Fault } from "#src/errors.ts";
import { Exchange } from "../exchange.ts";
import { beforeDecoding } from "../large.ts";
import type { OpenExchanges } from "../open-exchanges.ts";
import { type Answers, areEncoded, callStream, callUnary, type Pipeline } from "../pipeline.ts";
import type { Procedure } from "../procedure.ts";
import { room } from "../room.ts";
import { unreadable } from "../to-fault.ts";
import { endWith, resetStream, streamOf, type Writable } from "./endings.ts";
import { Forward, type Limits } from "./forward.ts";
import type { Gate } from "./gate.ts";
import { statusOf } from "./own-errors.ts";

/** Messages pass grpc-js as bytes: the pipeline decodes them after authentication, and broadcasts are encoded once. */
export type Bytes = Buffer;

type AnyCall = Pick<ServerUnaryCall<Bytes, Bytes>, "metadata" | "getDeadline"> & {
  once(event: "cancelled", listener: () => void): unknown;
};

export type GrpcCalls = {
  unary(procedure: Procedure): handleUnaryCall<Bytes, Bytes>;
  serverStreaming(procedure: Procedure): handleServerStreamingCall<Bytes, Bytes>;
  bidi(procedure: Procedure): handleBidiStreamingCall<Bytes, Bytes>;
};

/**
 * Runs calls of grpc-js through the pipeline.
 *
 * @param limits.stallMs how long a caller may leave a stream unread
 * @param limits.maxSendBytes of one message
 */
export function grpcCalls(pipeline: Pipeline, open: OpenExchanges, gate: Gate, limits: Limits): GrpcCalls {
  const begin = (procedure: Procedure, call: AnyCall): Exchange => {
    const letIn = gate.exchangeOf(call);
    if (letIn !== undefined) return letIn;
    const deadline = call.getDeadline();
    const exchange = new Exchange(pipeline, procedure, {
      transport: "grpc",
      httpVersion: "2.0",
      header: (name) => headerOf(call, name),
      timeoutMs: deadline === Number.POSITIVE_INFINITY ? undefined : Number(deadline) - Date.now(),
    });
    open.add(exchange);
    // Emitted at every end of a call; after success nobody listens any more.
    call.once("cancelled", () => {
      open.delete(exchange);
      if (!exchange.ended) exchange.abort(new Fault(ErrorReason.CANCELLED));
    });
    return exchange;
  };

  return {
    unary: (procedure) => (call, answer) => {
      const exchange = begin(procedure, call);
      if (exchange.ended) return;
      exchange.onAbort = (fault) => answer(statusOf(fault));
      answerUnary(exchange, call.request).then(
        (output) => {
          if (!exchange.succeed()) return;
          if (exchange.answerHeaders !== undefined) call.sendMetadata(metadataOf(exchange.answerHeaders));
          answer(null, output);
        },
        (error) => exchange.ended || answer(statusOf(exchange.fail(error))),
      );
    },
    serverStreaming: (procedure) => (call) => {
      const exchange = begin(procedure, call);
      void pump(exchange, call, limits, pipeline, () => exchange.accept(procedure.decode(call.request)));
    },
    bidi: (procedure) => (call) => {
      const exchange = begin(procedure, call);
      oneAtATime(call);
      void pump(exchange, call, limits, pipeline, () => requests(exchange, call));
    },
  };
}

async function answerUnary(exchange: Exchange, request: Bytes): Promise<Bytes> {
  const { procedure } = exchange;
  if (!exchange.admitted) await exchange.admit();
  const turn = beforeDecoding(request, exchange);
  if (turn !== undefined) await turn;
  if (exchange.ended) throw new Fault(ErrorReason.CANCELLED);
  const output = await callUnary(exchange, exchange.accept(procedure.decode(request)));
  return asBuffer(procedure.encode(output));
}

/**
 * Writes the handler's answers as fast as the caller reads them, and no faster. They go to the HTTP/2 stream itself: through
 * grpc-js each would wait in a second queue, and be copied into a frame of its own though one goes to ten thousand streams.
 */
async function pump(
  exchange: Exchange,
  call: Writable,
  limits: Limits,
  pipeline: Pipeline,
  request: () => unknown,
): Promise<void> {
  exchange.onAbort = (fault) => endWith(call, fault);
  let answers: Answers | undefined;
  try {
    if (!exchange.admitted) await exchange.admit();
    pipeline.watch(exchange);
    answers = callStream(exchange, request());
    const stream = streamOf(call);
    if (stream === undefined) throw new Error("grpc-js keeps its HTTP/2 stream elsewhere");
    call.sendMetadata(new Metadata());
    if (areEncoded(answers)) {
      const encoded = answers;
      answers = undefined;
      return new Forward(exchange, call, stream, encoded, limits).run();
    }
    for (;;) {
      const next = await answers.next();
      if (next.done || exchange.ended) break;
      const frame = exchange.procedure.frame(next.value);
      if (frame.byteLength > limits.maxSendBytes) throw unreadable(Code.RESOURCE_EXHAUSTED);
      if (stream.write(frame)) continue;
      if (!(await room(stream, limits.stallMs))) {
        exchange.abort(new Fault(ErrorReason.CANCELLED));
        return resetStream(call);
      }
    }
    if (exchange.succeed()) call.end();
  } catch (error) {
    if (!exchange.ended) endWith(call, exchange.fail(error));
  } finally {
    // A handler that is stuck must not keep the rest waiting.
    answers?.return?.().catch(() => undefined);
  }
}

/** The messages of a streaming request, each decoded, checked and valid. Ends by throwing when one is not. */
async function* requests(exchange: Exchange, call: ServerDuplexStream<Bytes, Bytes>): AsyncGenerator<unknown> {
  try {
    // Leaving off must not destroy the call: its status still has to be sent.
    const source = call.iterator({ destroyOnReturn: false });
    for await (const bytes of source) {
      await beforeDecoding(bytes, exchange);
      yield exchange.accept(exchange.procedure.decode(bytes));
    }
    if (endsWithinMessage(call)) throw cutOff();
  } catch (error) {
    // The transport destroys the source when the caller has gone; that is no defect.
    throw exchange.ended || isPrematureClose(error) ? new Fault(ErrorReason.CANCELLED) : error;
  }
}

/** grpc-js takes half a message at the end of a stream for a good end; its decoder knows better. */
export function endsWithinMessage(call: object): boolean {
  const inner = Reflect.get(call, "call") as { decoder?: { readState?: number } } | undefined;
  return (inner?.decoder?.readState ?? 0) !== 0;
}

export function cutOff(): Fault {
  return unreadable(Code.INVALID_ARGUMENT, "its last message is cut off");
}

function isPrematureClose(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ERR_STREAM_PREMATURE_CLOSE";
}

/** grpc-js reads 16 messages ahead, which could be 64 MiB for one slow stream of batches. One is enough. */
function oneAtATime(call: object): void {
  const state = Reflect.get(call, "_readableState") as { highWaterMark?: number } | undefined;
  if (state !== undefined) state.highWaterMark = 1;
}

function metadataOf(headers: ReadonlyMap<string, string>): Metadata {
  const metadata = new Metadata();
  for (const [name, value] of headers) metadata.set(name, value);
  return metadata;
}

function headerOf(call: AnyCall, name: string): string | undefined {
  const [value] = call.metadata.get(name);
  return typeof value === "string" ? value : undefined;
}

function asBuffer(bytes: Uint8Array): Bytes {
  return bytes instanceof Buffer ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
