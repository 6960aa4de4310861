import { randomBytes } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Services, startServices } from "#src/dev/services.ts";
import { type Child, nodeChild } from "./child.ts";
import type { Job, LoadClient } from "./load.ts";
import { coresBetween, cpuTime, peakRssMb } from "./processes.ts";
import { type CpuProfile, profileLines } from "./profile.ts";
import type { Command } from "./server.ts";

/** What the command line says about a run. */
export type Wishes = {
  /** How long each system is measured; peers for half of it. */
  readonly seconds: number;
  /** Overrides of the scenario's own numbers. */
  readonly users?: number | undefined;
  readonly callers?: number | undefined;
  readonly window?: number | undefined;
  readonly peers: boolean;
  readonly profile: boolean;
};

/** What a scenario works with: servers that run, a load client, and a place to say how it goes. */
export type Lab = {
  readonly scenario: string;
  readonly wishes: Wishes;
  readonly services: Services;
  readonly client: LoadClient;
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
};

export const ROOT = join(import.meta.dirname, "../..");
export const RESULTS = join(ROOT, ".results/bench");

/** Real servers that wait for the disk, in a directory that goes with them; or those the environment names. */
export function benchServices(say: (line: string) => void, signal: AbortSignal): Promise<Services> {
  const { POSTHORN_DATABASE_URL: database, POSTHORN_NATS_URL: nats, POSTHORN_REDIS_URL: redis } = process.env;
  return startServices({
    dataDir: join(ROOT, ".data/bench"),
    keep: false,
    durable: true,
    log: say,
    signal,
    urls: { database: database || undefined, nats: nats || undefined, redis: redis || undefined },
  });
}

/** Posthorn in a process of its own. */
export type Server = {
  readonly child: Child;
  readonly address: string;
  readonly tenantId: string;
  readonly apiKey: string;
};

/** Nothing is held back, so that the program is measured and not its limits; all else is as in development. */
const UNLIMITED = {
  POSTHORN_API_KEY_REQUESTS_PER_SECOND: "0",
  POSTHORN_API_TENANT_REQUESTS_PER_SECOND: "0",
  POSTHORN_USER_MAX_PER_MINUTE: "1000000",
  POSTHORN_USER_MAX_PER_HOUR: "1000000",
  POSTHORN_USER_MAX_PER_DAY: "1000000",
  POSTHORN_USER_BURST: "1000000",
  POSTHORN_TENANT_MAX_PER_MINUTE: "0",
};

/** Starts the platform with all its roles. Settings of the environment go over ours, to try them out. */
export async function startServer(lab: Lab, settings: Record<string, string> = {}): Promise<Server & AsyncDisposable> {
  const { services, say, signal } = lab;
  const given = Object.entries(process.env).filter(([name]) => name.startsWith("POSTHORN_"));
  const { PATH, HOME, TMPDIR, NODE_OPTIONS } = process.env;
  const child = nodeChild(join(import.meta.dirname, "server.ts"), {
    name: "server",
    env: {
      PATH,
      HOME,
      ...(TMPDIR === undefined ? {} : { TMPDIR }),
      ...(NODE_OPTIONS === undefined ? {} : { NODE_OPTIONS }),
      POSTHORN_ENV: "development",
      POSTHORN_LOG_LEVEL: "warn",
      POSTHORN_GRPC_PORT: "0",
      POSTHORN_HTTP_PORT: "0",
      POSTHORN_NAMESPACE: `bench${randomBytes(4).toString("hex")}`,
      POSTHORN_STREAM_DRAIN_MS: "0",
      POSTHORN_SHUTDOWN_DRAIN_MS: "1000",
      ...UNLIMITED,
      ...settings,
      ...Object.fromEntries(given),
      POSTHORN_DATABASE_URL: services.databaseUrl,
      POSTHORN_NATS_URL: services.natsUrl,
      POSTHORN_REDIS_URL: services.redisUrl,
    },
    say,
    signal,
  });
  try {
    child.send({});
    const { grpcUrl, tenantId, apiKey } = await child.next("ready");
    return {
      child,
      address: String(grpcUrl),
      tenantId: String(tenantId),
      apiKey: String(apiKey),
      [Symbol.asyncDispose]: () => child[Symbol.asyncDispose](),
    };
  } catch (error) {
    await child[Symbol.asyncDispose]();
    throw error;
  }
}

/** What a load client reports, with its numbers under the names that it gives them. */
export type LoadResult = Record<string, unknown> & {
  rate: number;
  p50Ms: number;
  p90Ms: number;
  p99Ms: number;
  maxMs: number;
  failed: number;
  firstFailure: string;
};

export type LoadRun = {
  result: LoadResult;
  /** Cores each program kept busy while measured. */
  cores: Record<string, number>;
  /** Most memory of the system under load. */
  rssMb: number | undefined;
};

/**
 * Puts the load of `job` on a process and tells how it went. With `profile`, what the process did while it was measured is
 * kept as `.results/bench/<scenario>.cpuprofile` and summed up on standard error.
 */
export async function loadOn(
  lab: Lab,
  job: Job,
  target: { name: string; child: Child; profile?: boolean },
): Promise<LoadRun> {
  const { say, signal } = lab;
  const { child, name } = target;
  await using client = lab.client.start(say, signal);
  const named = new Map([
    [child.pid, name],
    [client.pid, "client"],
  ]);
  const inform = ({ event, ...rest }: { event: string }) => {
    const { count, streams, ms } = rest as { count?: number; streams?: number; ms?: number };
    if (event === "second") say(`${name}: ${count?.toLocaleString("en")}/s`);
    if (event === "open" && streams) say(`${name}: ${streams.toLocaleString("en")} streams open after ${ms} ms`);
  };
  client.send(job);
  await client.next("measuring", inform);
  const before = cpuTime(named);
  const began = performance.now();
  const command = (command: Command) => child.send(command);
  if (target.profile) command({ do: "profile" });
  await client.next("measured", inform);
  const cores = coresBetween(before, cpuTime(named), (performance.now() - began) / 1000);
  if (target.profile) {
    await mkdir(RESULTS, { recursive: true });
    const file = join(RESULTS, `${lab.scenario}.cpuprofile`);
    command({ do: "keep", file });
    await child.next("kept");
    const profile = JSON.parse(await readFile(file, "utf8")) as CpuProfile;
    for (const line of profileLines(profile, ROOT)) say(line);
    say(`the whole profile: ${file}`);
  }
  const { event: _, ...result } = await client.next("result", inform);
  return { result: result as LoadResult, cores, rssMb: peakRssMb(child.pid) };
}

/** Runs one of yardsticks/ that measures by itself, and returns its figures. */
export async function yardstick(
  lab: Lab,
  name: string,
  job: object,
): Promise<{ rate: number; p50Ms: number; p99Ms: number }> {
  lab.say(`measuring ${name}`);
  const script = join(import.meta.dirname, "yardsticks", `${name}.ts`);
  await using child = nodeChild(script, { name, say: lab.say, signal: lab.signal });
  child.send(job);
  const { rate, p50Ms, p99Ms } = await child.next("result");
  return { rate: Number(rate), p50Ms: Number(p50Ms), p99Ms: Number(p99Ms) };
}
