import type { ServerResponse } from "node:http";
import { constants } from "node:http2";
import type { UniversalServerResponse } from "@connectrpc/connect/protocol";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault } from "#src/errors.ts";
import type { Exchange } from "../exchange.ts";
import { room } from "../room.ts";
import type { HttpRequest, HttpResponse } from "./dual.ts";

export type Pieces = {
  /** Undefined: that was all. The call ends with DEADLINE_EXCEEDED when nothing comes for `patienceMs`, if that is given. */
  next(patienceMs: number | undefined): Promise<Uint8Array | undefined>;
  /** Reads no more. It does not cut the connection: a refusal still has to go out. */
  leave(): void;
};

/** The body of a request as it comes. Reading fails as soon as the call is aborted. */
export function piecesOf(request: HttpRequest, exchange: Exchange): Pieces {
  const chunks = request.iterator({ destroyOnReturn: false });
  return {
    async next(patienceMs) {
      const timer = patienceMs === undefined ? undefined : setTimeout(expire, patienceMs, exchange);
      try {
        const { done, value } = await exchange.race(chunks.next());
        return done ? undefined : (value as Uint8Array);
      } finally {
        clearTimeout(timer);
      }
    },
    leave: () => void chunks.return?.()?.catch(() => undefined),
  };
}

function expire(exchange: Exchange): void {
  exchange.abort(new Fault(ErrorReason.DEADLINE_EXCEEDED));
}

/** Sends the head of a streamed answer before there is anything to say, so that the caller knows it was let in. */
export function sendHead(response: HttpResponse, headers: Headers): void {
  if (response.headersSent || response.destroyed) return;
  writeHead(response, 200, plain(headers));
  if ("flushHeaders" in response) response.flushHeaders();
}

/**
 * Writes an answer as fast as the caller reads it. One who does not read for `stallMs` is cut off, because unread
 * answers are memory.
 */
export async function respond(
  answer: UniversalServerResponse,
  response: HttpResponse,
  exchange: Exchange,
  stallMs: number,
): Promise<void> {
  const chunks = answer.body?.[Symbol.asyncIterator]();
  try {
    if (!response.headersSent) writeHead(response, answer.status, plain(answer.header ?? new Headers()));
    for (;;) {
      const next = await chunks?.next();
      if (next === undefined || next.done || response.destroyed) break;
      if (!(response as ServerResponse).write(next.value) && !(await room(response, stallMs))) {
        exchange.abort(new Fault(ErrorReason.CANCELLED));
        response.destroy();
        return;
      }
    }
    if (answer.trailer !== undefined) response.addTrailers(plain(answer.trailer));
    response.end();
    cutUntaken(response, stallMs);
  } finally {
    chunks?.return?.().catch(() => undefined);
  }
}

/** The end of an answer waits in this process too until it is taken, whatever it is an answer to. */
export function cutUntaken(response: HttpResponse, stallMs: number): void {
  const timer = setTimeout(() => response.destroy(), stallMs);
  timer.unref();
  const taken = () => clearTimeout(timer);
  response.once("finish", taken);
  response.once("close", taken);
}

/**
 * What a client still sends of a request that was refused early goes nowhere, and must come to its end in `timeoutMs`:
 * node:http sees to that on HTTP/1.1; on HTTP/2 the stream is reset then (RFC 9113 §8.1).
 */
export function leaveUnread(request: HttpRequest, response: HttpResponse, timeoutMs: number): void {
  if (request.complete) return;
  // A body that was left in the middle is still listened to by its iterator, and then `resume` does nothing.
  request.removeAllListeners("readable");
  request.on("data", () => undefined);
  request.resume();
  if (!("stream" in response)) return;
  const timer = setTimeout(() => response.stream?.close(constants.NGHTTP2_NO_ERROR), timeoutMs);
  timer.unref();
  request.once("close", () => clearTimeout(timer));
}

/** Both kinds of answer have it; only their types differ. */
export function writeHead(response: HttpResponse, status: number, headers: Record<string, string>): void {
  (response as ServerResponse).writeHead(status, headers);
}

function plain(headers: Headers): Record<string, string> {
  return Object.fromEntries(headers);
}
