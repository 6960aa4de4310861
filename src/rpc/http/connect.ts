import type { UniversalHandler } from "@connectrpc/connect/protocol";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault } from "#src/errors.ts";
import type { Exposition } from "#src/telemetry/exposition.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import { Exchange } from "../exchange.ts";
import type { Listening } from "../listening.ts";
import { openExchanges } from "../open-exchanges.ts";
import type { Pipeline } from "../pipeline.ts";
import type { Procedure } from "../procedure.ts";
import type { Transport } from "../rpc-telemetry.ts";
import { callerTimeout } from "../timeout.ts";
import { connectHandlers, contextOf } from "./connect-calls.ts";
import { answerUnknownMethod, faultOfBody, unaryConnectError } from "./connect-errors.ts";
import { corsFor } from "./cors.ts";
import { type DualConfig, type HttpRequest, type HttpResponse, listenDual } from "./dual.ts";
import { cutUntaken, leaveUnread, respond } from "./http-exchange.ts";
import { incomingOf } from "./incoming.ts";
import { probes, type Readiness, send } from "./probes.ts";

/** Settings of the HTTP port; see src/config/transports.ts. Sizes in bytes. */
export type HttpConfig = DualConfig & {
  readonly corsOrigins: readonly string[];
  readonly maxReceiveBytes: number;
  /** Longest time-out of a stream; a longer one is shortened. */
  readonly maxTimeoutMs: number;
};

export type HttpDeps = {
  readonly pipeline: Pipeline;
  readonly log: Logger;
  readonly ready: Readiness;
  /** Served at `/metrics`; undefined: not served. */
  readonly metrics: Exposition | undefined;
};

/** Answers that are told SHUTTING_DOWN are on their way for this long before connections are cut. */
const FLUSH_MS = 200;
const RPC_PATH = /^\/[\w.]+\/\w+$/;

/** Serves every procedure of the pipeline by Connect, gRPC-Web and gRPC over HTTP/1.1 and HTTP/2, and the probes. */
export async function startHttp(deps: HttpDeps, config: HttpConfig): Promise<Listening> {
  const { pipeline, log } = deps;
  const open = openExchanges();
  const handlers = connectHandlers(pipeline, config.maxReceiveBytes);
  const takeIn = incomingOf(config);
  const stallMs = config.requestTimeoutMs;
  let draining = false;
  const isProbe = probes({ ready: deps.ready, metrics: deps.metrics, draining: () => draining });
  const isPreflight = corsFor(config.corsOrigins);

  const serve = async (
    handler: UniversalHandler,
    procedure: Procedure,
    request: HttpRequest,
    response: HttpResponse,
  ): Promise<void> => {
    const transport = transportOf(request);
    const exchange = new Exchange(pipeline, procedure, {
      transport,
      httpVersion: request.httpVersion,
      header: (name) => headerOf(request, name),
      timeoutMs: callerTimeout(request.headers, config.maxTimeoutMs),
    });
    open.add(exchange);
    response.once("close", () => {
      open.delete(exchange);
      if (!exchange.ended) exchange.abort(new Fault(ErrorReason.CANCELLED));
    });
    if (draining) exchange.abort(new Fault(ErrorReason.SHUTTING_DOWN));
    const incoming = takeIn(request, exchange);
    let answer = await handler({
      httpVersion: request.httpVersion,
      method: request.method ?? "",
      // Only the query is read from it. The caller's host is left out, because it need not be a valid one.
      url: `http://posthorn${request.url}`,
      header: libraryHeaders(request),
      body: incoming.body,
      signal: exchange.signal,
      contextValues: contextOf({ exchange, response, incoming }),
    });
    // A refusal of the library's own: it never came to our code, and says too little.
    if (transport === "connect" && procedure.kind === "unary" && isRefusal(answer) && !exchange.refused) {
      if (exchange.ended)
        log.error({ method: procedure.name, request_id: exchange.requestId }, "an answer has no JSON");
      const fault = exchange.ended ? internal(exchange) : exchange.fail(await faultOfBody(answer, incoming));
      answer = unaryConnectError(fault);
    }
    await respond(answer, response, exchange, stallMs);
    leaveUnread(request, response, config.requestTimeoutMs);
  };

  const onRequest = (request: HttpRequest, response: HttpResponse) => {
    // A socket that breaks is told by "close"; the event itself has nowhere to go.
    request.on("error", () => undefined);
    response.on("error", () => undefined);
    try {
      if (draining && request.httpVersionMajor === 1) response.setHeader("Connection", "close");
      const path = request.url?.split("?", 1)[0] ?? "";
      const handler = handlers.get(path);
      const procedure = pipeline.procedures.get(path);
      if (isPreflight(request, response) || isProbe(path, request, response)) return cutUntaken(response, stallMs);
      if (handler === undefined || procedure === undefined) {
        notFound(path, request, response);
        return cutUntaken(response, stallMs);
      }
      serve(handler, procedure, request, response).catch((err) => {
        log.error({ err, method: procedure.name }, "could not answer an HTTP call");
        response.destroy();
      });
    } catch (err) {
      log.error({ err }, "could not take an HTTP request");
      send(response, 400, "text/plain", "bad request\n");
      cutUntaken(response, stallMs);
    }
  };

  const server = await listenDual(config, log, onRequest);
  log.info({ port: server.port, tls: config.tls !== undefined }, "HTTP port open");

  let closed: Promise<void> | undefined;
  const close = async (deadlineMs: number) => {
    draining = true;
    server.goAway();
    await open.idle(deadlineMs);
    open.abort();
    await open.idle(FLUSH_MS);
    await server.destroy();
  };
  return {
    port: server.port,
    drain(deadlineMs) {
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

function notFound(path: string, request: HttpRequest, response: HttpResponse): void {
  const contentType = headerOf(request, "content-type") ?? "";
  const isRpc = RPC_PATH.test(path) && /^application\/(grpc|json|proto|connect)/.test(contentType);
  if (isRpc) answerUnknownMethod(transportOf(request), contentType, response);
  else send(response, 404, "text/plain", "not found\n");
}

function transportOf(request: HttpRequest): Transport {
  const contentType = headerOf(request, "content-type") ?? "";
  if (contentType.startsWith("application/grpc-web")) return "grpc-web";
  return contentType.startsWith("application/grpc") ? "grpc-http" : "connect";
}

function internal({ requestId }: Exchange): Fault {
  return new Fault(ErrorReason.INTERNAL, { metadata: { request_id: requestId } });
}

function isRefusal({ status, header }: { status: number; header?: Headers }): boolean {
  return status >= 400 && header?.get("content-type") === "application/json";
}

function headerOf(request: HttpRequest, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? value[0] : value;
}

/** The headers the library reads. Time-outs are left out: the pipeline keeps them, the same for every transport. */
function libraryHeaders(request: HttpRequest): Headers {
  const headers = new Headers();
  for (const name of LIBRARY_HEADERS) {
    const value = headerOf(request, name);
    if (value !== undefined) headers.set(name, value);
  }
  return headers;
}

const LIBRARY_HEADERS = [
  "content-type",
  "content-length",
  "content-encoding",
  "accept-encoding",
  "grpc-encoding",
  "grpc-accept-encoding",
  "connect-content-encoding",
  "connect-accept-encoding",
  "connect-protocol-version",
];
