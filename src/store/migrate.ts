import { fileURLToPath } from "node:url";
import { drizzle } from "drizzle-orm/postgres-js";
import { migrate as applyMigrations } from "drizzle-orm/postgres-js/migrator";
import postgres from "postgres";
import { WITH_ARRAYS } from "./array-types.ts";
import { createPartitions } from "./partitions.ts";

const FOLDER = fileURLToPath(new URL("./migrations", import.meta.url));
/** Any constant will do, as long as every version of Posthorn uses the same. */
export const MIGRATION_LOCK = 7_041_995;

/**
 * Brings the database to this version's schema and creates the coming partitions. Safe to run from many processes at
 * once: they take turns under an advisory lock, which the migrator itself does not. Needs a role that may create tables
 * and roles; `databaseUrl` must not lead through a pooler in transaction mode.
 */
export async function migrate(databaseUrl: string, now: Date): Promise<void> {
  const sql = postgres(databaseUrl, { max: 1, onnotice: () => undefined, connect_timeout: 10, ...WITH_ARRAYS });
  try {
    await sql`select pg_advisory_lock(${MIGRATION_LOCK})`;
    await applyMigrations(drizzle(sql), { migrationsFolder: FOLDER });
    await createPartitions(sql, now);
  } finally {
    // Ending the session gives the lock back.
    await sql.end({ timeout: 5 });
  }
}

/** Creates the partitions of the coming months that are missing, and returns them. Needs the tables' owner. */
export async function maintainPartitions(databaseUrl: string, now: Date): Promise<string[]> {
  const sql = postgres(databaseUrl, { max: 1, onnotice: () => undefined, connect_timeout: 10, ...WITH_ARRAYS });
  try {
    await sql`select pg_advisory_lock(${MIGRATION_LOCK})`;
    return await createPartitions(sql, now);
  } finally {
    await sql.end({ timeout: 5 });
  }
}
