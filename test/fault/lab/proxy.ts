import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { claimPort } from "#src/dev/ports.ts";

/** Seen from who connects: what they send, and what they are answered. */
export type Direction = "to-server" | "to-client";

/**
 * Stands before a server and does to its connections what networks do. What is held back is not lost, as TCP would send
 * it again: it arrives when the network is well.
 */
export type TcpProxy = AsyncDisposable & {
  /** The server's URL, by way of the proxy. */
  readonly url: string;
  /** Connections through it now. */
  readonly connections: number;
  /** Connections made to the server, since it stands before it. */
  readonly made: number;
  /** Ends every connection, with the polite end of a stream or with a reset. */
  cut(how: "fin" | "rst"): void;
  /** Nothing arrives any more in this direction, or in both; connections stay, and nobody is told. */
  silence(direction?: Direction): void;
  /** Everything arrives so much later, in each direction. */
  delay(ms: number): void;
  /** So much arrives in a second, in each direction of each connection. */
  throttle(bytesPerSecond: number): void;
  /** New connections are closed as soon as they are accepted, or find nobody listening. Those that are open stay. */
  refuse(how: "close" | "not-listening"): Promise<void>;
  /** The network is well again, and what was held back arrives. */
  heal(): Promise<void>;
};

type Weather = { silent: Set<Direction>; delayMs: number; bytesPerSecond: number; closing: boolean };

const well = (): Weather => ({
  silent: new Set(),
  delayMs: 0,
  bytesPerSecond: Number.POSITIVE_INFINITY,
  closing: false,
});

export async function startProxy(serverUrl: string): Promise<TcpProxy> {
  const target = new URL(serverUrl);
  const claim = await claimPort();
  const sockets = new Set<Socket>();
  const lines = new Set<Line>();
  let weather = well();
  let made = 0;

  const server = createServer({ allowHalfOpen: true }, (client) => {
    if (weather.closing) return void client.destroy();
    made++;
    const upstream = connect({ port: Number(target.port), host: target.hostname, allowHalfOpen: true });
    for (const [from, to, direction] of [
      [client, upstream, "to-server"],
      [upstream, client, "to-client"],
    ] as const) {
      const line = openLine(from, to, direction, () => weather);
      sockets.add(from);
      lines.add(line);
      from.once("close", () => {
        sockets.delete(from);
        lines.delete(line);
        line.close();
      });
    }
  });
  const listen = async () => {
    if (server.listening) return;
    server.listen(claim.port, "127.0.0.1");
    await once(server, "listening");
  };
  const rouse = () => {
    for (const line of lines) line.rouse();
  };
  await listen();

  const url = new URL(serverUrl);
  url.hostname = "127.0.0.1";
  url.port = String(claim.port);
  return {
    url: url.href,
    get made() {
      return made;
    },
    get connections() {
      return sockets.size / 2;
    },
    cut(how) {
      for (const socket of sockets) how === "rst" ? socket.resetAndDestroy() : socket.destroySoon();
    },
    silence(direction) {
      for (const each of ["to-server", "to-client"] as const) {
        if (direction === undefined || direction === each) weather.silent.add(each);
      }
    },
    delay(ms) {
      weather.delayMs = ms;
    },
    throttle(bytesPerSecond) {
      weather.bytesPerSecond = bytesPerSecond;
    },
    async refuse(how) {
      if (how === "close") weather.closing = true;
      else server.close(); // Does not wait for the connections that are open.
    },
    async heal() {
      weather = well();
      rouse();
      await listen();
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      claim[Symbol.dispose]();
    },
  };
}

type Line = { rouse(): void; close(): void };

/** How much may be on its way; beyond it the sender is made to wait, as by a full window. */
const WINDOW_BYTES = 1024 * 1024;

/** Carries one direction of a connection: what comes in waits its time, in order, and goes out. */
function openLine(from: Socket, to: Socket, direction: Direction, weather: () => Weather): Line {
  /** An empty one is the end. */
  const waiting: { data: Buffer; at: number }[] = [];
  let bytes = 0;
  let freeAt = 0;
  let timer: NodeJS.Timeout | undefined;
  const take = (data: Buffer) => {
    waiting.push({ data, at: performance.now() });
    bytes += data.length;
    if (bytes >= WINDOW_BYTES) from.pause();
    carry();
  };
  const carry = () => {
    clearTimeout(timer);
    const { silent, delayMs, bytesPerSecond } = weather();
    for (let next = waiting[0]; next !== undefined && !silent.has(direction); next = waiting[0]) {
      const now = performance.now();
      const due = Math.max(next.at + delayMs, freeAt) + (next.data.length / bytesPerSecond) * 1000;
      if (due > now) {
        timer = setTimeout(carry, due - now);
        return;
      }
      waiting.shift();
      bytes -= next.data.length;
      freeAt = due;
      if (next.data.length === 0) to.end();
      else to.write(next.data);
    }
    if (bytes < WINDOW_BYTES) from.resume();
  };
  from.setNoDelay(true);
  from.on("data", take);
  from.on("end", () => take(Buffer.alloc(0)));
  from.on("error", () => undefined);
  // A reset is told the other side as one.
  from.on("close", (failed) => (failed ? to.resetAndDestroy() : to.destroySoon()));
  return {
    rouse: () => {
      freeAt = 0;
      carry();
    },
    close: () => clearTimeout(timer),
  };
}
