import { once } from "node:events";
import { connect, type OutgoingHttpHeaders } from "node:http2";
import type { Port } from "./target.ts";

export type Answer = { status: number; grpcStatus: string | undefined; body: string };

export type ManyCalls = (port: Port, count: number, headers: OutgoingHttpHeaders, body: Buffer) => Promise<Answer[]>;

/** Makes the same call many times on one connection, all at once. */
export const manyCalls =
  (apiKey: string): ManyCalls =>
  async (port, count, headers, body) => {
    // Node gives up a session of which more than 10 MB wait to be sent.
    const session = connect(`http://localhost:${port.port}`, { maxSessionMemory: 1024 });
    session.on("error", () => undefined);
    try {
      return await Promise.all(
        Array.from({ length: count }, async () => {
          const stream = session.request({ authorization: `Bearer ${apiKey}`, ...headers });
          const answer: Answer = { status: 0, grpcStatus: undefined, body: "" };
          const see = (seen: Record<string, unknown>) => {
            answer.status = Number(seen[":status"] ?? answer.status);
            answer.grpcStatus = (seen["grpc-status"] as string | undefined) ?? answer.grpcStatus;
          };
          stream.on("response", see);
          stream.on("trailers", see);
          stream.on("error", () => undefined);
          stream.setEncoding("utf8");
          stream.on("data", (chunk: string) => {
            answer.body += chunk;
          });
          // Node has ended the request of a GET already.
          if (headers[":method"] !== "GET") stream.end(body);
          await once(stream, "close");
          return answer;
        }),
      );
    } finally {
      session.destroy();
    }
  };
