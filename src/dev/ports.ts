import { randomInt } from "node:crypto";
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { createServer } from "node:net";

/** Below 32768, where no client socket of this machine is given a port between our look and the server's bind. */
const LOWEST = 20_000;
const ABOVE_HIGHEST = 32_000;

/** A port of 127.0.0.1 that no other claim on this machine gets until this one is disposed of or its process has ended. */
export type PortClaim = Disposable & { readonly port: number };

/**
 * Claims a port that nothing listens on now: `preferred` if that is one, so that addresses survive a restart. A claim is a
 * UDP socket on the port's number. So one that is to be listened on later, or again after a restart, is not given to
 * another process meanwhile, and none is left behind by a process that was killed.
 */
export async function claimPort(preferred?: number): Promise<PortClaim> {
  if (preferred !== undefined && preferred >= LOWEST && preferred < ABOVE_HIGHEST) {
    const claim = await claimed(preferred);
    if (claim !== undefined) return claim;
  }
  for (let tries = 0; tries < 100; tries++) {
    const claim = await claimed(randomInt(LOWEST, ABOVE_HIGHEST));
    if (claim !== undefined) return claim;
  }
  throw new Error(`no free port found between ${LOWEST} and ${ABOVE_HIGHEST}`);
}

async function claimed(port: number): Promise<PortClaim | undefined> {
  const socket = createSocket("udp4");
  if (!(await bound(socket, port))) return undefined;
  if (await isFree(port)) return { port, [Symbol.dispose]: () => void socket.close() };
  socket.close();
  return undefined;
}

/** Whether it is the only one on the port now; it keeps no process alive. */
async function bound(socket: Socket, port: number): Promise<boolean> {
  socket.unref();
  try {
    socket.bind({ port, address: "127.0.0.1", exclusive: true });
    await once(socket, "listening");
    return true;
  } catch {
    return false;
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen({ port, host: "127.0.0.1", exclusive: true }, () => server.close(() => resolve(true)));
  });
}
