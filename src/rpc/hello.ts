import type { Server, Socket } from "node:net";
import { type TLSSocket, Server as TlsServer } from "node:tls";
import type { Logger } from "#src/telemetry/logger.ts";

/** Who has not spoken yet: a TCP connection, or over TLS, once its handshake is done, what it has become. */
type Awaited = { socket: Socket; readonly since: number; isHandshaking: boolean };

export type Hello = Disposable & {
  /** It has spoken; of the connection of an HTTP/2 session, its `socket` will do. */
  heard(socket: Socket): void;
};

/**
 * Hangs up on connections of a server that have not spoken within `timeoutMs` of coming, handshake included. Call it
 * before `limitConnections`.
 *
 * @param hasSpoken asked when the time is up, of those that were not heard
 */
export function awaitHello(server: Server, timeoutMs: number, hasSpoken: (socket: Socket) => boolean): Hello {
  /** Oldest first. By address and port, all that the two sockets of a TLS connection have in common. */
  const awaited = new Map<string, Awaited>();
  const isTls = server instanceof TlsServer;
  // One timer for all connections: a process holds ten thousand.
  const timer = setInterval(
    () => {
      const before = performance.now() - timeoutMs;
      for (const [peer, each] of awaited) {
        if (each.since > before) break;
        // In the turn after: what has come while this process was busy is read first.
        setImmediate(() => {
          if (awaited.get(peer) !== each) return;
          awaited.delete(peer);
          if (each.isHandshaking || !hasSpoken(each.socket)) each.socket.destroy();
        });
      }
    },
    Math.min(1_000, timeoutMs / 4),
  );
  timer.unref();
  server.on("connection", (socket: Socket) => {
    awaited.set(peerOf(socket), { socket, since: performance.now(), isHandshaking: isTls });
    socket.on("close", onClose);
  });
  server.on("secureConnection", (socket: TLSSocket) => {
    const found = awaited.get(peerOf(socket));
    if (found === undefined) return;
    found.socket = socket;
    found.isHandshaking = false;
  });
  function onClose(this: Socket): void {
    awaited.delete(peerOf(this));
  }
  return {
    heard: (socket) => void awaited.delete(peerOf(socket)),
    [Symbol.dispose]: () => clearInterval(timer),
  };
}

type Ends = Pick<Socket, "remoteAddress" | "remotePort" | "localAddress" | "localPort">;

/** Both ends: a client may use one port of its for connections to several addresses of ours. */
function peerOf({ remoteAddress, remotePort, localAddress, localPort }: Ends): string {
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}

/** Says of each handshake that fails why, and nothing of what was presented in it. */
export function logFailedHandshakes(server: Server, log: Logger): void {
  server.on("tlsClientError", ({ code }: NodeJS.ErrnoException, { remoteAddress, authorizationError }: TLSSocket) => {
    // A certificate that is not trusted is hung up on by Node, whose error says only that.
    const reason = authorizationError ?? code;
    log.debug({ address: remoteAddress, reason }, "a TLS handshake failed");
  });
}
