import { chmodSync, existsSync, mkdtempSync, realpathSync } from "node:fs";
import { readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { installedServers, NATS_SERVER, REDIS_SERVER } from "#src/dev/install.ts";
import { type Mark, serversNaming } from "#src/dev/leftovers.ts";
import { startNats } from "#src/dev/nats.ts";
import { startPostgres } from "#src/dev/postgres.ts";
import { startRedis } from "#src/dev/redis.ts";
import type { RunningServer, ServerOptions } from "#src/dev/server.ts";
import { TOOLS_DIR } from "#src/dev/services.ts";
import { until } from "../../support/until.ts";

/** A real server that faults may be done to. It keeps its address and its data through all of them. */
export type LabServer = {
  readonly url: string;
  running(): Promise<boolean>;
  /** Sends the signal and returns when the server has gone. */
  end(signal: NodeJS.Signals): Promise<void>;
  /** Starts it again, at the same address and with the same data. */
  start(): Promise<void>;
  /** SIGSTOP to all its processes: connections stay, new ones are taken by the kernel, and nothing answers. */
  pause(): Promise<void>;
  resume(): Promise<void>;
};

export type Servers = AsyncDisposable & {
  readonly postgres: LabServer;
  readonly nats: LabServer & {
    /** Deletes JetStream's files, whether it runs or not. */
    wipe(): Promise<void>;
  };
  readonly redis: LabServer;
};

export type ServersOptions = {
  /** Where one keeps its data, if not in a directory of its own that is removed afterwards. */
  dirs?: { postgres?: string; nats?: string };
  /** What the starting of servers says, and their ends. */
  log?: (line: string) => void;
};

/** Starts a Postgres, a NATS and a Redis of one's own. Disposing stops them and removes their data. */
export async function startServers({ dirs = {}, log = () => undefined }: ServersOptions = {}): Promise<Servers> {
  await using stack = new AsyncDisposableStack();
  const root = realpathSync(mkdtempSync(join(tmpdir(), "posthorn-fault-")));
  chmodSync(root, 0o711); // Postgres may run as another user.
  stack.defer(() => rm(root, { recursive: true, force: true, maxRetries: 5 }));
  const { signal } = new AbortController();
  const place = (name: string, dir = join(root, name)): ServerOptions => ({ dir, erase: false, log, signal });
  const programs = await installedServers([NATS_SERVER, REDIS_SERVER], { toolsDir: TOOLS_DIR, log, signal });

  const at = { postgres: place("postgres", dirs.postgres), nats: place("nats", dirs.nats), redis: place("redis") };
  const marks = {
    postgres: { program: "postgres", path: join(at.postgres.dir, "data") },
    nats: { program: "nats-server", path: join(at.nats.dir, "nats.conf") },
    redis: { program: "redis-server", path: join(at.redis.dir, "redis.conf") },
  };
  const [database, nats, redis] = await Promise.all([
    labServer(marks.postgres, stack, () => startPostgres({ ...at.postgres, durable: false })),
    labServer(marks.nats, stack, () => startNats(programs(NATS_SERVER), at.nats)),
    labServer(marks.redis, stack, () => startRedis(programs(REDIS_SERVER), at.redis)),
  ]);
  await keepCommitted(database.url);
  const running = stack.move();
  return {
    postgres: database,
    nats: {
      ...nats,
      async wipe() {
        const store = join(at.nats.dir, "jetstream");
        for (const name of existsSync(store) ? await readdir(store) : [])
          await rm(join(store, name), { recursive: true, force: true, maxRetries: 5 });
      },
    },
    redis,
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/** Against the end of a process, not of the machine: a commit is with the kernel when it is answered. */
async function keepCommitted(databaseUrl: string): Promise<void> {
  // In this session too: a kill right afterwards would take back the very setting.
  const sql = postgres(databaseUrl, { max: 1, connection: { synchronous_commit: "on" } });
  await sql`alter database posthorn set synchronous_commit = on`;
  await sql.end();
}

async function labServer(
  mark: Mark,
  stack: AsyncDisposableStack,
  start: () => Promise<RunningServer>,
): Promise<LabServer> {
  let running = await start();
  const { url } = running;
  const send = async (signal: NodeJS.Signals) => {
    for (const parent of await serversNaming(mark)) {
      // The parent first: while it stands still, it makes no more children.
      deliver(parent, signal);
      for (const child of await childrenOf(parent)) deliver(child, signal);
    }
  };
  stack.defer(async () => {
    await send("SIGCONT");
    await running[Symbol.asyncDispose]();
  });
  return {
    url,
    running: async () => (await serversNaming(mark)).length > 0,
    async end(signal) {
      for (const pid of await serversNaming(mark)) deliver(pid, signal);
      await until(
        () => serversNaming(mark),
        (pids) => pids.length === 0,
      );
      await running[Symbol.asyncDispose]();
    },
    async start() {
      running = await start();
      if (running.url !== url) throw new Error(`${mark.program} came back at ${running.url} and not at ${url}`);
    },
    pause: () => send("SIGSTOP"),
    resume: () => send("SIGCONT"),
  };
}

async function childrenOf(parent: number): Promise<number[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const parents = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/stat`, "utf8").catch(() => "")));
  // pid (name) state parent …; a name may hold anything, brackets too.
  const isChild = (stat: string) => Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]) === parent;
  return pids.filter((_, n) => isChild(parents[n] ?? "")).map(Number);
}

function deliver(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has gone already.
  }
}
