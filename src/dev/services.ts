import { existsSync } from "node:fs";
import { readFile, rm, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { installedServers, NATS_SERVER, REDIS_SERVER } from "./install.ts";
import { greetNats, startNats } from "./nats.ts";
import { greetPostgres, startPostgres } from "./postgres.ts";
import { greetRedis, startRedis } from "./redis.ts";
import type { RunningServer, ServerOptions } from "./server.ts";
import { claimSlot, slotDirs, tryLock } from "./slot.ts";

export type ServiceUrls = { databaseUrl: string; natsUrl: string; redisUrl: string };

/** Postgres, NATS and Redis, all answering. Disposing stops those that were started here, and only those. */
export type Services = AsyncDisposable & ServiceUrls & { versions: { postgres: string; nats: string; redis: string } };

export type StartServicesOptions = {
  /** Where the servers keep their data, e.g. `<checkout>/.data`. */
  dataDir: string;
  /** Keep the data for the next start (default), or remove it when the servers stop. */
  keep?: boolean;
  /** Wait for the disk as in production (default). False only for tests. */
  durable?: boolean;
  /** Progress of slow steps, and the end of a server that stopped by itself. */
  log: (line: string) => void;
  /** Gives up starting. Services that have started are stopped by disposing them. */
  signal?: AbortSignal;
  /** Services that run already: used as they are, never started or stopped. */
  urls?: { database?: string | undefined; nats?: string | undefined; redis?: string | undefined };
};

/** The oldest versions that Posthorn is tested with. */
const OLDEST = { Postgres: [15], NATS: [2, 9, 10], Redis: [7] } as const;

/** Fetched programs are shared by every run in this checkout. */
export const TOOLS_DIR = join(import.meta.dirname, "../../.cache/servers");

/**
 * Starts what is not given in `urls` on free ports of 127.0.0.1 and returns when all three answer.
 *
 * The servers stop when disposed, and as soon as this process ends, kill -9 included. What an earlier run left behind in
 * the same directory is ended first. While another run uses `dataDir`, this one gets data and servers of its own (see
 * claimSlot). Nothing else on the machine is touched.
 *
 * @throws with one readable reason when a server cannot be found, started, reached, or is too old; all are stopped then.
 */
export async function startServices(options: StartServicesOptions): Promise<Services> {
  const { dataDir, keep = true, durable = true, log, urls = {} } = options;
  await using stack = new AsyncDisposableStack();
  const failed = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, failed.signal]) : failed.signal;
  signal.throwIfAborted();

  const startsAny = !(urls.database && urls.nats && urls.redis);
  const slot = startsAny ? stack.use(claimSlot(dataDir)) : undefined;
  const place = (name: string): ServerOptions => ({ dir: join(slot?.dir ?? dataDir, name), erase: !keep, log, signal });
  if (slot && !keep) {
    stack.defer(async () => {
      await rm(slot.dir, { recursive: true, force: true });
      await rmdir(dataDir).catch(() => undefined); // Others may use it, or have put something there.
    });
  }
  const wanted = [...(urls.nats ? [] : [NATS_SERVER]), ...(urls.redis ? [] : [REDIS_SERVER])];
  const programs = installedServers(wanted, { toolsDir: TOOLS_DIR, log, signal });

  const starting = [
    urls.database
      ? existing("Postgres", urls.database, "POSTHORN_DATABASE_URL", greetPostgres)
      : startPostgres({ ...place("postgres"), durable }),
    urls.nats
      ? existing("NATS", urls.nats, "POSTHORN_NATS_URL", greetNats)
      : programs.then((found) => startNats(found(NATS_SERVER), place("nats"))),
    urls.redis
      ? existing("Redis", urls.redis, "POSTHORN_REDIS_URL", greetRedis)
      : programs.then((found) => startRedis(found(REDIS_SERVER), place("redis"))),
  ] as const;
  const [postgres, nats, redis] = await allOrNothing(starting, stack, failed, signal);
  requireVersion("Postgres", postgres.version);
  requireVersion("NATS", nats.version);
  requireVersion("Redis", redis.version);

  const found: ServiceUrls = { databaseUrl: postgres.url, natsUrl: nats.url, redisUrl: redis.url };
  if (slot) {
    const file = join(slot.dir, URLS_FILE);
    await writeFile(file, JSON.stringify(found), { mode: 0o600 });
    stack.defer(() => rm(file, { force: true }));
  }
  const running = stack.move();
  return {
    ...found,
    versions: { postgres: postgres.version, nats: nats.version, redis: redis.version },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

const URLS_FILE = "urls.json";

/**
 * The addresses of services that another process of this checkout runs now, for commands that should join it rather than
 * start their own. With several, those of the first started.
 */
export async function runningServices(dataDir: string): Promise<ServiceUrls | undefined> {
  for (const dir of slotDirs(dataDir)) {
    const lockFile = join(dir, "lock");
    if (!existsSync(lockFile)) continue;
    const lock = tryLock(lockFile);
    if (lock) {
      lock.close(); // Nobody holds it: whatever the file says is of a run that was killed.
      continue;
    }
    const text = await readFile(join(dir, URLS_FILE), "utf8").catch(() => undefined);
    if (text !== undefined) return JSON.parse(text) as ServiceUrls;
  }
  return undefined;
}

/** Stops the others as soon as one fails, and reports that failure rather than theirs. */
async function allOrNothing<const T extends readonly Promise<RunningServer>[]>(
  starting: T,
  stack: AsyncDisposableStack,
  failed: AbortController,
  signal: AbortSignal,
): Promise<{ [K in keyof T]: RunningServer }> {
  const settled = await Promise.allSettled(
    starting.map((each) =>
      each.catch((error: unknown) => {
        failed.abort(error);
        throw error;
      }),
    ),
  );
  const running = settled.flatMap((each) => (each.status === "fulfilled" ? [stack.use(each.value)] : []));
  if (running.length < starting.length) throw signal.reason; // The first of: a failure, the caller's wish.
  return running as { [K in keyof T]: RunningServer };
}

/** A service that is not ours: asked for its version, never stopped. */
async function existing(
  name: string,
  url: string,
  variable: string,
  greet: (url: string) => Promise<string>,
): Promise<RunningServer> {
  try {
    return { url, version: await greet(url), [Symbol.asyncDispose]: async () => undefined };
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message || cause.name : String(cause);
    throw new Error(`${variable} names ${name} at ${withoutPassword(url)}, which cannot be used: ${reason}`, { cause });
  }
}

function withoutPassword(url: string): string {
  return url.replace(/\/\/[^@/]*@/, "//");
}

function requireVersion(name: keyof typeof OLDEST, version: string): void {
  const oldest: readonly number[] = OLDEST[name];
  const numbers = version.split(/[.-]/).map(Number);
  for (const [i, least] of oldest.entries()) {
    const number = numbers[i] ?? 0;
    if (number > least) return;
    if (number < least) throw new Error(`${name} ${version} is too old: ${oldest.join(".")} or newer is needed`);
  }
}
