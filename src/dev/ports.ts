import { randomInt } from "node:crypto";
import { createServer } from "node:net";

/** Below 32768, where no client socket of this machine is given a port between our look and the server's bind. */
const LOWEST = 20_000;
const ABOVE_HIGHEST = 32_000;

/** A port on 127.0.0.1 that nothing listens on now: `preferred` if that is one, so that addresses survive a restart. */
export async function freePort(preferred?: number): Promise<number> {
  if (preferred !== undefined && preferred >= LOWEST && preferred < ABOVE_HIGHEST && (await isFree(preferred)))
    return preferred;
  for (let tries = 0; tries < 100; tries++) {
    const port = randomInt(LOWEST, ABOVE_HIGHEST);
    if (await isFree(port)) return port;
  }
  throw new Error(`no free port found between ${LOWEST} and ${ABOVE_HIGHEST}`);
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen({ port, host: "127.0.0.1", exclusive: true }, () => server.close(() => resolve(true)));
  });
}
