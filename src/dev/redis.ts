import { mkdirSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Redis } from "ioredis";
import type { InstalledServer } from "./install.ts";
import { passwordIn } from "./password.ts";
import { type RunningServer, runServer, type ServerOptions } from "./server.ts";

/** Starts a Redis that keeps nothing on disk: it holds limits and caches, never the only copy of anything. */
export async function startRedis(installed: InstalledServer, options: ServerOptions): Promise<RunningServer> {
  const configFile = join(options.dir, "redis.conf");
  mkdirSync(options.dir, { recursive: true, mode: 0o711 });
  const password = await passwordIn(join(options.dir, "password"));
  return runServer(
    {
      name: "Redis",
      mark: { program: "redis-server", path: configFile },
      stopSignal: "TERM",
      command: async (port) => {
        await writeFile(configFile, configuration(port, options.dir, password), { mode: 0o600 });
        return [...installed.command, configFile];
      },
      greet: async (port) => {
        const url = `redis://:${password}@127.0.0.1:${port}`;
        return { url, version: await greetRedis(url) };
      },
    },
    options,
  );
}

/**
 * Asks a Redis for its version.
 *
 * @throws when it does not answer within five seconds or refuses us.
 */
export async function greetRedis(url: string): Promise<string> {
  const redis = new Redis(url, {
    lazyConnect: true,
    connectTimeout: 5_000,
    commandTimeout: 5_000,
    retryStrategy: () => null,
    maxRetriesPerRequest: 0,
  });
  // Without a listener ioredis prints to stderr; the refusal itself comes from the first command.
  let refusal: Error | undefined;
  redis.on("error", (error: Error) => {
    refusal = error;
  });
  try {
    await redis.connect();
    return /redis_version:(\S+)/.exec(await redis.info("server"))?.[1] ?? "";
  } catch (error) {
    throw refusal ?? error;
  } finally {
    redis.disconnect();
  }
}

/** The title names this file, which is how a server left behind is recognised. */
function configuration(port: number, dir: string, password: string): string {
  return `bind 127.0.0.1
port ${port}
requirepass ${password}
dir ${JSON.stringify(dir)}
save ""
appendonly no
daemonize no
proc-title-template "{title} {listen-addr} {config-file}"
`;
}
