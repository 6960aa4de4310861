import {
  create,
  type DescMethod,
  type DescMethodStreaming,
  type DescMethodUnary,
  fromBinary,
  type Message,
  toBinary,
} from "@bufbuild/protobuf";
import { ConnectError, createContextValues, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { Client, type ClientReadableStream, credentials, Metadata, type ServiceError } from "@grpc/grpc-js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  QuotaFailureSchema,
  RetryInfoSchema,
} from "#gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "#gen/google/rpc/status_pb.ts";

/** The fields of a request; a list of them for methods that stream requests. */
export type Request = Record<string, unknown> | readonly Record<string, unknown>[];

export type Problem = { code: number; message: string; details: { type: string; value: Message }[] };
export type Answer = { messages: Message[]; problem: Problem | undefined };

export type Options = {
  authorization?: string;
  headers?: Record<string, string>;
  signal?: AbortSignal;
  timeoutMs?: number;
  onMessage?: (message: Message) => void;
};

/** A stock client of one protocol that can call any method. */
export type Caller = AsyncDisposable & {
  name: string;
  call(method: DescMethod, request: Request, options?: Options): Promise<Answer>;
};

const DETAILS = [BadRequestSchema, ErrorInfoSchema, QuotaFailureSchema, RetryInfoSchema];

function detailOf(type: string, bytes: Uint8Array): { type: string; value: Message } {
  const schema = DETAILS.find((each) => each.typeName === type);
  if (schema === undefined) throw new Error(`unexpected detail ${type}`);
  return { type, value: fromBinary(schema, bytes) };
}

export function callers(ports: { grpc: { port: number }; http: { port: number } }): Caller[] {
  const baseUrl = `http://127.0.0.1:${ports.http.port}`;
  return [
    grpcCaller(ports.grpc.port),
    transportCaller("connect json http/1.1", createConnectTransport({ baseUrl, httpVersion: "1.1" })),
    transportCaller(
      "connect binary h2",
      createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: true, useHttpGet: true }),
    ),
    transportCaller("grpc-web http/1.1", createGrpcWebTransport({ baseUrl, httpVersion: "1.1" })),
    transportCaller("grpc over http port", createGrpcTransport({ baseUrl })),
  ];
}

export function transportCaller(name: string, transport: Transport): Caller {
  return {
    name,
    async call(method, request, options = {}) {
      const header = new Headers(options.headers);
      if (options.authorization !== undefined) header.set("authorization", options.authorization);
      const messages: Message[] = [];
      try {
        const values = createContextValues();
        if (method.methodKind === "unary") {
          const one = create(method.input, asOne(request));
          const { message } = await transport.unary(
            method as DescMethodUnary,
            options.signal,
            options.timeoutMs,
            header,
            one,
            values,
          );
          messages.push(message);
        } else {
          const inputs = asList(request).map((each) => create(method.input, each));
          const input = (async function* () {
            yield* inputs;
          })();
          const { message } = await transport.stream(
            method as DescMethodStreaming,
            options.signal,
            options.timeoutMs,
            header,
            input,
            values,
          );
          for await (const each of message) {
            messages.push(each);
            options.onMessage?.(each);
          }
        }
        return { messages, problem: undefined };
      } catch (error) {
        if (!(error instanceof ConnectError)) throw error;
        const details = error.details.flatMap((each) => ("type" in each ? [detailOf(each.type, each.value)] : []));
        return { messages, problem: { code: error.code, message: error.rawMessage, details } };
      }
    },
    async [Symbol.asyncDispose]() {},
  };
}

export function grpcCaller(port: number, creds = credentials.createInsecure()): Caller {
  const client = new Client(`localhost:${port}`, creds, { "grpc.max_receive_message_length": 64 * 2 ** 20 });
  return {
    name: "grpc",
    call(method, request, options = {}) {
      const metadata = new Metadata();
      if (options.authorization !== undefined) metadata.set("authorization", options.authorization);
      for (const [key, value] of Object.entries(options.headers ?? {})) metadata.set(key, value);
      const path = `/${method.parent.typeName}/${method.name}`;
      const encode = (message: Message) => Buffer.from(toBinary(method.input, message));
      const decode = (bytes: Buffer) => fromBinary(method.output, bytes);
      const init = options.timeoutMs === undefined ? {} : { deadline: Date.now() + options.timeoutMs };
      const messages: Message[] = [];
      return new Promise((resolve) => {
        const failed = (error: ServiceError) => resolve({ messages, problem: problemOf(error) });
        const call = (() => {
          if (method.methodKind === "unary")
            return client.makeUnaryRequest(
              path,
              encode,
              decode,
              create(method.input, asOne(request)),
              metadata,
              init,
              (error, message) => {
                if (error) return failed(error);
                if (message) messages.push(message);
                resolve({ messages, problem: undefined });
              },
            );
          let stream: ClientReadableStream<Message>;
          if (method.methodKind === "server_streaming") {
            const one = create(method.input, asOne(request));
            stream = client.makeServerStreamRequest(path, encode, decode, one, metadata, init);
          } else {
            const duplex = client.makeBidiStreamRequest(path, encode, decode, metadata, init);
            for (const each of asList(request)) duplex.write(create(method.input, each));
            duplex.end();
            stream = duplex;
          }
          stream.on("data", (message: Message) => {
            messages.push(message);
            options.onMessage?.(message);
          });
          stream.on("error", failed);
          stream.on("end", () => resolve({ messages, problem: undefined }));
          return stream;
        })();
        options.signal?.addEventListener("abort", () => call.cancel());
      });
    },
    async [Symbol.asyncDispose]() {
      client.close();
    },
  };
}

function problemOf(error: ServiceError): Problem {
  const [bin] = error.metadata?.get("grpc-status-details-bin") ?? [];
  const details =
    bin instanceof Buffer
      ? fromBinary(StatusSchema, bin).details.map((any) =>
          detailOf(any.typeUrl.replace("type.googleapis.com/", ""), any.value),
        )
      : [];
  return { code: error.code, message: error.details, details };
}

/** `reason` of a problem's ErrorInfo. */
export function reasonOf(answer: Answer): string | undefined {
  const info = answer.problem?.details.find(({ type }) => type === ErrorInfoSchema.typeName)?.value;
  return info && "reason" in info ? String(info.reason) : undefined;
}

function asList(request: Request): readonly Record<string, unknown>[] {
  return Array.isArray(request) ? request : [request as Record<string, unknown>];
}

function asOne(request: Request): Record<string, unknown> {
  return asList(request)[0] ?? {};
}
