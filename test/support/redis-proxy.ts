import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/** Stands before Redis, so that a test can take Redis away from one client and give it back. */
export type RedisProxy = AsyncDisposable & {
  readonly url: string;
  /** Nothing gets through any more, in either direction; connections stay. */
  silence(): void;
  /** What was held back is sent. */
  speak(): void;
  /** Ends all connections and refuses new ones until `speak`. */
  cut(): void;
};

export async function redisProxy(redisUrl: string): Promise<RedisProxy> {
  const target = new URL(redisUrl);
  const sockets = new Set<Socket>();
  let silent = false;
  let refusing = false;
  const server = createServer((client) => {
    if (refusing) return client.destroy();
    const upstream = connect(Number(target.port), target.hostname);
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(from);
      from.setNoDelay(true);
      if (silent) from.pause();
      from.on("data", (data) => to.write(data));
      from.on("error", () => undefined);
      from.on("close", () => {
        sockets.delete(from);
        to.destroy();
      });
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = new URL(redisUrl);
  url.hostname = "127.0.0.1";
  url.port = String((server.address() as AddressInfo).port);
  const endAll = () => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    url: url.href,
    silence() {
      silent = true;
      for (const socket of sockets) socket.pause();
    },
    speak() {
      silent = false;
      refusing = false;
      for (const socket of sockets) socket.resume();
    },
    cut() {
      refusing = true;
      endAll();
    },
    async [Symbol.asyncDispose]() {
      endAll();
      server.close();
    },
  };
}
