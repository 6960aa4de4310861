import { readFile } from "node:fs/promises";
import {
  createServer as createHttp1,
  type Server as Http1Server,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import {
  createServer as createHttp2,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type Http2Session,
  type ServerHttp2Session,
} from "node:http2";
import { createServer as createHttps } from "node:https";
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import type { Logger } from "#src/telemetry/logger.ts";
import { type ConnectionLimits, limitConnections } from "../connections.ts";
import { awaitHello, logFailedHandshakes } from "../hello.ts";
import { listenAt } from "../listening.ts";
import { takingTurns } from "../turns.ts";
import { oneAtATime } from "./pipelining.ts";

export type HttpRequest = IncomingMessage | Http2ServerRequest;
export type HttpResponse = ServerResponse | Http2ServerResponse;
export type OnRequest = (request: HttpRequest, response: HttpResponse) => void;

export type DualConfig = ConnectionLimits & {
  readonly host: string;
  readonly port: number;
  readonly tls: { readonly certFile: string; readonly keyFile: string } | undefined;
  readonly headersTimeoutMs: number;
  readonly requestTimeoutMs: number;
  readonly sessionIdleMs: number;
  readonly maxConcurrentStreams: number;
};

export type DualServer = {
  readonly port: number;
  /** Asks open connections to go when their calls have ended. New ones are still taken, so that probes are answered. */
  goAway(): void;
  /** Takes no more connections and cuts every open one. Resolves when the port is free. */
  destroy(): Promise<void>;
};

/** Fewer than on the gRPC port: each takes several times as long here. */
const CALLS_AT_ONCE = 16;

/**
 * HTTP/1.1 and HTTP/2 on one port: by ALPN under TLS, else by the preface with which HTTP/2 begins (RFC 9113 §3.4).
 * Nothing a client sends or leaves out keeps a connection busy for longer than the configured time-outs.
 */
export async function listenDual(config: DualConfig, log: Logger, onRequest: OnRequest): Promise<DualServer> {
  const server = await http1Server(config, onRequest);
  const http2 = http2Server(config, onRequest);
  const sessions = new Set<Http2Session>();
  http2.on("session", (session: ServerHttp2Session) => {
    sessions.add(session);
    session.once("close", () => sessions.delete(session));
    // With its preface (RFC 9113 §3.4).
    session.once("remoteSettings", () => hello.heard(session.socket));
    endWhenIdle(session, config.sessionIdleMs);
  });
  server.on("request", ({ socket }: IncomingMessage) => hello.heard(socket));
  const sockets = new Set<Socket>();
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });

  if (config.tls === undefined) splitByPreface(server, http2);
  else splitByAlpn(server, http2);
  const hello = awaitHello(server, config.headersTimeoutMs, () => false);
  logFailedHandshakes(server, log);
  limitConnections(server, config);

  const port = await listenAt(server, config);
  const closed = new Promise<void>((resolve) => server.once("close", resolve));
  return {
    port,
    goAway() {
      server.closeIdleConnections();
      for (const session of sessions) session.close();
    },
    destroy() {
      hello[Symbol.dispose]();
      server.close();
      for (const session of sessions) session.destroy();
      for (const socket of sockets) socket.destroy();
      return closed;
    },
  };
}

/**
 * Nothing moved for that long, heartbeats included: whoever is there has gone.
 *
 * Node (20 as well as 24) means to clear the timer of a session that ends before, and does not: `setTimeout` does nothing
 * once it is destroyed. The timer would hold what is left of it, 3 KB, till it fires, so it is asked by a double of the
 * session that is not destroyed.
 */
export function endWhenIdle(session: ServerHttp2Session, idleMs: number): void {
  session.setTimeout(idleMs, () => session.destroy());
  session.once("close", () => {
    const undestroyed: ServerHttp2Session = Object.create(session, { destroyed: { value: false } });
    undestroyed.setTimeout(0);
  });
}

async function http1Server(config: DualConfig, onRequest: OnRequest): Promise<Http1Server> {
  const options = {
    headersTimeout: Math.min(config.headersTimeoutMs, config.requestTimeoutMs),
    requestTimeout: config.requestTimeoutMs,
    connectionsCheckingInterval: 1_000,
    // Of peers that are gone without a word, the system tells.
    keepAlive: true,
    keepAliveInitialDelay: 60_000,
  };
  const inTurn = oneAtATime(takingTurns(CALLS_AT_ONCE), onRequest);
  if (config.tls === undefined) return createHttp1(options, inTurn);
  const [cert, key] = await Promise.all([readFile(config.tls.certFile), readFile(config.tls.keyFile)]);
  const tls = { cert, key, ALPNProtocols: ["h2", "http/1.1"] };
  return createHttps({ ...options, ...tls }, inTurn);
}

function http2Server(config: DualConfig, onRequest: OnRequest) {
  const turns = takingTurns(CALLS_AT_ONCE);
  const server = createHttp2(
    {
      settings: { maxConcurrentStreams: config.maxConcurrentStreams, maxHeaderListSize: 32 * 1024, enablePush: false },
      // Without it a client that has not read the setting yet could open as many as it likes.
      peerMaxConcurrentStreams: config.maxConcurrentStreams,
    },
    // Later: of requests that are cancelled as they come (rapid reset), only the frames are read.
    (request, response) =>
      turns(request.stream.session ?? request, () => {
        if (!request.stream.closed && !request.stream.destroyed) onRequest(request, response);
      }),
  );
  server.on("sessionError", () => undefined);
  return server;
}

/** HTTP/1.1's own listener stays, so that its time-outs and its list of connections do. */
function splitByAlpn(server: Http1Server, http2: { emit(event: "connection", socket: Socket): boolean }): void {
  const [http1] = server.listeners("secureConnection");
  server.removeAllListeners("secureConnection");
  server.on("secureConnection", (socket: TLSSocket) => {
    socket.on("error", () => socket.destroy());
    if (socket.alpnProtocol === "h2") http2.emit("connection", socket);
    else http1?.call(server, socket);
  });
}

const PREFACE = Buffer.from("PRI");

function splitByPreface(server: Http1Server, http2: { emit(event: "connection", socket: Socket): boolean }): void {
  const [http1, ...others] = server.listeners("connection");
  server.removeAllListeners("connection");
  for (const listener of others) server.on("connection", listener as (socket: Socket) => void);
  server.on("connection", (socket: Socket) => {
    // Of connections that are half closed only node:http knows. On HTTP/2 and before there is a request, who hangs up has
    // gone; the socket would stay, and count, until it had been idle for long.
    socket.allowHalfOpen = false;
    socket.on("error", () => socket.destroy());
    let seen = Buffer.alloc(0);
    const look = (chunk: Buffer) => {
      seen = Buffer.concat([seen, chunk]);
      const length = Math.min(seen.length, PREFACE.length);
      const fits = seen.subarray(0, length).equals(PREFACE.subarray(0, length));
      if (fits && length < PREFACE.length) return;
      socket.off("data", look);
      socket.pause();
      socket.unshift(seen);
      if (fits) http2.emit("connection", socket);
      else {
        socket.allowHalfOpen = true;
        http1?.call(server, socket);
        process.nextTick(() => socket.resume());
      }
    };
    socket.on("data", look);
  });
}
