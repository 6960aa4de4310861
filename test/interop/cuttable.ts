import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/** Stands before a server, so that a test can cut a client's connections and keep new ones from being made. */
export type Cuttable = AsyncDisposable & {
  /** `host:port` */
  readonly address: string;
  /** Ends all connections and refuses new ones: `fin` politely, `rst` as when a process or a machine dies. */
  cut(how: "fin" | "rst"): void;
  /** Connections are accepted again. */
  mend(): void;
};

export async function cuttable(target: string): Promise<Cuttable> {
  const [host, port] = target.split(":");
  const clients = new Set<Socket>();
  let refusing = false;
  const server = createServer((client) => {
    if (refusing) return client.resetAndDestroy();
    const upstream = connect(Number(port), host);
    clients.add(client);
    client.pipe(upstream).pipe(client);
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      one.on("error", () => undefined);
      one.on("close", () => other.destroy());
    }
    client.on("close", () => clients.delete(client));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const end = (how: "fin" | "rst") => {
    for (const client of clients) {
      if (how === "rst") client.resetAndDestroy();
      else client.destroy();
    }
  };
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    cut(how) {
      refusing = true;
      end(how);
    },
    mend() {
      refusing = false;
    },
    async [Symbol.asyncDispose]() {
      end("rst");
      server.close();
    },
  };
}
