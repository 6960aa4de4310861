import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import type { TestProject } from "vitest/node";
import { startServices } from "#src/dev/services.ts";

declare module "vitest" {
  export interface ProvidedContext {
    databaseUrl: string;
    natsUrl: string;
    redisUrl: string;
    /** Every test file's database is a copy of this one, which holds the migrated, empty schema. */
    templateDatabase: string;
  }
}

const TEMPLATE_DATABASE = "posthorn_template";

/** Starts one Postgres, NATS and Redis for the whole run, on data that is removed afterwards. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const services = await startServices({
    dataDir: mkdtempSync(join(tmpdir(), "posthorn-test-")),
    keep: false,
    durable: false,
    log: (line) => process.stderr.write(`${line}\n`),
  });
  try {
    await makeTemplate(services.databaseUrl);
  } catch (error) {
    await services[Symbol.asyncDispose]();
    throw error;
  }
  project.provide("databaseUrl", services.databaseUrl);
  project.provide("natsUrl", services.natsUrl);
  project.provide("redisUrl", services.redisUrl);
  project.provide("templateDatabase", TEMPLATE_DATABASE);
  return async () => services[Symbol.asyncDispose]();
}

async function makeTemplate(databaseUrl: string): Promise<void> {
  const sql = postgres(databaseUrl, { max: 1, onnotice: () => undefined });
  try {
    await sql`create database ${sql(TEMPLATE_DATABASE)}`;
    const url = new URL(databaseUrl);
    url.pathname = `/${TEMPLATE_DATABASE}`;
    const { migrate } = await import("#src/store/migrate.ts");
    await migrate(url.href, new Date());
    // Postgres copies only a database that nobody is connected to.
    await sql`alter database ${sql(TEMPLATE_DATABASE)} with is_template true allow_connections false`;
  } finally {
    await sql.end();
  }
}
