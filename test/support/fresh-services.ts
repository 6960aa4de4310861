import { randomBytes } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { Redis } from "ioredis";
import { connect } from "nats";
import postgres from "postgres";
import { migrate } from "#src/store/migrate.ts";

/** What one test file has to itself on the servers that all share. */
export type TestServices = {
  /** A database with the migrated, empty schema that nobody else uses. */
  databaseUrl: string;
  natsUrl: string;
  redisUrl: string;
  /** Lower-case letters and digits, unique in this run: begins every stream, subject and Redis key of the file. */
  namespace: string;
};

/** Servers that many share, with a database to copy: it holds the migrated, empty schema. */
export type SharedServers = { databaseUrl: string; natsUrl: string; redisUrl: string; templateDatabase: string };

/** A corner of the servers, removed with all that is in it when disposed. */
export async function servicesOn(shared: SharedServers): Promise<TestServices & AsyncDisposable> {
  const { databaseUrl, natsUrl, redisUrl, templateDatabase } = shared;
  const namespace = `t${randomBytes(6).toString("hex")}`;
  await onServer(databaseUrl, (sql) => copyTemplate(sql, templateDatabase, namespace));
  const own = new URL(databaseUrl);
  own.pathname = `/${namespace}`;
  return {
    databaseUrl: own.href,
    natsUrl,
    redisUrl,
    namespace,
    async [Symbol.asyncDispose]() {
      await Promise.all([
        onServer(databaseUrl, (sql) => sql`drop database if exists ${sql(namespace)} with (force)`),
        dropStreams(natsUrl, namespace),
        dropKeys(redisUrl, namespace),
      ]);
    },
  };
}

const TEMPLATE_DATABASE = "posthorn_template";

/** Makes the database that the others are copies of; returns its name. */
export async function makeTemplate(databaseUrl: string): Promise<string> {
  const sql = postgres(databaseUrl, { max: 1, onnotice: () => undefined });
  try {
    await sql`create database ${sql(TEMPLATE_DATABASE)}`;
    const url = new URL(databaseUrl);
    url.pathname = `/${TEMPLATE_DATABASE}`;
    await migrate(url.href, new Date());
    // Postgres copies only a database that nobody is connected to.
    await sql`alter database ${sql(TEMPLATE_DATABASE)} with is_template true allow_connections false`;
    return TEMPLATE_DATABASE;
  } finally {
    await sql.end();
  }
}

async function copyTemplate(sql: postgres.Sql, template: string, name: string): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      await sql`create database ${sql(name)} template ${sql(template)}`;
      return;
    } catch (error) {
      // Autovacuum may be looking at the template just now (55006: object in use).
      if (tries === 20 || (error as { code?: string }).code !== "55006") throw error;
      await delay(100);
    }
  }
}

async function onServer(databaseUrl: string, use: (sql: postgres.Sql) => Promise<unknown>): Promise<void> {
  const sql = postgres(databaseUrl, { max: 1, onnotice: () => undefined });
  try {
    await use(sql);
  } finally {
    await sql.end({ timeout: 5 });
  }
}

/** Streams whose name begins with the namespace, in either case: stream names are often written in capitals. */
async function dropStreams(natsUrl: string, namespace: string): Promise<void> {
  const connection = await connect({ servers: natsUrl });
  try {
    const manager = await connection.jetstreamManager();
    for await (const stream of manager.streams.list()) {
      if (stream.config.name.toLowerCase().startsWith(namespace)) await manager.streams.delete(stream.config.name);
    }
  } finally {
    await connection.close();
  }
}

async function dropKeys(redisUrl: string, namespace: string): Promise<void> {
  const redis = new Redis(redisUrl);
  try {
    for await (const keys of redis.scanStream({ match: `${namespace}*`, count: 1_000 })) {
      if ((keys as string[]).length > 0) await redis.unlink(...(keys as string[]));
    }
  } finally {
    redis.disconnect();
  }
}
