import {
  create,
  type DescMessage,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { Client, credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";

/** A stock gRPC client on a connection of its own to one node, which it finds again by itself when the node is back. */
export type Connection = Disposable & {
  /** @throws ServiceError */
  call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    timeoutMs?: number,
  ): Promise<MessageShape<O>>;
  /** Opens a stream; `ended` is told once, with the error or with undefined for a quiet end. */
  open<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>,
    on: { message(message: MessageShape<O>): void; ended(error: ServiceError | undefined): void },
  ): { cancel(): void };
};

/** Codes after which a client tries again, here or at another node: with the same idempotency key. */
const RETRYABLE: readonly number[] = [
  status.UNAVAILABLE,
  status.DEADLINE_EXCEEDED,
  status.RESOURCE_EXHAUSTED,
  status.ABORTED,
  status.CANCELLED,
];

export function retryable(error: unknown): boolean {
  return RETRYABLE.includes((error as ServiceError).code);
}

export function connectTo(address: string, credential: string, headers: Record<string, string> = {}): Connection {
  const client = new Client(address, credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.max_receive_message_length": 16 * 2 ** 20,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 500,
  });
  const metadata = new Metadata();
  metadata.set("authorization", `Bearer ${credential}`);
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  const path = (method: { parent: { typeName: string }; name: string }) => `/${method.parent.typeName}/${method.name}`;
  return {
    call(method, request, timeoutMs = 10_000) {
      return new Promise((resolve, reject) => {
        client.makeUnaryRequest(
          path(method),
          (message: MessageShape<typeof method.input>) => Buffer.from(toBinary(method.input, message)),
          (bytes) => fromBinary(method.output, bytes),
          create(method.input, request),
          metadata,
          { deadline: Date.now() + timeoutMs },
          (error, answer) => (error ? reject(error) : resolve(answer as MessageShape<typeof method.output>)),
        );
      });
    },
    open(method, request, on) {
      const stream = client.makeServerStreamRequest(
        path(method),
        (message: MessageShape<typeof method.input>) => Buffer.from(toBinary(method.input, message)),
        (bytes) => fromBinary(method.output, bytes),
        create(method.input, request),
        metadata,
      );
      let over = false;
      const end = (error: ServiceError | undefined) => {
        if (over) return;
        over = true;
        on.ended(error);
      };
      stream.on("data", (message: MessageShape<typeof method.output>) => {
        if (!over) on.message(message);
      });
      stream.on("error", (error) => end(error as ServiceError));
      stream.on("end", () => end(undefined));
      return { cancel: () => stream.cancel() };
    },
    [Symbol.dispose]: () => client.close(),
  };
}
