import { sql as statement } from "drizzle-orm";
import postgres from "postgres";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { newIds } from "#src/ids.ts";
import { openStore, type Tx } from "#src/store/store.ts";
import { testServices } from "../support/services.ts";
import { insertion, months, rowOf, type Table, tenantTables } from "../support/tenant-tables.ts";

const { databaseUrl } = await testServices();
const open = (poolSize: number) =>
  openStore({
    url: databaseUrl,
    hotPoolSize: poolSize,
    poolSize,
    statementTimeoutMs: 5_000,
    lockTimeoutMs: 5_000,
    prepare: true,
  });
const store = open(2);
/** With one connection, the next transaction is on it for certain. */
const alone = open(1);
const sql = postgres(databaseUrl, { max: 1, onnotice: () => undefined });
/** As the store connects, but nobody ever names a tenant. */
const unset = postgres(databaseUrl, {
  max: 1,
  onnotice: () => undefined,
  connection: { role: "posthorn_tenant" } as Record<string, string>,
});
afterAll(async () => {
  await Promise.all([store[Symbol.asyncDispose](), alone[Symbol.asyncDispose](), sql.end(), unset.end()]);
});

const now = new Date();
const newId = newIds(() => new Date());
const tables = await tenantTables(sql);
const existing = await months(sql);
const ALICE = newId();
const BOB = newId();

const refusal = (work: Promise<unknown>) =>
  work.then(
    () => "nothing",
    (error: { code?: string; cause?: { code?: string } }) => error.code ?? error.cause?.code,
  );
/** Nobody's row: of a tenant with no other. */
const stranger = (table: Table, tenantId: string) => insertion(table, rowOf(table, tenantId, newId().slice(-12), now));
const owners = async (tx: Tx, { name, tenantColumn }: Table) =>
  (await tx.unsafe(`select ${tenantColumn} as owner from ${name}`)).map(({ owner }) => owner as string);

beforeAll(async () => {
  await store.system(async (tx) => {
    for (const table of tables) {
      await tx.unsafe(insertion(table, rowOf(table, ALICE, "of alice", now)));
      await tx.unsafe(insertion(table, rowOf(table, BOB, "of bob", now)));
    }
  });
});

test("the catalogue shows the tables that are tested, and the months of some", () => {
  expect(tables.map(({ name }) => name)).toEqual(
    expect.arrayContaining(["tenants", "notifications", "inbox", "types"]),
  );
  expect(existing.length).toBeGreaterThanOrEqual(16);
});

test("neither role owns a table, passes policies or can become a role that does", async () => {
  const roles = await sql`
    select rolname, rolsuper, rolbypassrls, rolcanlogin, rolcreaterole,
      exists (select from pg_class c where c.relowner = r.oid) as owns,
      exists (select from pg_auth_members m where m.member = r.oid) as member
    from pg_roles r where rolname in ('posthorn_tenant', 'posthorn_system') order by rolname`;
  const powerless = {
    rolsuper: false,
    rolbypassrls: false,
    rolcanlogin: false,
    rolcreaterole: false,
    owns: false,
    member: false,
  };
  expect(roles).toEqual([
    { rolname: "posthorn_system", ...powerless },
    { rolname: "posthorn_tenant", ...powerless },
  ]);
  expect(await store.tenant(ALICE, (tx) => tx`select current_user`)).toEqual([{ current_user: "posthorn_tenant" }]);
  expect(await store.system((tx) => tx`select current_user`)).toEqual([{ current_user: "posthorn_system" }]);
});

describe.each(tables.map((table) => [table.name, table] as const))("%s", (_, table) => {
  const { name, tenantColumn } = table;

  test("has row-level security on and one policy for each role", async () => {
    const [found] = await sql`
      select relrowsecurity as secured,
        (select jsonb_agg(jsonb_build_array(p.roles[1], p.cmd, p.permissive) order by p.roles[1]) from pg_policies p
          where p.schemaname = 'public' and p.tablename = c.relname) as policies
      from pg_class c where c.oid = ${name}::regclass`;
    expect(found).toEqual({
      secured: true,
      policies: [
        ["posthorn_system", "ALL", "PERMISSIVE"],
        ["posthorn_tenant", "ALL", "PERMISSIVE"],
      ],
    });
  });

  test("a tenant sees its own rows only, the system all", async () => {
    expect(new Set(await store.tenant(ALICE, (tx) => owners(tx, table)))).toEqual(new Set([ALICE]));
    expect(await store.system((tx) => owners(tx, table))).toEqual(expect.arrayContaining([ALICE, BOB]));
    const cold = await store.tenantDb(BOB, (db) =>
      db.execute(statement.raw(`select ${tenantColumn} as owner from ${name}`)),
    );
    expect(new Set(cold.map(({ owner }) => owner))).toEqual(new Set([BOB]));
  });

  test("a tenant changes and deletes its own rows only", async () => {
    const before = await sql.unsafe(`select * from ${name} where ${tenantColumn} = $1`, [BOB]);
    const undone = new Error("undone");
    const change = store.tenant(ALICE, async (tx) => {
      const updated = await tx.unsafe(
        `update ${name} set ${tenantColumn} = ${tenantColumn} returning ${tenantColumn} as owner`,
      );
      expect(updated.map(({ owner }) => owner)).toEqual([ALICE]);
      expect((await tx.unsafe(`delete from ${name} where ${tenantColumn} = $1`, [BOB])).count).toBe(0);
      expect((await tx.unsafe(`delete from ${name}`)).count).toBe(1);
      throw undone;
    });
    await expect(change).rejects.toBe(undone);
    expect(await sql.unsafe(`select * from ${name} where ${tenantColumn} = $1`, [BOB])).toEqual(before);
  });

  test("a tenant cannot put a row into another, nor move its own there", async () => {
    for (const owner of [BOB, newId()]) {
      expect(await refusal(store.tenant(ALICE, (tx) => tx.unsafe(stranger(table, owner))))).toBe("42501");
      const move = store.tenant(ALICE, (tx) => tx.unsafe(`update ${name} set ${tenantColumn} = $1`, [owner]));
      expect(await refusal(move)).toBe("42501");
    }
  });

  test("nobody without a tenant sees, adds, changes or empties anything", async () => {
    const work = {
      select: (tx: Tx) => tx.unsafe(`select from ${name}`),
      update: (tx: Tx) => tx.unsafe(`update ${name} set ${tenantColumn} = ${tenantColumn}`),
      delete: (tx: Tx) => tx.unsafe(`delete from ${name}`),
    };
    for (const each of Object.values(work)) {
      expect((await store.tenant("", each)).count).toBe(0);
      expect((await unset.begin(each)).count).toBe(0);
    }
    expect(await refusal(unset.begin((tx) => tx.unsafe(stranger(table, ALICE))))).toBe("42501");
    expect(await refusal(store.tenant(ALICE, (tx) => tx.unsafe(`truncate ${name}`)))).toBe("42501");
    expect(await refusal(store.system((tx) => tx.unsafe(`truncate ${name}`)))).toBe("42501");
  });
});

test("months cannot be reached but through their table, where the policies are", async () => {
  for (const { name } of existing) {
    for (const text of [`select from ${name}`, `delete from ${name}`, `update ${name} set tenant_id = '${ALICE}'`]) {
      expect(await refusal(store.tenant(ALICE, (tx) => tx.unsafe(text))), text).toBe("42501");
      expect(await refusal(store.system((tx) => tx.unsafe(text))), text).toBe("42501");
    }
  }
});

test("a tenant can take neither the system's role nor switch its own wall off", async () => {
  for (const text of [
    "alter table users disable row level security",
    "drop policy one_tenant on users",
    "create table mine (n int)",
  ]) {
    expect(await refusal(store.tenant(ALICE, (tx) => tx.unsafe(text))), text).toBe("42501");
  }
});

test("a tenant's name is gone from the connection when its transaction has ended, however it ended", async () => {
  // Ends the transaction by hand to look at what the next one would find.
  const after = (end: "commit" | "rollback") =>
    alone.tenant(ALICE, async (tx) => {
      await tx.unsafe(end);
      const [found] = await tx`
        select nullif(current_setting('posthorn.tenant', true), '') as tenant,
          (select count(*)::int from types) as rows, pg_backend_pid() as pid`;
      return found;
    });
  const { pid } = (await after("commit")) as { pid: number };
  expect(await after("commit")).toEqual({ tenant: null, rows: 0, pid });
  expect(await after("rollback")).toEqual({ tenant: null, rows: 0, pid });

  const broken = alone.tenant(ALICE, (tx) => tx`select * from types where ${"no number"}::int = 1`);
  expect(await refusal(broken)).toBe("22P02");
  const thrown = alone.tenant(ALICE, async (tx) => {
    await tx`select from types`;
    throw new Error("by the work");
  });
  await expect(thrown).rejects.toThrow("by the work");
  expect(await alone.tenant(BOB, (tx) => tx`select tenant_id, pg_backend_pid() as pid from types`)).toEqual([
    { tenant_id: BOB, pid },
  ]);
  expect(await after("rollback")).toEqual({ tenant: null, rows: 0, pid });
});

test("the same holds for what Drizzle runs", async () => {
  const seen = (tenantId: string) =>
    alone.tenantDb(tenantId, (db) => db.execute(statement`select tenant_id as owner from types`));
  await expect(alone.tenantDb(ALICE, (db) => db.execute(statement`select 1 / 0`))).rejects.toThrow();
  expect(await seen(BOB)).toEqual([{ owner: BOB }]);
  expect(await seen("")).toEqual([]);
});

test("a statement that comes after its transaction has failed does not join the next tenant's", async () => {
  let comeLate: () => void = () => undefined;
  const late = new Promise<void>((resolve) => {
    comeLate = resolve;
  });
  let straggler: Promise<unknown> = Promise.resolve();
  const failed = alone.tenant(ALICE, (tx) => {
    straggler = late.then(() => tx`select tenant_id as owner from types`);
    straggler.catch(() => undefined);
    return Promise.all([tx`select 1 / 0`, straggler]);
  });
  expect(await refusal(failed)).toBe("22012");
  await alone.tenant(BOB, async (tx) => {
    await tx`select 1`;
    comeLate();
    const seen = await straggler.catch(() => []);
    expect(seen).toEqual([]);
  });
});
