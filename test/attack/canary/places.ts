import { once } from "node:events";
import { readdir, readFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { Redis } from "ioredis";
import { connect } from "nats";
import postgres from "postgres";
import { tenantTables } from "../../support/tenant-tables.ts";

/** Every file below a directory, in one. */
export async function filesUnder(directory: string): Promise<Buffer> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return Buffer.concat(await Promise.all(files.map((file) => readFile(file))));
}

/** Every key of a Redis with its value, as Redis would write them to disk. */
export async function redisContent(url: string): Promise<Buffer> {
  const redis = new Redis(url);
  try {
    const keys = await redis.keysBuffer("*");
    const values = await Promise.all(keys.map((key) => redis.dumpBuffer(key)));
    return Buffer.concat([...keys, ...values.filter((value) => value !== null)]);
  } finally {
    redis.disconnect();
  }
}

/** All rows of every table as text; bytes are hex there. */
export async function postgresContent(url: string): Promise<Record<string, string>> {
  const sql = postgres(url, { max: 1, onnotice: () => undefined });
  try {
    const tables = await tenantTables(sql);
    const contents = await Promise.all(
      tables.map(async ({ name }) => {
        const rows = await sql<{ row: string }[]>`select t::text as row from ${sql(name)} t`;
        return [name, rows.map(({ row }) => row).join("\n")] as const;
      }),
    );
    return Object.fromEntries(contents);
  } finally {
    await sql.end();
  }
}

/**
 * Hears every message of a NATS server: subjects and headers of all, and what is in those for the queue. JetStream's files
 * keep something or nothing of what was worked off, and live events are for those whose content it is.
 */
export async function natsTraffic(url: string): Promise<AsyncDisposable & { heads(): string; queued(): string }> {
  const connection = await connect({ servers: url });
  const heads: string[] = [];
  const queued: string[] = [];
  const all = connection.subscribe(">", {
    callback: (_, message) => {
      const headers = [...(message.headers ?? [])].map(([name, values]) => `${name}: ${values.join(", ")}`);
      heads.push([message.subject, ...headers].join("\n"));
      if (message.subject.includes(".ingest.")) queued.push(Buffer.from(message.data).toString("latin1"));
    },
  });
  return {
    heads: () => heads.join("\n"),
    queued: () => queued.join("\n"),
    async [Symbol.asyncDispose]() {
      all.unsubscribe();
      await connection.close();
    },
  };
}

/** A collector that takes spans by OTLP over HTTP and keeps them as they came. */
export async function spanSink(): Promise<AsyncDisposable & { readonly url: string; spans(): Buffer }> {
  const bodies: Buffer[] = [];
  const server = createServer(async (request, response) => {
    for await (const chunk of request) bodies.push(chunk as Buffer);
    response.writeHead(200, { "content-type": "application/json" }).end("{}");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans: () => Buffer.concat(bodies),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
    },
  };
}
