import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { build } from "vite";

/** Serves the page of page.ts. Every site is an origin of its own. */
export type Site = AsyncDisposable & { origin: string };

/** page.ts and all it imports as one script for the browser. */
export async function bundledPage(): Promise<string> {
  const built = await build({
    root: join(import.meta.dirname, "../.."),
    configFile: false,
    logLevel: "warn",
    build: {
      write: false,
      minify: false,
      rolldownOptions: { input: join(import.meta.dirname, "page.ts"), output: { format: "iife" } },
      modulePreload: false,
    },
  });
  const [output] = Array.isArray(built) ? built : [built];
  if (output === undefined || !("output" in output)) throw new Error("the page was not built");
  return output.output[0].code;
}

export async function serveSite(script: string): Promise<Site> {
  const server = createServer(({ url }, response) => {
    if (url === "/page.js") response.setHeader("content-type", "text/javascript").end(script);
    else if (url === "/") response.setHeader("content-type", "text/html").end('<script src="/page.js"></script>');
    else response.writeHead(404).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
