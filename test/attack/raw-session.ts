import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { Flag, frame, headerBlock, PREFACE, settings, Type } from "./frames.ts";
import type { Port } from "./target.ts";

/** A connection that sends what it likes. */
export type Raw = Disposable & {
  readonly socket: Socket;
  /** Writes at the pace of the other side; false: the connection is gone. */
  write(bytes: Uint8Array): Promise<boolean>;
  /** Resolves when the connection is gone. */
  readonly closed: Promise<void>;
  readonly open: boolean;
};

export type RawSession = Raw & {
  /** How many frames of a type came back. */
  count(type: number): number;
  /** Streams that were answered with the end of the stream or a reset, and the status of each reset. */
  readonly ended: ReadonlyMap<number, number>;
};

/** Unlike `once` of node:events it does not mind an error: that is how these connections end. */
function heard(socket: Socket, event: string): Promise<void> {
  return new Promise((resolve) => socket.once(event, () => resolve()));
}

/** A TCP or TLS connection. `from`: the address it comes from, for attackers of an address of their own. */
export async function rawConnection(to: Port, protocol: "h2" | "http/1.1", from?: string): Promise<Raw> {
  const at = { port: to.port, host: "127.0.0.1", ...(from === undefined ? {} : { localAddress: from }) };
  const socket =
    to.tls === undefined
      ? connectTcp(at)
      : connectTls({ ...at, ca: to.tls, servername: "localhost", ALPNProtocols: [protocol] });
  socket.on("error", () => undefined);
  const closed = heard(socket, "close");
  await Promise.race([heard(socket, to.tls === undefined ? "connect" : "secureConnect"), closed]);
  return {
    socket,
    closed,
    get open() {
      return !socket.destroyed;
    },
    async write(bytes) {
      if (socket.destroyed) return false;
      if (!socket.write(bytes)) await Promise.race([heard(socket, "drain"), closed]);
      return !socket.destroyed;
    },
    [Symbol.dispose]: () => void socket.destroy(),
  };
}

/** An HTTP/2 connection whose preface and settings are sent, and whose answers are only counted. */
export async function rawSession(
  to: Port,
  { own = {}, from }: { own?: Record<number, number>; from?: string } = {},
): Promise<RawSession> {
  const raw = await rawConnection(to, "h2", from);
  const counts = new Map<number, number>();
  const ended = new Map<number, number>();
  let rest: Buffer = Buffer.alloc(0);
  raw.socket.on("data", (chunk: Buffer) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let at = 0;
    for (; rest.length - at >= 9; ) {
      const length = rest.readUIntBE(at, 3);
      if (rest.length - at < 9 + length) break;
      const [type = 0, flags = 0] = rest.subarray(at + 3, at + 5);
      const stream = rest.readUInt32BE(at + 5);
      counts.set(type, (counts.get(type) ?? 0) + 1);
      if (type === Type.RST_STREAM) ended.set(stream, rest.readUInt32BE(at + 9));
      else if (flags & Flag.END_STREAM && (type === Type.DATA || type === Type.HEADERS)) ended.set(stream, 0);
      at += 9 + length;
    }
    rest = Buffer.from(rest.subarray(at));
  });
  await raw.write(Buffer.concat([PREFACE, settings(own)]));
  return {
    ...raw,
    get open() {
      return raw.open;
    },
    count: (type) => counts.get(type) ?? 0,
    ended,
  };
}

/** The head of a call, with a credential unless it is undefined. */
export function callHead(
  to: Port,
  path: string,
  credential: string | undefined,
  more: Record<string, string> = {},
): Buffer {
  const fields = {
    ":method": "POST",
    ":scheme": to.tls === undefined ? "http" : "https",
    ":path": path,
    ":authority": "localhost",
    "content-type": "application/grpc",
    te: "trailers",
    ...(credential === undefined ? {} : { authorization: `Bearer ${credential}` }),
    ...more,
  };
  return headerBlock(Object.entries(fields));
}

/** The frames that begin a call on a stream; the request is open after them. */
export function begin(stream: number, head: Uint8Array, flags = 0): Buffer {
  return frame(Type.HEADERS, Flag.END_HEADERS | flags, stream, head);
}
