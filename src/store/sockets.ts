import { connect, type Socket } from "node:net";

type Address = { host: string[]; port: number[]; path?: string | false };

/** ReadyForQuery, and no transaction is open: the last thing a server says before it has nothing to do. */
const IDLE = Buffer.from([0x5a, 0, 0, 0, 5, 0x49]);

/** By then a driver that connects has written its first message: it does so in the turn in which it gets the socket. */
const MUTE_MS = 50;

/**
 * Sockets for postgres.js 3.4.9 (its option `socket`), which by itself waits for ever in two cases that here are errors:
 *
 * - A connection is accepted and closed without a word, as by a load balancer with nothing behind it. The driver opens
 *   another at once, again and again, and tells nobody.
 * - The other side has vanished, by a cut cable or a frozen machine. The kernel notices after a quarter of an hour. Within
 *   a query or a transaction nothing may be silent for longer than `silenceMs`; who is idle may. (With TLS the driver
 *   takes this away again, and the kernel it is.)
 *
 * And what it is given to send in the turn in which a connection closes stays in its buffer with the mark of a write that
 * is to come and never does. Its next connections write nothing then, not even their first message, and time out, until
 * the buffer is full. So a connection is ended in one go, and not with a turn between the error and the close, as Node's
 * own are; and one on which nothing is written is given up at once.
 */
export function pgSockets(silenceMs: number): (address: Address) => Socket {
  let turn = 0;
  return ({ host, port, path }) => {
    const at = turn++ % host.length;
    const place = { host: host[at] ?? "", port: port[at] ?? 5432 };
    // Connecting still: what is written meanwhile waits. The driver reads the host off it, to check a certificate.
    const socket = Object.assign(path ? connect({ path }) : connect(place), place);
    let idle = false;
    let answered = 0;
    socket.on("data", (data: Buffer) => {
      idle = data.subarray(-IDLE.length).equals(IDLE);
      answered = socket.bytesWritten;
    });
    socket.on("end", () => end(socket, "CONNECTION_CLOSED", "Postgres closed the connection"));
    socket.setTimeout(silenceMs, () => {
      if (idle && socket.bytesWritten === answered) return;
      end(socket, "CONNECTION_TIMEOUT", "Postgres has fallen silent");
    });
    const mute = () => {
      if (socket.bytesWritten === 0) end(socket, "CONNECTION_CLOSED", "the driver writes nothing");
    };
    setTimeout(() => setImmediate(mute), MUTE_MS).unref();
    return socket;
  };
}

function end(socket: Socket, code: string, message: string): void {
  if (socket.destroyed) return;
  socket.destroy();
  socket.emit("error", Object.assign(new Error(message), { code }));
  socket.emit("close", true);
}
