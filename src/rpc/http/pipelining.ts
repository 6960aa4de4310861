import type { IncomingMessage, ServerResponse } from "node:http";
import type { Turns } from "../turns.ts";

type OnRequest = (request: IncomingMessage, response: ServerResponse) => void;

/**
 * Takes requests that came on one HTTP/1.1 connection without waiting for the answers (RFC 9112 §9.3.2) one after the
 * other: node:http gives them out all at once and keeps the answers, which one who reads none of them can make as much
 * memory and work of as he likes. Each but the first of them waits for its turn.
 */
export function oneAtATime(turns: Turns, onRequest: OnRequest): OnRequest {
  const waiting = new WeakMap<object, (() => void)[]>();
  return (request, response) => {
    const { socket } = request;
    const take = () => {
      response.once("close", next);
      onRequest(request, response);
    };
    const next = () => {
      const following = waiting.get(socket)?.shift();
      if (following === undefined) waiting.delete(socket);
      else turns(socket, () => socket.destroyed || following());
    };
    const queue = waiting.get(socket);
    if (queue !== undefined) return void queue.push(take);
    waiting.set(socket, []);
    take();
  };
}
