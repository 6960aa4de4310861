import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import postgres from "postgres";
import { afterEach, expect, inject, test } from "vitest";
import { serversNaming } from "#src/dev/leftovers.ts";
import { greetNats } from "#src/dev/nats.ts";
import { greetPostgres } from "#src/dev/postgres.ts";
import { greetRedis } from "#src/dev/redis.ts";
import { runningServices, type ServiceUrls, type StartServicesOptions, startServices } from "#src/dev/services.ts";

const cleanUp: (() => unknown)[] = [];
afterEach(async () => {
  for (const each of cleanUp.splice(0).reverse()) await each();
});

test("all three servers answer, keep their data between starts, and are gone after stopping", async () => {
  const dataDir = newDataDir();
  const first = await start(dataDir);
  await expect(greetAll(first)).resolves.toBeDefined();
  expect(first.versions.postgres).toMatch(/^\d+\.\d+/);
  expect(await runningServices(dataDir)).toMatchObject({ databaseUrl: first.databaseUrl });
  await query(first.databaseUrl, (sql) => sql`create table kept as select 42 as answer`);
  await first[Symbol.asyncDispose]();
  expect(await serversIn(dataDir, "services")).toEqual([]);
  expect(await runningServices(dataDir)).toBeUndefined();

  const began = performance.now();
  await using second = await start(dataDir);
  expect(performance.now() - began).toBeLessThan(5_000);
  expect(second.databaseUrl).toBe(first.databaseUrl);
  expect(await query(second.databaseUrl, (sql) => sql`select answer from kept`)).toEqual([{ answer: 42 }]);
});

test("a second run in the same directory gets servers and data of its own", async () => {
  const dataDir = newDataDir();
  await using first = await start(dataDir);
  await using second = await start(dataDir);
  for (const name of ["databaseUrl", "natsUrl", "redisUrl"] as const) expect(second[name]).not.toBe(first[name]);
  await query(first.databaseUrl, (sql) => sql`create table mine ()`);
  expect(await query(second.databaseUrl, (sql) => sql`select to_regclass('mine') as found`)).toEqual([{ found: null }]);
});

test("two runs that start at the same moment both succeed", async () => {
  const dataDir = newDataDir();
  const both = await Promise.all([start(dataDir), start(dataDir)]);
  await Promise.all(both.map(greetAll));
  await Promise.all(both.map((each) => each[Symbol.asyncDispose]()));
});

test("nothing runs on after the owner is killed with SIGKILL, and its passing data is removed", async () => {
  const dataDir = newDataDir();
  const owner = await startOwner(dataDir, "erase");
  expect(await serversIn(dataDir, "services")).toHaveLength(3);
  owner.child.kill("SIGKILL");
  await allGone(dataDir);
});

test.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)("nothing runs on after %s", async (signal) => {
  const dataDir = newDataDir();
  const owner = await startOwner(dataDir, "erase");
  owner.child.kill(signal);
  await allGone(dataDir);
});

test("servers that outlived both owner and keepers are ended, and their data is used again", async () => {
  const dataDir = newDataDir();
  const owner = await startOwner(dataDir, "keep");
  await query(owner.urls.databaseUrl, (sql) => sql`create table survives ()`);
  const orphans = await serversIn(dataDir, "services");
  await killKeepersOf(orphans);
  owner.child.kill("SIGKILL");
  await once(owner.child, "exit");
  expect(await serversIn(dataDir, "services")).toEqual(orphans);

  const lines: string[] = [];
  await using services = await start(dataDir, { log: (line) => lines.push(line) });
  expect(lines.filter((line) => line.includes("left behind"))).toHaveLength(3);
  const now = await serversIn(dataDir, "services");
  expect(now.filter((pid) => orphans.includes(pid))).toEqual([]);
  const found = await query(services.databaseUrl, (sql) => sql`select to_regclass('survives')::text as found`);
  expect(found).toEqual([{ found: "survives" }]);
});

test("a server that is given by its address is used, and neither started nor stopped", async () => {
  const dataDir = newDataDir();
  const database = inject("databaseUrl");
  const services = await start(dataDir, { urls: { database } });
  expect(services.databaseUrl).toBe(database);
  expect(existsSync(join(dataDir, "services/postgres"))).toBe(false);
  await services[Symbol.asyncDispose]();
  await expect(greetPostgres(database)).resolves.toMatch(/^\d/);

  const natsUrl = inject("natsUrl");
  const redisUrl = inject("redisUrl");
  const unused = join(dataDir, "unused");
  await using none = await start(unused, { urls: { database, nats: natsUrl, redis: redisUrl } });
  expect([none.natsUrl, none.redisUrl]).toEqual([natsUrl, redisUrl]);
  expect(existsSync(unused)).toBe(false);
});

test("an address at which nothing answers is named in the error, without its password, and nothing stays running", async () => {
  const dataDir = newDataDir();
  const silent = createServer().listen(0, "127.0.0.1");
  await once(silent, "listening");
  const { port } = silent.address() as { port: number };
  silent.close();
  const starting = start(dataDir, { urls: { database: `postgres://me:secret@127.0.0.1:${port}/x` } });
  const error = await starting.catch((reason: Error) => reason);
  expect(error).toMatchObject({ message: expect.stringContaining("POSTHORN_DATABASE_URL") });
  expect(error).toMatchObject({ message: expect.not.stringContaining("secret") });
  expect(await serversIn(dataDir, "services")).toEqual([]);
});

test("a start that is given up stops what had started", async () => {
  const dataDir = newDataDir();
  const stop = new AbortController();
  const starting = start(dataDir, { signal: stop.signal });
  await until(async () => (await serversIn(dataDir, "services")).length > 0);
  stop.abort(new Error("changed my mind"));
  await expect(starting).rejects.toThrow("changed my mind");
  expect(await serversIn(dataDir, "services")).toEqual([]);
});

test("a server that stops by itself is reported with the end of its log", async () => {
  const dataDir = newDataDir();
  const reported = Promise.withResolvers<string>();
  await using _services = await start(dataDir, { log: (line) => /by itself/.test(line) && reported.resolve(line) });
  for (const pid of await serversNaming(marks(dataDir, "services").nats)) process.kill(pid, "SIGTERM");
  expect(await reported.promise).toMatch(/^NATS stopped by itself/);
});

/** Entered by the user Postgres runs as, and gone after the test. */
function newDataDir(): string {
  const parent = realpathSync(mkdtempSync(join(tmpdir(), "posthorn-runner-")));
  cleanUp.push(() => rmSync(parent, { recursive: true, force: true }));
  return join(parent, "data");
}

function start(dataDir: string, options: Partial<StartServicesOptions> = {}) {
  return startServices({ dataDir, durable: false, log: () => undefined, ...options });
}

async function startOwner(
  dataDir: string,
  keep: "keep" | "erase",
): Promise<{ child: ChildProcess; urls: ServiceUrls }> {
  const script = join(import.meta.dirname, "owner.ts");
  const child = spawn(process.execPath, [script, dataDir, keep], { stdio: ["ignore", "pipe", "inherit"] });
  cleanUp.push(() => child.kill("SIGKILL"));
  if (!child.stdout) throw new Error("no stdout");
  const [line] = (await once(createInterface(child.stdout), "line")) as [string];
  return { child, urls: JSON.parse(line) as ServiceUrls };
}

function marks(dataDir: string, slot: string) {
  return {
    postgres: { program: "postgres", path: join(dataDir, slot, "postgres/data") },
    nats: { program: "nats-server", path: join(dataDir, slot, "nats/nats.conf") },
    redis: { program: "redis-server", path: join(dataDir, slot, "redis/redis.conf") },
  };
}

async function serversIn(dataDir: string, slot: string): Promise<number[]> {
  return (await Promise.all(Object.values(marks(dataDir, slot)).map(serversNaming))).flat().sort();
}

/** Servers and, as their owner wanted it, their data. */
async function allGone(dataDir: string): Promise<void> {
  await until(async () => (await serversIn(dataDir, "services")).length === 0);
  await until(async () => ["postgres", "nats", "redis"].every((name) => !existsSync(join(dataDir, "services", name))));
}

/** Kills the shell above each server together with its waiting half: they share a process group, the server is in it too. */
async function killKeepersOf(servers: readonly number[]): Promise<void> {
  const { execFileSync } = await import("node:child_process");
  const table = execFileSync("ps", ["-axo", "pid=,pgid=,comm="], { encoding: "utf8" })
    .trim()
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .map(([pid, group, name]) => ({ pid: Number(pid), group: Number(group), name }));
  const groups = new Set(table.filter(({ pid }) => servers.includes(pid)).map(({ group }) => group));
  const keepers = table.filter(({ group, name }) => groups.has(group) && name === "sh");
  // Stopped first: one half that sees the other die would still end its server.
  for (const signal of ["SIGSTOP", "SIGKILL"] as const) for (const { pid } of keepers) process.kill(pid, signal);
}

async function query(url: string, ask: (sql: postgres.Sql) => Promise<postgres.RowList<postgres.Row[]>>) {
  const sql = postgres(url, { max: 1 });
  try {
    return [...(await ask(sql))];
  } finally {
    await sql.end();
  }
}

async function greetAll(urls: ServiceUrls): Promise<string[]> {
  return Promise.all([greetPostgres(urls.databaseUrl), greetNats(urls.natsUrl), greetRedis(urls.redisUrl)]);
}

/** For what happens in processes that are not ours to await. */
async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await delay(20);
}
