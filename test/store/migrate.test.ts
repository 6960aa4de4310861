import { randomBytes } from "node:crypto";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import { drizzle } from "drizzle-orm/postgres-js";
import { migrate as applyMigrations } from "drizzle-orm/postgres-js/migrator";
import postgres from "postgres";
import { expect, inject, onTestFinished, test } from "vitest";
import { Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { SendRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import { maintainPartitions, migrate } from "#src/store/migrate.ts";
import { PARTITIONED } from "#src/store/partitions.ts";
import { insertion, months, rowOf, tenantTables } from "../support/tenant-tables.ts";

const NOW = new Date("2031-12-31T23:59:59.999Z");
const TENANT = "01890000-0000-7000-8000-00000000000a";

/** A database that nothing was done to, and a connection to it. */
async function empty() {
  const server = postgres(inject("databaseUrl"), { max: 1, onnotice: () => undefined });
  const name = `m${randomBytes(6).toString("hex")}`;
  await server`create database ${server(name)}`;
  const url = new URL(inject("databaseUrl"));
  url.pathname = `/${name}`;
  const sql = postgres(url.href, { max: 1, onnotice: () => undefined });
  onTestFinished(async () => {
    await sql.end();
    await server`drop database ${server(name)} with (force)`;
    await server.end();
  });
  return { url: url.href, sql };
}

const monthsOf = (...suffixes: string[]) =>
  PARTITIONED.flatMap(({ table }) => suffixes.map((suffix) => `${table}_${suffix}`)).toSorted();
const names = async (sql: postgres.Sql) => (await months(sql)).map(({ name }) => name).toSorted();
/** Everything there is, by the number it was created under. */
const objects = (sql: postgres.Sql) => sql`
  select (select jsonb_agg(oid order by oid) from pg_class where relnamespace = 'public'::regnamespace) as tables,
    (select jsonb_agg(oid order by oid) from pg_policy) as policies,
    (select jsonb_agg(m order by id) from drizzle.__drizzle_migrations m) as migrations`;

test("four that migrate an empty database at once do it once, and a later one changes nothing", async () => {
  const { url, sql } = await empty();
  await Promise.all(Array.from({ length: 4 }, () => migrate(url, NOW)));
  const hashes = await sql<{ hash: string }[]>`select hash from drizzle.__drizzle_migrations`;
  expect(hashes.length).toBeGreaterThan(0);
  expect(new Set(hashes.map(({ hash }) => hash)).size).toBe(hashes.length);
  expect(await names(sql)).toEqual(monthsOf("2031_11", "2031_12", "2032_01", "2032_02"));

  const before = await objects(sql);
  await migrate(url, NOW);
  expect(await objects(sql)).toEqual(before);
  const [locks] = await sql`select count(*)::int as held from pg_locks where locktype = 'advisory'
    and database = (select oid from pg_database where datname = current_database())`;
  expect(locks).toEqual({ held: 0 });
});

test("the coming months are created when their time comes, once, by however many", async () => {
  const { url } = await empty();
  await migrate(url, NOW);
  expect(await maintainPartitions(url, NOW)).toEqual([]);
  // A millisecond later another month begins.
  const next = new Date(NOW.getTime() + 1);
  const created = await Promise.all([maintainPartitions(url, next), maintainPartitions(url, next)]);
  expect(created.flat().toSorted()).toEqual(monthsOf("2032_03"));
  // After two years of sleep: last month, this one and two to come, and nothing in between.
  const later = new Date("2034-03-15T12:00:00Z");
  expect((await maintainPartitions(url, later)).toSorted()).toEqual(
    monthsOf("2034_02", "2034_03", "2034_04", "2034_05"),
  );
});

test("a row lands in its month, from the first millisecond to the last, and nowhere without one", async () => {
  const { url, sql } = await empty();
  await migrate(url, NOW);
  const tables = (await tenantTables(sql)).filter(({ partitioned }) => partitioned);
  expect(tables.map(({ name }) => name)).toEqual(PARTITIONED.map(({ table }) => table).toSorted());
  const instants = {
    "2031_11": "2031-11-01",
    "2031_12": "2031-12-01",
    "2032_01": "2032-01-01",
    "2032_02": "2032-02-01",
  };
  const afterLast = Date.UTC(2032, 2, 1);
  for (const table of tables) {
    for (const [suffix, day] of Object.entries(instants)) {
      const first = new Date(`${day}T00:00:00Z`);
      const last = new Date(Date.UTC(first.getUTCFullYear(), first.getUTCMonth() + 1, 1) - 1);
      for (const [at, unique] of [
        [first, "first"],
        [last, "zzlast"],
      ] as const) {
        const [row] = await sql.unsafe(
          `${insertion(table, rowOf(table, TENANT, unique, at))} returning tableoid::regclass::text as month`,
        );
        expect(row, `${table.name} at ${at.toISOString()}`).toEqual({ month: `${table.name}_${suffix}` });
      }
    }
    for (const outside of [new Date(Date.UTC(2031, 10, 1) - 1), new Date(afterLast)]) {
      await expect(sql.unsafe(insertion(table, rowOf(table, TENANT, "out", outside)))).rejects.toMatchObject({
        code: "23514",
      });
    }
  }
});

test("schedules that were there before they had a lane get it from what they send", async () => {
  const { url, sql } = await empty();
  await migrateBefore("0010", url);
  const types = { task: Priority.HIGH, general: Priority.LOW };
  for (const [key, priority] of Object.entries(types)) {
    await sql`insert into types (tenant_id, key, category, default_priority, default_channels, revision, created_at, updated_at)
      values (${TENANT}, ${key}, 'general', ${priority}, '{1}', 1, ${NOW}, ${NOW})`;
  }
  const content = { title: "Hi", body: "long ".repeat(100), data: { deep: [{ in: "it" }] } };
  const requests = {
    named: { type: "task", content, priority: Priority.CRITICAL },
    of_type: { to: { topics: ["a"] }, content, tags: ["x"], type: "task", dedupWindow: { seconds: -1n } },
    plain: { content },
    typeless: { content, type: "gone" },
  };
  const encoded = Object.entries(requests).map(
    ([key, request]) => [key, toBinary(SendRequestSchema, create(SendRequestSchema, request))] as const,
  );
  for (const [key, request] of [...encoded, ["broken", Buffer.from("broken")] as const]) {
    await sql`insert into schedules (tenant_id, key, request, user_ids, users_only, rule, start_time, time_zone, state,
        not_before, revision, created_at, updated_at)
      values (${TENANT}, ${key}, ${Buffer.from(request)}, '{}', true, '', '', '', 1, ${NOW}, 1, ${NOW}, ${NOW})`;
  }
  await migrate(url, NOW);
  const filled = await sql`select key, type, priority::int, lane::int from schedules order by key`;
  expect(filled).toEqual([
    { key: "broken", type: "general", priority: 0, lane: Priority.LOW },
    { key: "named", type: "task", priority: Priority.CRITICAL, lane: Priority.CRITICAL },
    { key: "of_type", type: "task", priority: 0, lane: Priority.HIGH },
    { key: "plain", type: "general", priority: 0, lane: Priority.LOW },
    { key: "typeless", type: "gone", priority: 0, lane: Priority.NORMAL },
  ]);
});

/** Applies the migrations up to one, that one left out. */
async function migrateBefore(tag: string, url: string): Promise<void> {
  const all = join(import.meta.dirname, "../../src/store/migrations");
  const some = await mkdtemp(join(tmpdir(), "migrations-"));
  onTestFinished(() => rm(some, { recursive: true }));
  await cp(all, some, { recursive: true });
  const file = join(some, "meta/_journal.json");
  const journal = JSON.parse(await readFile(file, "utf8")) as { entries: { tag: string }[] };
  journal.entries = journal.entries.filter((entry) => entry.tag < tag);
  await writeFile(file, JSON.stringify(journal));
  // Of its own: Drizzle replaces the parsers of the client it is given.
  const sql = postgres(url, { max: 1, onnotice: () => undefined });
  await applyMigrations(drizzle(sql), { migrationsFolder: some });
  await sql.end();
}
