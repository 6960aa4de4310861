import { join } from "node:path";
import postgres from "postgres";
import { type Services, startServices } from "#src/dev/services.ts";
import type { LoadClient } from "./load.ts";

/** What the command line says about a run. */
export type Wishes = {
  /** How long each system is measured; peers for half of it. */
  readonly seconds: number;
  /** Overrides of the scenario's own numbers. */
  readonly users?: number | undefined;
  readonly callers?: number | undefined;
  readonly window?: number | undefined;
  readonly rate?: number | undefined;
  readonly count?: number | undefined;
  readonly rows?: number | undefined;
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
export async function benchServices(say: (line: string) => void, signal: AbortSignal): Promise<Services> {
  const { POSTHORN_DATABASE_URL: database, POSTHORN_NATS_URL: nats, POSTHORN_REDIS_URL: redis } = process.env;
  const services = await startServices({
    dataDir: join(ROOT, ".data/bench"),
    keep: false,
    durable: true,
    log: say,
    signal,
    urls: { database: database || undefined, nats: nats || undefined, redis: redis || undefined },
  });
  try {
    if (!database) await ageWal(services.databaseUrl);
    return services;
  } catch (error) {
    await services[Symbol.asyncDispose]();
    throw error;
  }
}

/** As many as `min_wal_size` keeps. */
const WAL_FILES = 60;

/**
 * Gives a new cluster what one that has run for a while has: files of WAL to write over. Without them every 16 MB, here
 * every second or so, whoever commits first fills a new file with zeros, and all other commits wait for it.
 */
async function ageWal(databaseUrl: string): Promise<void> {
  const sql = postgres(databaseUrl, { max: 1, onnotice: () => undefined });
  try {
    for (let n = 0; n < WAL_FILES; n++) {
      await sql`select pg_logical_emit_message(false, 'bench', '')`;
      await sql`select pg_switch_wal()`;
    }
    await sql`checkpoint`;
  } finally {
    await sql.end();
  }
}
