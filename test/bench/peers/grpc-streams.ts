import { join } from "node:path";
import { nodeChild } from "../child.ts";
import type { Peer } from "./peer.ts";

/** What open streams cost in grpc-js alone: the transport that we stand on, and the least we can come to. */
export const grpcStreams: Peer = {
  name: "grpc-streams",
  protocol: "grpc",
  async start({ say, signal }) {
    const script = join(import.meta.dirname, "../yardsticks/grpc-streams.ts");
    const child = nodeChild(script, { name: "grpc-streams", say, signal });
    try {
      child.send({});
      const { address } = await child.next("ready");
      return {
        pid: child.pid,
        address: String(address),
        async settle() {
          child.send({ do: "settle" });
          await child.next("settle");
        },
        [Symbol.asyncDispose]: () => child[Symbol.asyncDispose](),
      };
    } catch (error) {
      await child[Symbol.asyncDispose]();
      throw error;
    }
  },
};
