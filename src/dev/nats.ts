import { mkdirSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { connect } from "nats";
import type { InstalledServer } from "./install.ts";
import { type RunningServer, runServer, type ServerOptions } from "./server.ts";

/**
 * Starts a NATS server with JetStream on `<dir>`. `monitored`: it answers questions about itself by HTTP as well, at an
 * address that it writes into a `*.ports` file there.
 */
export function startNats(
  installed: InstalledServer,
  options: ServerOptions & { monitored?: boolean },
): Promise<RunningServer> {
  const configFile = join(options.dir, "nats.conf");
  const storeDir = join(options.dir, "jetstream");
  mkdirSync(storeDir, { recursive: true, mode: 0o700 });
  return runServer(
    {
      name: "NATS",
      mark: { program: "nats-server", path: configFile },
      stopSignal: "TERM",
      command: async (port) => {
        const asked = options.monitored ? monitoring(options.dir) : "";
        await writeFile(configFile, configuration(port, storeDir) + asked);
        return [...installed.command, "-c", configFile];
      },
      greet: async (port) => {
        const url = `nats://127.0.0.1:${port}`;
        return { url, version: await greetNats(url) };
      },
    },
    options,
  );
}

/**
 * Asks a NATS server for its version.
 *
 * @throws when it does not answer within five seconds or has no JetStream.
 */
export async function greetNats(url: string): Promise<string> {
  const connection = await connect({ servers: url, reconnect: false, timeout: 5_000 });
  try {
    await connection.jetstreamManager({ timeout: 5_000 });
    return connection.info?.version ?? "";
  } finally {
    await connection.close();
  }
}

/**
 * Memory is limited far above what development needs. Of the disk each namespace reserves what its streams may grow to,
 * and takes what they hold: room for many, as tests run many side by side.
 */
function configuration(port: number, storeDir: string): string {
  return `listen: "127.0.0.1:${port}"
server_name: "posthorn-dev"
jetstream {
  store_dir: ${JSON.stringify(storeDir)}
  max_memory_store: 512MB
  max_file_store: 256GB
}
`;
}

function monitoring(portsDir: string): string {
  return `http: "127.0.0.1:-1"
ports_file_dir: ${JSON.stringify(portsDir)}
`;
}
