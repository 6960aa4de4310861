import { readFile } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { createServer as createTlsServer, type TlsOptions } from "node:tls";
import { logVerbosity, Server, ServerCredentials, type ServiceDefinition, setLogVerbosity } from "@grpc/grpc-js";
import type { Logger } from "#src/telemetry/logger.ts";
import { type ConnectionLimits, limitConnections } from "../connections.ts";
import { awaitHello, logFailedHandshakes } from "../hello.ts";
import { type Listening, listenAt } from "../listening.ts";
import { openExchanges } from "../open-exchanges.ts";
import type { Pipeline } from "../pipeline.ts";
import type { Procedure } from "../procedure.ts";
import { type Bytes, grpcCalls } from "./calls.ts";
import { decompressInTurn } from "./decompress.ts";
import { gateCalls } from "./gate.ts";
import { addHealth } from "./health.ts";
import { completeStatus, completeUnknown } from "./own-errors.ts";
import { limitPublicCalls } from "./public-calls.ts";
import { addReflection } from "./reflection.ts";
import { watchCalls } from "./watch-calls.ts";

/** Settings of the gRPC port; see src/config/transports.ts. Sizes in bytes. */
export type GrpcConfig = ConnectionLimits & {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  readonly tls:
    | { readonly certFile: string; readonly keyFile: string; readonly clientCaFile: string | undefined }
    | undefined;
  readonly maxReceiveBytes: number;
  readonly maxSendBytes: number;
  readonly maxConcurrentStreams: number;
  /** Until a new connection has sent the preface of HTTP/2, the TLS handshake included. */
  readonly helloTimeoutMs: number;
  /** Until a request that is one message, or a begun message of a stream, has come; and until an answer was taken. */
  readonly requestTimeoutMs: number;
  readonly keepaliveTimeMs: number;
  readonly keepaliveTimeoutMs: number;
  readonly maxConnectionIdleMs: number;
  readonly maxConnectionAgeMs: number;
  readonly maxConnectionAgeGraceMs: number;
};

/** Answers that are told SHUTTING_DOWN are on their way for this long before connections are cut. */
const FLUSH_MS = 200;

/** The preface of HTTP/2 and the head of the SETTINGS frame that belongs to it (RFC 9113 §3.4). */
const PREFACE_BYTES = 24 + 9;

/** Serves every procedure of the pipeline by gRPC, with health (`grpc.health.v1`) and reflection. */
export async function startGrpc(
  deps: { readonly pipeline: Pipeline; readonly log: Logger },
  config: GrpcConfig,
): Promise<Listening> {
  const { pipeline, log } = deps;
  // It writes refused header values, credentials included, to standard error.
  setLogVerbosity(logVerbosity.NONE);
  const watch = watchCalls(config.requestTimeoutMs);
  const interceptors = [completeStatus, decompressInTurn(), limitPublicCalls(watch)];
  const server = new Server({ ...channelOptions(config), interceptors });
  const open = openExchanges();
  completeUnknown(server);
  const gate = gateCalls(server, pipeline, open, watch);
  interceptors.push(gate.interceptor);
  const limits = { stallMs: config.requestTimeoutMs, maxSendBytes: config.maxSendBytes };
  const calls = grpcCalls(pipeline, open, gate, limits);
  for (const { descriptor } of pipeline.services) {
    const own = [...pipeline.procedures].filter(([, { method }]) => method.parent === descriptor);
    server.addService(
      definitionOf(own),
      Object.fromEntries(
        own.map(([, procedure]) => [
          procedure.method.name,
          procedure.kind === "unary"
            ? calls.unary(procedure)
            : procedure.kind === "server_streaming"
              ? calls.serverStreaming(procedure)
              : calls.bidi(procedure),
        ]),
      ),
    );
  }
  const health = addHealth(
    server,
    pipeline.services.map(({ descriptor }) => descriptor.typeName),
  );
  addReflection(server, pipeline.services, config.requestTimeoutMs);

  const { injectConnection } = server.createConnectionInjector(ServerCredentials.createInsecure());
  const { port, free, destroy } = await listen(config, log, injectConnection);
  log.info({ port, tls: config.tls !== undefined }, "gRPC port open");

  let closed: Promise<void> | undefined;
  const close = async (deadlineMs: number) => {
    health.stopServing();
    const closed = free();
    const gone = new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
    await open.idle(deadlineMs);
    open.abort();
    // Sessions of health watchers and idle callers stay open for ever otherwise.
    await Promise.race([gone, flushed()]);
    server.forceShutdown();
    watch[Symbol.dispose]();
    await Promise.race([closed, flushed()]);
    destroy();
    await closed;
  };
  return {
    port,
    drain: (deadlineMs) => {
      closed ??= close(deadlineMs);
      return closed;
    },
    async [Symbol.asyncDispose]() {
      open.abort();
      closed ??= close(0);
      await closed;
    },
  };
}

function flushed(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, FLUSH_MS));
}

function channelOptions(config: GrpcConfig) {
  return {
    "grpc.max_receive_message_length": config.maxReceiveBytes,
    "grpc.max_send_message_length": config.maxSendBytes,
    "grpc.max_concurrent_streams": config.maxConcurrentStreams,
    "grpc.keepalive_time_ms": config.keepaliveTimeMs,
    "grpc.keepalive_timeout_ms": config.keepaliveTimeoutMs,
    "grpc.max_connection_idle_ms": config.maxConnectionIdleMs,
    "grpc.max_connection_age_ms": config.maxConnectionAgeMs,
    "grpc.max_connection_age_grace_ms": config.maxConnectionAgeGraceMs,
    "grpc.enable_channelz": 0,
    "grpc.so_reuseport": 0,
  };
}

function definitionOf(own: [path: string, procedure: Procedure][]): ServiceDefinition {
  const asIs = (bytes: Bytes) => bytes;
  return Object.fromEntries(
    own.map(([path, { method, kind }]) => [
      method.name,
      {
        path,
        requestStream: kind === "bidi_streaming",
        responseStream: kind !== "unary",
        requestSerialize: asIs,
        requestDeserialize: asIs,
        responseSerialize: asIs,
        responseDeserialize: asIs,
      },
    ]),
  );
}

async function certificatesOf(tls: NonNullable<GrpcConfig["tls"]>): Promise<TlsOptions> {
  const [cert, key, ca] = await Promise.all([
    readFile(tls.certFile),
    readFile(tls.keyFile),
    tls.clientCaFile === undefined ? undefined : readFile(tls.clientCaFile),
  ]);
  return { cert, key, ALPNProtocols: ["h2"], ...(ca === undefined ? {} : { ca, requestCert: true }) };
}

type Listener = {
  readonly port: number;
  /** Takes no more connections. Resolves when all have ended. */
  free(): Promise<void>;
  /** Cuts those that are open. */
  destroy(): void;
};

/**
 * The port is ours and not grpc-js's, TLS included, so that connections can be counted, silent ones closed, and failed
 * handshakes told.
 */
async function listen(config: GrpcConfig, log: Logger, take: (socket: Socket) => void): Promise<Listener> {
  const sockets = new Set<Socket>();
  const { tls, keepaliveTimeMs } = config;
  const options = { noDelay: true, keepAlive: true, keepAliveInitialDelay: keepaliveTimeMs };
  const server =
    tls === undefined ? createServer(options) : createTlsServer({ ...options, ...(await certificatesOf(tls)) });
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("error", onError);
    socket.on("close", onClose);
  });
  server.on(tls === undefined ? "connection" : "secureConnection", (socket: Socket) => {
    socket.on("error", onError);
    take(socket);
  });
  function onError(this: Socket): void {
    this.destroy();
  }
  function onClose(this: Socket): void {
    sockets.delete(this);
  }
  const hello = awaitHello(server, config.helloTimeoutMs, ({ bytesRead }) => bytesRead >= PREFACE_BYTES);
  logFailedHandshakes(server, log);
  limitConnections(server, config);
  const port = await listenAt(server, config);
  return {
    port,
    free() {
      hello[Symbol.dispose]();
      return new Promise((resolve) => server.close(() => resolve()));
    },
    destroy() {
      for (const socket of sockets) socket.destroy();
    },
  };
}
