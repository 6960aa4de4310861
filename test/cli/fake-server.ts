import { once } from "node:events";
import { createServer, type ServerHttp2Session } from "node:http2";
import type { AddressInfo } from "node:net";
import type { ConnectRouter } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";

/** A gRPC server on a free port that answers as the test wants. */
export async function fakeServer(
  routes: (router: ConnectRouter) => void,
): Promise<AsyncDisposable & { server: string; cutAll: () => void; authorizations: string[] }> {
  const sessions = new Set<ServerHttp2Session>();
  const authorizations: string[] = [];
  const adapter = connectNodeAdapter({ routes });
  const server = createServer((request, response) => {
    authorizations.push(request.headers.authorization ?? "");
    adapter(request, response);
  });
  server.on("session", (session) => {
    sessions.add(session);
    session.on("close", () => sessions.delete(session));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const cutAll = () => {
    for (const session of sessions) session.destroy();
  };
  return {
    server: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    cutAll,
    authorizations,
    async [Symbol.asyncDispose]() {
      cutAll();
      server.close();
      await once(server, "close");
    },
  };
}
