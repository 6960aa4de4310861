import { once } from "node:events";
import { mkdtempSync } from "node:fs";
import { readdir, readFile, rm } from "node:fs/promises";
import { get, type IncomingMessage } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { json } from "node:stream/consumers";
import { installedServers, NATS_SERVER } from "#src/dev/install.ts";
import { startNats } from "#src/dev/nats.ts";
import { TOOLS_DIR } from "#src/dev/services.ts";
import { until } from "../../support/until.ts";

/** A NATS of one's own that tells who is connected to it. Disposing stops it and removes its data. */
export type MonitoredNats = AsyncDisposable & {
  readonly url: string;
  /** Its clients by that name now, and all that they are subscribed to, as it counts them itself. */
  held(name: string): Promise<{ connections: number; subscriptions: number }>;
};

export async function startMonitoredNats(log: (line: string) => void): Promise<MonitoredNats> {
  await using stack = new AsyncDisposableStack();
  const dir = mkdtempSync(join(tmpdir(), "posthorn-nats-"));
  stack.defer(() => rm(dir, { recursive: true, force: true, maxRetries: 5 }));
  const { signal } = new AbortController();
  const programs = await installedServers([NATS_SERVER], { toolsDir: TOOLS_DIR, log, signal });
  const { url } = stack.use(
    await startNats(programs(NATS_SERVER), { dir, erase: false, log, signal, monitored: true }),
  );
  const monitoring = await until(
    () => monitoringIn(dir),
    (address) => address !== undefined,
  );
  const running = stack.move();
  return {
    url,
    async held(name) {
      const { connections } = await ask(`${monitoring}/connz?limit=4096`);
      const own = connections.filter((connection) => connection.name === name);
      return {
        connections: own.length,
        subscriptions: own.reduce((sum, { subscriptions = 0 }) => sum + subscriptions, 0),
      };
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/** NATS writes it beside answering its first clients, which may be later; undefined: not yet, or not to its end. */
async function monitoringIn(dir: string): Promise<string | undefined> {
  const [file] = (await readdir(dir)).filter((name) => name.endsWith(".ports"));
  const text = file === undefined ? "" : await readFile(join(dir, file), "utf8");
  return text === "" ? undefined : (JSON.parse(text) as { monitoring: string[] }).monitoring[0];
}

type Connz = { connections: { name?: string; subscriptions?: number }[] };

/** Not by `fetch`, which keeps its connection. */
async function ask(url: string): Promise<Connz> {
  const [response] = (await once(get(url, { agent: false }), "response")) as [IncomingMessage];
  return (await json(response)) as Connz;
}
