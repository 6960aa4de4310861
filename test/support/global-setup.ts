import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";
import { startServices } from "#src/dev/services.ts";
import { makeTemplate } from "./fresh-services.ts";

declare module "vitest" {
  export interface ProvidedContext {
    databaseUrl: string;
    natsUrl: string;
    redisUrl: string;
    /** Every test file's database is a copy of this one, which holds the migrated, empty schema. */
    templateDatabase: string;
  }
}

/** Starts one Postgres, NATS and Redis for the whole run, on data that is removed afterwards. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const services = await startServices({
    dataDir: mkdtempSync(join(tmpdir(), "posthorn-test-")),
    keep: false,
    durable: false,
    log: (line) => process.stderr.write(`${line}\n`),
  });
  let templateDatabase: string;
  try {
    templateDatabase = await makeTemplate(services.databaseUrl);
  } catch (error) {
    await services[Symbol.asyncDispose]();
    throw error;
  }
  project.provide("databaseUrl", services.databaseUrl);
  project.provide("natsUrl", services.natsUrl);
  project.provide("redisUrl", services.redisUrl);
  project.provide("templateDatabase", templateDatabase);
  return async () => services[Symbol.asyncDispose]();
}
