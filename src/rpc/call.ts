import type { DescMethod, DescService, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import type { Scope } from "#gen/posthorn/v1/admin_service_pb.ts";
import type { Logger } from "#src/telemetry/logger.ts";

/** Who calls, as its credential proves. */
export type Principal =
  | { kind: "operator"; tenantId: string | undefined }
  | { kind: "key"; tenantId: string; keyId: string; scopes: ReadonlySet<Scope>; expiresAt: Date | undefined }
  | { kind: "user"; tenantId: string; userId: string; issuedAt: Date | undefined; expiresAt: Date };

/** One call, after the interceptors: authenticated, allowed, valid, with its deadline armed. */
export type Call = {
  readonly method: DescMethod;
  readonly principal: Principal;
  /** The principal's tenant. Empty only in the operator's calls that concern no tenant. */
  readonly tenantId: string;
  /** For audit and timelines: "operator", "key:<id>" or "user:<id>". */
  readonly actor: string;
  /** Aborts when the caller cancels, the deadline passes, the connection ends or the server has to close. */
  readonly signal: AbortSignal;
  /** Names this call in logs and INTERNAL errors. */
  readonly requestId: string;
  readonly log: Logger;
  /** Adds metadata to the answer, of a unary method: its name in lower case, printable ASCII. The last of a name counts. */
  answerWith(name: string, value: string): void;
};

/**
 * A response that is encoded already. Handlers of hot streams yield it so that one event for many streams is encoded
 * once; an adapter writes the bytes as they are where its protocol allows, else decodes them, once as well.
 */
export class Encoded {
  bytes: Uint8Array;
  #framed: Buffer | undefined;
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  /** As gRPC writes it (see `framed`), made once however many streams it goes to. */
  get framed(): Buffer {
    this.#framed ??= framed(this.bytes);
    return this.#framed;
  }

  /** Before it waits: a view would keep the whole packet in memory that it came in. */
  keep(): void {
    if (this.#framed !== undefined || this.bytes.byteLength === this.bytes.buffer.byteLength) return;
    this.#framed = framed(this.bytes, Buffer.allocUnsafeSlow);
    this.bytes = this.#framed.subarray(PREFIX_BYTES);
  }
}

/**
 * A response that can be had as bytes or as a message, and is made as the one that the protocol of the call takes: to build
 * a large message only to encode it costs more than to write its bytes.
 */
export class EitherWay<Message extends object = object> {
  readonly bytes: () => Uint8Array;
  readonly message: () => Message;
  constructor(bytes: () => Uint8Array, message: () => Message) {
    this.bytes = bytes;
    this.message = message;
  }
}

const PREFIX_BYTES = 5;

/** A message behind its prefix: a byte that says it is not compressed, and its length (gRPC over HTTP/2). */
export function framed(bytes: Uint8Array, allocate = Buffer.allocUnsafe): Buffer {
  const frame = allocate(PREFIX_BYTES + bytes.byteLength);
  frame[0] = 0;
  frame.writeUInt32BE(bytes.byteLength, 1);
  frame.set(bytes, PREFIX_BYTES);
  return frame;
}

/** Is told one thing, once: what comes next, or that nothing does any more, with the error if that is why. */
export type Taker = { given(answer: Encoded): void; ended(error: unknown): void };

/** Hands over without promises: ten thousand streams wait most of their time, and get one event together. */
export type EncodedAnswers = AsyncIterator<Encoded, undefined> & {
  /** What is there already. */
  take(): Encoded | undefined;
  /** When `take` had nothing. The taker may be told at once, and within the work of whoever fills the stream. */
  tellNext(taker: Taker): void;
};

/** Answers of a stream that are encoded already. */
export type EncodedStream = AsyncIterable<Encoded> & { [Symbol.asyncIterator](): EncodedAnswers };

type Unary<M extends DescMethod> = (
  request: MessageShape<M["input"]>,
  call: Call,
) => Promise<MessageInitShape<M["output"]> | EitherWay<MessageInitShape<M["output"]>>>;
type ServerStreaming<M extends DescMethod> = (
  request: MessageShape<M["input"]>,
  call: Call,
) => AsyncIterable<MessageInitShape<M["output"]> | Encoded>;
type Bidi<M extends DescMethod> = (
  requests: AsyncIterable<MessageShape<M["input"]>>,
  call: Call,
) => AsyncIterable<MessageInitShape<M["output"]> | Encoded>;

export type Handler<M extends DescMethod> = M extends { methodKind: "unary" }
  ? Unary<M>
  : M extends { methodKind: "server_streaming" }
    ? ServerStreaming<M>
    : M extends { methodKind: "bidi_streaming" }
      ? Bidi<M>
      : never;

/** The handlers of one proto service: one per method, by its generated local name. */
export type Handlers<S extends DescService> = { [K in keyof S["method"]]: Handler<S["method"][K]> };

/** A service with its handlers, as the composition root gives it to the adapters. */
export type Service = { descriptor: DescService; handlers: Record<string, Handler<DescMethod>> };

/** Pairs a service with handlers that match it. */
export function service<S extends DescService>(descriptor: S, handlers: Handlers<S>): Service {
  return { descriptor, handlers: handlers as unknown as Service["handlers"] };
}
