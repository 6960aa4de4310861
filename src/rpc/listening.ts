import type { AddressInfo, Server } from "node:net";

/** A port that answers. Disposing closes it at once: open calls are told SHUTTING_DOWN, connections are cut. */
export type Listening = AsyncDisposable & {
  readonly port: number;
  /**
   * Closes it gently: says "not ready", takes no new connections, asks open ones to go, and waits until their calls have
   * ended. What is still open after `deadlineMs` is told SHUTTING_DOWN and cut. Resolves when all is closed.
   */
  drain(deadlineMs: number): Promise<void>;
};

/**
 * Connections that the kernel holds until this process comes to them; it takes no more than its own limit
 * (net.core.somaxconn, 4096 by default). Beyond it they are dropped and tried again only a second later, and when a node
 * restarts, all that it had come back at once.
 */
const BACKLOG = 16_384;

/** Resolves with the port, when it is open. */
export async function listenAt(server: Server, { host, port }: { host: string; port: number }): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ port, host, backlog: BACKLOG }, () => {
      server.off("error", reject);
      resolve();
    });
  });
  return (server.address() as AddressInfo).port;
}
