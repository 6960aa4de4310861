import { execFile } from "node:child_process";
import { mkdirSync } from "node:fs";
import { chown, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import postgres from "postgres";
import { quietEnvironment } from "./keeper.ts";
import { endLeftovers } from "./leftovers.ts";
import { passwordIn } from "./password.ts";
import { postgresBinaries } from "./postgres-binaries.ts";
import { type RunningServer, runServer, type ServerOptions } from "./server.ts";
import { type OtherUser, otherUser } from "./unprivileged.ts";

const USER = "posthorn";
const DATABASE = "posthorn";

/** For two cores that run everything. What decides durability stays at its safe default, because we measure with it. */
const SETTINGS = {
  listen_addresses: "127.0.0.1",
  unix_socket_directories: "", // Socket paths are limited to 107 bytes, a checkout's path is not.
  max_connections: "200",
  shared_buffers: "256MB",
  effective_cache_size: "1GB",
  work_mem: "8MB",
  maintenance_work_mem: "128MB",
  wal_buffers: "16MB",
  min_wal_size: "1GB",
  max_wal_size: "4GB",
  checkpoint_timeout: "15min",
  random_page_cost: "1.1",
  jit: "off", // Costs more than it saves on short statements.
  autovacuum_naptime: "10s",
  timezone: "UTC",
  log_timezone: "UTC",
  log_checkpoints: "off",
};

/** For data that is thrown away: nothing waits for the disk. */
const FORGETFUL_SETTINGS = { fsync: "off", synchronous_commit: "off", full_page_writes: "off" };

/**
 * Starts the Postgres that came with npm on `<dir>/data`, creating the cluster on the first start, with one superuser, a
 * random password and an empty database `posthorn`. As root it runs as another user (see otherUser).
 *
 * @param options.durable false gives up fsync: for tests, whose data nobody keeps.
 */
export async function startPostgres(options: ServerOptions & { durable: boolean }): Promise<RunningServer> {
  const { dir, durable } = options;
  const binaries = await postgresBinaries();
  mkdirSync(dir, { recursive: true, mode: 0o711 });
  const data = join(dir, "data");
  const mark = { program: "postgres", path: data };
  await endLeftovers(mark, "SIGINT", options.log);
  await setAsideOtherVersion(data, binaries.major, options.log);
  const user = process.getuid?.() === 0 ? await userFor(binaries.postgres, dir) : undefined;
  const password = await passwordIn(join(dir, "password"));
  await createCluster(binaries.initdb, dir, data, password, user, options);
  await forgetReusedPid(join(data, "postmaster.pid"));
  const settings = { ...SETTINGS, ...(durable ? {} : FORGETFUL_SETTINGS) };
  return runServer(
    {
      name: "Postgres",
      mark,
      stopSignal: "INT", // "Fast" shutdown; TERM would wait for clients to leave.
      command: async (port) => [
        ...(user?.prefix ?? []),
        binaries.postgres,
        "-D",
        data,
        "-p",
        String(port),
        ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]),
      ],
      greet: async (port) => {
        const url = `postgres://${USER}:${password}@127.0.0.1:${port}`;
        return { url: `${url}/${DATABASE}`, version: await greetPostgres(`${url}/postgres`, DATABASE) };
      },
    },
    options,
  );
}

/**
 * Asks a Postgres for its version, and creates a database there when one is named and missing.
 *
 * @throws when it does not answer within five seconds or refuses us.
 */
export async function greetPostgres(url: string, create?: string): Promise<string> {
  const sql = postgres(url, { max: 1, connect_timeout: 5, onnotice: () => undefined });
  try {
    const [row] = await sql<{ version: string }[]>`select current_setting('server_version') as version`;
    if (create !== undefined) {
      const present = await sql`select 1 from pg_database where datname = ${create}`;
      if (present.length === 0) await sql`create database ${sql(create)}`;
    }
    return row?.version.split(" ")[0] ?? "";
  } finally {
    await sql.end({ timeout: 5 });
  }
}

/** Creates the cluster under another name first, so that a kill in the middle leaves nothing that looks complete. */
async function createCluster(
  initdb: string,
  dir: string,
  data: string,
  password: string,
  user: OtherUser | undefined,
  { log, signal, durable }: ServerOptions & { durable: boolean },
): Promise<void> {
  if ((await clusterVersion(data)) !== undefined) return;
  log("creating a Postgres cluster, once");
  const fresh = join(dir, "data.new");
  // An owner that was killed while it did the same may have left these at work.
  for (const program of ["initdb", "postgres"]) await endLeftovers({ program, path: fresh }, "SIGTERM", log);
  const passwordFile = join(dir, "password.initdb");
  await rm(fresh, { recursive: true, force: true });
  mkdirSync(fresh, { mode: 0o700 });
  await writeFile(passwordFile, password, { mode: 0o600 });
  if (user) await Promise.all([fresh, passwordFile].map((path) => chown(path, user.uid, user.gid)));
  const [program, ...args] = [
    ...(user?.prefix ?? []),
    initdb,
    "-D",
    fresh,
    `--username=${USER}`,
    `--pwfile=${passwordFile}`,
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    // The same order of strings on every machine, whatever locales it has.
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    ...(durable ? [] : ["--no-sync"]),
  ];
  try {
    await promisify(execFile)(program ?? initdb, args, { cwd: "/", env: quietEnvironment(process.env), signal });
  } catch (error) {
    signal.throwIfAborted();
    const said = (error as { stderr?: string }).stderr?.trim() || String(error);
    throw new Error(`the Postgres cluster could not be created in ${fresh}: ${said}`, { cause: error });
  } finally {
    await rm(passwordFile, { force: true });
  }
  await rename(fresh, data);
}

/**
 * Postgres refuses to start when the pid that its last run left in this file is alive. No server of ours runs on this
 * data any more, so a live pid is some other program's, which in a container with its small pids is common. A dead one is
 * left to Postgres, which also looks for survivors of that run in shared memory.
 */
async function forgetReusedPid(file: string): Promise<void> {
  const pid = Number.parseInt(await readFile(file, "utf8").catch(() => ""), 10);
  if (Number.isNaN(pid)) return;
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return;
  }
  await rm(file, { force: true });
}

async function userFor(binary: string, dir: string): Promise<OtherUser> {
  const user = await otherUser(binary, dir);
  await chown(dir, user.uid, user.gid);
  return user;
}

/** A cluster of another major version cannot be opened. It is development data: keep it, but begin anew. */
async function setAsideOtherVersion(data: string, major: string, log: (line: string) => void): Promise<void> {
  const found = await clusterVersion(data);
  if (found === undefined || found === major) return;
  const aside = `${data}-${found}`;
  await rm(aside, { recursive: true, force: true });
  await rename(data, aside);
  log(`the Postgres cluster was made by version ${found}; it is kept as ${aside}`);
}

function clusterVersion(data: string): Promise<string | undefined> {
  return readFile(join(data, "PG_VERSION"), "utf8").then(
    (text) => text.trim(),
    () => undefined,
  );
}
