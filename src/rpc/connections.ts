import { isIPv6, type Server, type Socket } from "node:net";

export type ConnectionLimits = {
  /** Connections open at once from one address. */
  readonly maxConnectionsPerAddress: number;
};

type OnConnection = (socket: Socket) => void;

/**
 * Takes no more connections from one address than allowed: others are closed before anything is read or, under TLS,
 * calculated. Call it when every other listener of "connection" is there.
 */
export function limitConnections(server: Server, { maxConnectionsPerAddress }: ConnectionLimits): void {
  const open = new Map<string, number>();
  const listeners = server.listeners("connection") as OnConnection[];
  server.removeAllListeners("connection");
  server.on("connection", (socket: Socket) => {
    const address = sourceOf(socket.remoteAddress ?? "");
    const count = open.get(address) ?? 0;
    if (count >= maxConnectionsPerAddress) return socket.destroy();
    open.set(address, count + 1);
    // A socket closes once; `once` would hold two closures more for every connection.
    socket.on("close", () => {
      const left = (open.get(address) ?? 1) - 1;
      if (left === 0) open.delete(address);
      else open.set(address, left);
    });
    for (const listener of listeners) listener.call(server, socket);
  });
}

/** Whoever has an IPv6 address has 2^64 of them: the first half counts. IPv4 within IPv6 is IPv4. */
export function sourceOf(address: string): string {
  const [, mapped] = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address) ?? [];
  if (mapped !== undefined) return mapped;
  const [plain = ""] = address.split("%");
  if (!isIPv6(plain)) return plain;
  const [before = "", after] = plain.split("::");
  const first = before === "" ? [] : before.split(":");
  const last = after === undefined || after === "" ? [] : after.split(":");
  const zeros = after === undefined ? [] : Array<string>(Math.max(0, 8 - first.length - last.length)).fill("0");
  return [...first, ...zeros, ...last].slice(0, 4).join(":");
}
