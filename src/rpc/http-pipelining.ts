import type { IncomingMessage, ServerResponse } from "node:http";

type OnRequest = (request: IncomingMessage, response: ServerResponse) => void;

/**
 * Takes requests that came on one HTTP/1.1 connection without waiting for the answers (RFC 9112 §9.3.2) one after the
 * other: node:http gives them out all at once and keeps the answers, which one who reads none of them can make as much
 * memory and work of as he likes.
 */
export function oneAtATime(onRequest: OnRequest): OnRequest {
  const waiting = new WeakMap<object, (() => void)[]>();
  return (request, response) => {
    const { socket } = request;
    const take = () => {
      response.once("close", next);
      onRequest(request, response);
    };
    const next = () => {
      if (socket.destroyed) return;
      const following = waiting.get(socket)?.shift();
      if (following === undefined) waiting.delete(socket);
      else following();
    };
    const queue = waiting.get(socket);
    if (queue !== undefined) return void queue.push(take);
    waiting.set(socket, []);
    take();
  };
}
