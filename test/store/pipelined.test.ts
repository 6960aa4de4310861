import postgres from "postgres";
import { afterAll, expect, onTestFinished, test } from "vitest";
import { openStore, type Store, type Tx } from "#src/store/store.ts";
import { startProxy } from "../fault/lab/proxy.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

const { databaseUrl } = await testServices();
const sql = postgres(databaseUrl, { max: 1, onnotice: () => undefined });
afterAll(() => sql.end());

const TENANT = "01890000-0000-7000-8000-00000000000b";

function open(url = databaseUrl): Store {
  const store = openStore({
    url,
    hotPoolSize: 1,
    poolSize: 1,
    statementTimeoutMs: 10_000,
    lockTimeoutMs: 10_000,
    prepare: true,
  });
  onTestFinished(() => store[Symbol.asyncDispose]());
  return store;
}
const addUser = (tx: Tx, id: string) => tx`
  insert into users (tenant_id, id, roles, created_at, updated_at) values (${TENANT}, ${id}, '{}', now(), now())`;
const users = (...ids: string[]) => sql`
  select id from users where tenant_id = ${TENANT} and id = any(${ids}) order by id`;

/** Runs `work` while no answer arrives, and gives what that has stored. */
async function unanswered(id: string, work: (store: Store) => Promise<unknown>): Promise<unknown> {
  const proxy = await startProxy(databaseUrl);
  const store = open(proxy.url);
  onTestFinished(() => proxy[Symbol.asyncDispose]());
  // Its statements are prepared on the connection by this, which does take answers.
  await store.tenant(TENANT, (tx) => addUser(tx, `${id}-first`));
  proxy.silence("to-client");
  const done = work(store);
  const [row] = await until(
    () => users(id),
    (rows) => rows.length > 0,
  );
  await proxy.heal();
  await done;
  return row;
}

test("what is sent at once is committed before anything is answered", async () => {
  const stored = await unanswered("at-once", (store) => store.tenantAtOnce(TENANT, (tx) => addUser(tx, "at-once")));
  expect(stored).toEqual({ id: "at-once" });
});

test("the last that a transaction sends is committed before it is answered", async () => {
  const stored = await unanswered("last", (store) =>
    store.tenant(TENANT, async (tx, last) => {
      last();
      const [added] = await Promise.all([addUser(tx, "last"), tx`select 1`]);
      return added.count;
    }),
  );
  expect(stored).toEqual({ id: "last" });
});

test("of what is sent at once all is stored or nothing", async () => {
  const store = open();
  const broken = store.tenantAtOnce(TENANT, (tx) =>
    Promise.all([addUser(tx, "good"), addUser(tx, "twice"), addUser(tx, "twice"), addUser(tx, "behind")]),
  );
  await expect(broken).rejects.toMatchObject({ code: "23505" });
  // An error that the work swallows is an error all the same.
  const swallowed = store.tenantAtOnce(TENANT, (tx) =>
    Promise.allSettled([addUser(tx, "good"), addUser(tx, "twice"), addUser(tx, "twice")]),
  );
  await expect(swallowed).rejects.toMatchObject({ code: "23505" });
  expect(await users("good", "twice", "behind")).toEqual([]);
});

test("what comes after the last is refused, and not sent in another's transaction", async () => {
  const store = open();
  const late = store.tenantAtOnce(TENANT, async (tx) => {
    await addUser(tx, "in-time");
    await addUser(tx, "too-late");
  });
  await expect(late).rejects.toThrow("over");
  expect(await store.tenant(TENANT, async (tx) => (await tx`select 1 as n`)[0])).toEqual({ n: 1 });
  expect(await users("in-time", "too-late")).toEqual([{ id: "in-time" }]);
});

test("work that fails before Postgres has begun leaves the connection to others", async () => {
  const store = open();
  for (let n = 0; n < 20; n++) {
    const failing = store.tenant(TENANT, (tx) => {
      if (n % 2 === 0) void addUser(tx, "undone").catch(() => undefined);
      return Promise.reject(new Error("at once"));
    });
    await expect(failing).rejects.toThrow("at once");
  }
  expect(await store.tenant(TENANT, (tx) => tx`select 1 as n`)).toEqual([{ n: 1 }]);
  expect(await users("undone")).toEqual([]);
});

test("each transaction is its tenant's from its first statement on, whatever the tenant is called", async () => {
  const store = open();
  const tenants = [TENANT, "o'brien", "'; reset role; --", "back\\slash"];
  const read = (tx: Tx) => tx<{ name: string }[]>`select current_setting('posthorn.tenant') as name`;
  const names = await Promise.all(
    tenants.flatMap((tenant) => [store.tenant(tenant, read), store.tenantAtOnce(tenant, read)]),
  );
  expect(names.map(([row]) => row?.name)).toEqual(tenants.flatMap((tenant) => [tenant, tenant]));
});

test("a store that is closed waits for its transactions", async () => {
  const store = open();
  const begun = Promise.withResolvers<void>();
  const goOn = Promise.withResolvers<void>();
  const working = store.tenant(TENANT, async (tx) => {
    await addUser(tx, "closing");
    begun.resolve();
    await goOn.promise;
  });
  await begun.promise;
  const closed = store[Symbol.asyncDispose]();
  goOn.resolve();
  await Promise.all([working, closed]);
  expect(await users("closing")).toEqual([{ id: "closing" }]);
});
