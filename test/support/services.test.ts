import { Redis } from "ioredis";
import { connect } from "nats";
import postgres from "postgres";
import { expect, test } from "vitest";
import { freshServices, testServices } from "./services.ts";

const services = await testServices();

test("a test file has a migrated database that another file cannot see", async () => {
  await using other = await freshServices();
  const mine = postgres(services.databaseUrl, { max: 1 });
  const theirs = postgres(other.databaseUrl, { max: 1 });
  try {
    const tables = await mine`select 1 from information_schema.tables where table_schema = 'public'`;
    expect(tables.length).toBeGreaterThan(0);
    await mine`create table only_here (n int)`;
    expect(await theirs`select to_regclass('only_here') as found`).toEqual([{ found: null }]);
  } finally {
    await Promise.all([mine.end(), theirs.end()]);
  }
});

test("what a namespace made on NATS and Redis goes with it, and nothing else does", async () => {
  const redis = new Redis(services.redisUrl);
  const connection = await connect({ servers: services.natsUrl });
  const manager = await connection.jetstreamManager();
  const make = async (namespace: string) => {
    await redis.set(`${namespace}:key`, "1");
    await manager.streams.add({ name: `${namespace.toUpperCase()}_WORK`, subjects: [`${namespace}.work`] });
  };
  try {
    const other = await freshServices();
    await make(other.namespace);
    await make(services.namespace);
    await other[Symbol.asyncDispose]();

    expect(await redis.exists(`${other.namespace}:key`, `${services.namespace}:key`)).toBe(1);
    const streams = (await manager.streams.list().next()).map((each) => each.config.name);
    expect(streams).toContain(`${services.namespace.toUpperCase()}_WORK`);
    expect(streams).not.toContain(`${other.namespace.toUpperCase()}_WORK`);
  } finally {
    await connection.close();
    redis.disconnect();
  }
});
