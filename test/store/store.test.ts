import { setTimeout as delay } from "node:timers/promises";
import { sql as statement } from "drizzle-orm";
import postgres from "postgres";
import { afterAll, expect, onTestFinished, test } from "vitest";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { toFault } from "#src/rpc/to-fault.ts";
import { openStore, type StoreConfig, type Tx } from "#src/store/store.ts";
import { faultOf } from "../support/rejection.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

const { databaseUrl } = await testServices();
const sql = postgres(databaseUrl, { max: 1, onnotice: () => undefined });
afterAll(() => sql.end());

const TENANT = "01890000-0000-7000-8000-00000000000a";
const open = (config: Partial<StoreConfig> = {}) => {
  const store = openStore({
    url: databaseUrl,
    hotPoolSize: 2,
    poolSize: 1,
    statementTimeoutMs: 10_000,
    lockTimeoutMs: 10_000,
    prepare: true,
    ...config,
  });
  onTestFinished(() => store[Symbol.asyncDispose]());
  return store;
};
/** What a caller is told of it. */
const told = async (call: Promise<unknown>) => {
  const error = await call.then(
    () => expect.fail("it succeeded"),
    (thrown: unknown) => thrown,
  );
  return toFault(error, "request").reason;
};
const addUser = (tx: Tx, id: string) => tx`
  insert into users (tenant_id, id, roles, created_at, updated_at) values (${TENANT}, ${id}, '{}', now(), now())`;
const rename = (tx: Tx, id: string) => tx`
  update users set display_name = display_name || '+' where tenant_id = ${TENANT} and id = ${id}`;

test("of two that wait for each other one is run again, and both are done once", async () => {
  const store = open();
  await store.tenant(TENANT, (tx) => Promise.all([addUser(tx, "left"), addUser(tx, "right")]));
  let runs = 0;
  const both = Promise.withResolvers<void>();
  const cross = (first: string, second: string) =>
    store.tenant(TENANT, async (tx) => {
      await rename(tx, first);
      if (++runs === 2) both.resolve();
      await both.promise;
      await rename(tx, second);
      return first;
    });
  expect(await Promise.all([cross("left", "right"), cross("right", "left")])).toEqual(["left", "right"]);
  expect(runs).toBe(3);
  const names = await sql`select display_name as name from users where id in ('left', 'right')`;
  expect(names).toEqual([{ name: "++" }, { name: "++" }]);
});

test.each([
  ["deadlock", "40P01", 2],
  ["serialization failure", "40001", 2],
  ["anything else", "23505", 1],
])("%s is tried as often as it may help, and then told", async (_, code, times) => {
  const store = open();
  let runs = 0;
  const fail = () => {
    runs++;
    return `do $$ begin raise exception using errcode = '${code}', message = 'made up'; end $$`;
  };
  const works = {
    tenant: store.tenant(TENANT, (tx) => tx.unsafe(fail())),
    tenantDb: store.tenantDb(TENANT, (db) => db.execute(statement.raw(fail()))),
    system: store.system((tx) => tx.unsafe(fail())),
    systemDb: store.systemDb((db) => db.execute(statement.raw(fail()))),
  };
  for (const result of await Promise.allSettled(Object.values(works))) {
    const { reason } = result as PromiseRejectedResult;
    expect(reason.code ?? reason.cause?.code).toBe(code);
  }
  expect(runs).toBe(4 * times);
});

test("what waits for a connection is bounded, and what waited is still done", async () => {
  const store = open({ hotPoolSize: 1 });
  const gate = Promise.withResolvers<void>();
  const first = store.tenant(TENANT, async (tx) => {
    await tx`select 1`;
    await gate.promise;
  });
  const waiting = Array.from({ length: 199 }, (_, n) => store.tenant(TENANT, (tx) => tx`select ${n}::int as n`));
  expect(await faultOf(store.tenant(TENANT, (tx) => tx`select 1`))).toMatchObject({ reason: ErrorReason.OVERLOADED });
  // Others have connections of their own.
  expect(await store.tenantDb(TENANT, (db) => db.execute(statement`select 1 as n`))).toEqual([{ n: 1 }]);
  gate.resolve();
  await first;
  expect((await Promise.all(waiting)).map(([row]) => row?.n)).toEqual(Array.from({ length: 199 }, (_, n) => n));
  expect(await store.tenant(TENANT, (tx) => tx`select 2 as n`)).toEqual([{ n: 2 }]);
});

test("a statement that takes too long is a dependency that does not answer, and the connection goes on", async () => {
  const store = open({ hotPoolSize: 1, statementTimeoutMs: 100 });
  expect(await told(store.tenant(TENANT, (tx) => tx`select pg_sleep(5)`))).toBe(ErrorReason.DEPENDENCY_UNAVAILABLE);
  const cold = store.tenantDb(TENANT, (db) => db.execute(statement`select pg_sleep(5)`));
  expect(await told(cold)).toBe(ErrorReason.DEPENDENCY_UNAVAILABLE);
  expect(await store.tenant(TENANT, (tx) => tx`select 1 as n`)).toEqual([{ n: 1 }]);
  expect(await store.tenantDb(TENANT, (db) => db.execute(statement`select 1 as n`))).toEqual([{ n: 1 }]);
});

test("a lock that is not given in time is a dependency that does not answer", async () => {
  const store = open({ lockTimeoutMs: 100 });
  await store.tenant(TENANT, (tx) => addUser(tx, "locked"));
  await store.tenant(TENANT, async (tx) => {
    await rename(tx, "locked");
    expect(await told(store.tenant(TENANT, (other) => rename(other, "locked")))).toBe(
      ErrorReason.DEPENDENCY_UNAVAILABLE,
    );
  });
});

test("a transaction whose work never ends is given up, and its connection with it", async () => {
  const store = open({ hotPoolSize: 1, statementTimeoutMs: 100 });
  let pid = 0;
  const stuck = store.tenant(TENANT, async (tx) => {
    [{ pid }] = (await tx`select pg_backend_pid() as pid`) as unknown as [{ pid: number }];
    await new Promise(() => undefined);
  });
  expect(await told(stuck)).toBe(ErrorReason.DEPENDENCY_UNAVAILABLE);
  expect(await sql`select from pg_stat_activity where pid = ${pid}`).toEqual([]);
  expect(await store.tenant(TENANT, (tx) => tx`select 1 as n`)).toEqual([{ n: 1 }]);
});

test("a connection that is killed fails the call on it, and no other", async () => {
  const store = open({ hotPoolSize: 2 });
  const pids: number[] = [];
  const gate = Promise.withResolvers<void>();
  const hold = (last: (tx: Tx) => Promise<unknown>) =>
    store.tenant(TENANT, async (tx) => {
      const [row] = await tx<{ pid: number }[]>`select pg_backend_pid() as pid`;
      pids.push(row?.pid ?? 0);
      return last(tx);
    });
  const victim = hold((tx) => tx`select pg_sleep(20)`);
  const said = told(victim);
  await until(
    async () => pids.length,
    (known) => known === 1,
  );
  const bystander = hold(async (tx) => {
    await gate.promise;
    return tx`select 'unharmed' as said`;
  });
  await until(
    async () => pids.length,
    (known) => known === 2,
  );
  await sql`select pg_terminate_backend(${pids[0] ?? 0})`;
  expect(await said).toBe(ErrorReason.DEPENDENCY_UNAVAILABLE);
  expect(await store.tenant(TENANT, (tx) => tx`select 'next' as said`)).toEqual([{ said: "next" }]);
  gate.resolve();
  expect(await bystander).toEqual([{ said: "unharmed" }]);
});

test("a connection that is killed between two statements takes its transaction with it", async () => {
  const store = open({ hotPoolSize: 1 });
  const gate = Promise.withResolvers<void>();
  let late: Promise<unknown> = Promise.resolve();
  const dead = store.tenant(TENANT, async (tx) => {
    const [row] = await tx`select pg_backend_pid() as pid`;
    await sql`select pg_terminate_backend(${row?.pid})`;
    await gate.promise;
    late = (async () => addUser(tx, "late"))();
    await late;
  });
  expect(await told(dead)).toBe(ErrorReason.DEPENDENCY_UNAVAILABLE);
  // Its work goes on while the connection is another's.
  await store.tenant(TENANT, async (tx) => {
    await addUser(tx, "alive");
    gate.resolve();
    await delay(20);
  });
  await expect(late).rejects.toThrow("over");
  expect(await sql`select id from users where id in ('late', 'alive')`).toEqual([{ id: "alive" }]);
});

test("connections may be killed again and again", async () => {
  const store = open({ hotPoolSize: 2, poolSize: 2 });
  const said = new Set<string>();
  for (let round = 0; round < 30; round++) {
    const works = Array.from({ length: 4 }, () =>
      store.tenant(TENANT, (tx) => Promise.all([tx`select pg_sleep(0.01)`, tx`select 1`])),
    );
    const cold = store.tenantDb(TENANT, (db) => db.execute(statement`select pg_sleep(0.01)`));
    const settled = Promise.allSettled([...works, cold]);
    await sql`
      select pg_terminate_backend(pid) from pg_stat_activity
      where application_name = 'posthorn' and datname = current_database() and query like '%pg_sleep%'
        and pid <> pg_backend_pid()`;
    for (const result of await settled)
      said.add(result.status === "rejected" ? String(toFault(result.reason, "").reason) : "done");
  }
  expect([...said].toSorted()).toEqual([String(ErrorReason.DEPENDENCY_UNAVAILABLE), "done"]);
  for (let n = 0; n < 4; n++) expect(await store.tenant(TENANT, (tx) => tx`select 1 as n`)).toEqual([{ n: 1 }]);
});

test("connections that were killed while nobody used them are replaced unnoticed", async () => {
  const store = open({ hotPoolSize: 1 });
  const [row] = await store.tenant(TENANT, (tx) => tx`select pg_backend_pid() as pid`);
  await sql`select pg_terminate_backend(${row?.pid})`;
  await until(
    async () => (await sql`select from pg_stat_activity where pid = ${row?.pid}`).count,
    (count) => count === 0,
  );
  await delay(10); // The socket's end has to be read, which nothing tells.
  expect(await store.tenant(TENANT, (tx) => tx`select 1 as n`)).toEqual([{ n: 1 }]);
});

test("a transaction commits all or nothing", async () => {
  const store = open();
  const broken = store.tenant(TENANT, async (tx) => {
    await addUser(tx, "half");
    throw new Error("by the work");
  });
  await expect(broken).rejects.toThrow("by the work");
  // An error that the work swallows is an error all the same.
  const swallowed = store.tenant(TENANT, async (tx) => {
    await addUser(tx, "half");
    await addUser(tx, "half").catch(() => undefined);
  });
  await expect(swallowed).rejects.toMatchObject({ code: "23505" });
  expect(await sql`select from users where id = 'half'`).toEqual([]);
});
