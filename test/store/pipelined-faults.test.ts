import postgres from "postgres";
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from "vitest";
import { pipelined } from "#src/store/pipelined.ts";
import { openStore, type Store, type Tx } from "#src/store/store.ts";
import { startProxy } from "../fault/lab/proxy.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

// What fails on the way of a pipelined transaction is told, keeps nothing, and leaves the connection to the next.

const { databaseUrl } = await testServices();
const sql = postgres(databaseUrl, { max: 2, onnotice: () => undefined });
const TENANT = "01890000-0000-7000-8000-0000000000f1";
const OTHER = "01890000-0000-7000-8000-0000000000f2";

beforeAll(async () => {
  await sql.unsafe(`create schema pipelined_faults;
    create table pipelined_faults.later (n int unique deferrable initially deferred);
    create table pipelined_faults.wider (n int);
    insert into pipelined_faults.wider values (1);
    grant usage on schema pipelined_faults to posthorn_tenant;
    grant select, insert on all tables in schema pipelined_faults to posthorn_tenant`);
});
afterAll(async () => {
  await sql`drop schema pipelined_faults cascade`;
  await sql.end();
});

function open(hotPoolSize = 1, url = databaseUrl): Store {
  const pools = { hotPoolSize, poolSize: 1, prepare: true };
  const store = openStore({ url, ...pools, statementTimeoutMs: 10_000, lockTimeoutMs: 10_000 });
  onTestFinished(() => store[Symbol.asyncDispose]());
  return store;
}
const addUser = (tx: Tx, id: string, tenant = TENANT) => tx`
  insert into users (tenant_id, id, roles, created_at, updated_at) values (${tenant}, ${id}, '{}', now(), now())`;
const kept = async (like: string) =>
  (await sql<{ id: string }[]>`select id from users where id like ${`${like}%`} order by id`).map(({ id }) => id);
const name = (tx: Tx) => tx<{ tenant: string }[]>`select current_setting('posthorn.tenant', true) as tenant`;

const nameOf = (store: Store) => store.tenant(TENANT, name);

/** Every connection of the pool takes transactions still, and each is its tenant's. */
async function isWhole(store: Store, size: number): Promise<void> {
  const all = Array.from({ length: size }, () => Promise.withResolvers<void>());
  const together = Promise.all(all.map(({ promise }) => promise));
  together.catch(() => undefined);
  const outcomes = await Promise.allSettled(
    all.map(({ resolve, reject }) =>
      store
        .tenant(TENANT, async (tx) => {
          expect(await name(tx)).toEqual([{ tenant: TENANT }]);
          resolve();
          await together;
        })
        .catch((error: unknown) => {
          // Nor do the others wait for it: they would hold their connections from whoever looks next.
          reject(error);
          throw error;
        }),
    ),
  );
  for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
}

test("a statement that nobody waits for, and that fails, fails the transaction", async () => {
  const store = open();
  const unheard = store.tenant(TENANT, async (tx) => {
    await addUser(tx, "unheard");
    addUser(tx, "unheard").execute();
    // By then it is on its way.
    await new Promise((resolve) => setImmediate(resolve));
    return "done";
  });
  await expect(unheard).rejects.toMatchObject({ code: "23505" });
  expect(await kept("unheard")).toEqual([]);
});

test("a constraint that fails at COMMIT is told", async () => {
  const store = open();
  const twice = (tx: Tx) => tx`insert into pipelined_faults.later values (1), (1)`;
  await expect(store.tenantAtOnce(TENANT, twice)).rejects.toMatchObject({ code: "23505" });
  await expect(store.tenant(TENANT, twice)).rejects.toMatchObject({ code: "23505" });
  expect(await sql`select from pipelined_faults.later`).toHaveLength(0);
  await isWhole(store, 1);
});

test.each(["tenantAtOnce", "tenant"] as const)(
  "a statement whose plan the schema has left behind runs again as its tenant's (%s)",
  async (how) => {
    const store = open();
    const read = (tx: Tx) => tx`
      select w.*, current_setting('posthorn.tenant', true) as tenant from pipelined_faults.wider w where n = ${1}`;
    await store[how](TENANT, read);
    await store[how](TENANT, read);
    const column = `added_${how.toLowerCase()}`;
    await sql.unsafe(`alter table pipelined_faults.wider add ${column} int`);
    expect(await store[how](TENANT, read)).toMatchObject([{ n: 1, tenant: TENANT, [column]: null }]);
    await isWhole(store, 1);
  },
);

test.each(["tenantAtOnce", "tenant"] as const)(
  "a value that cannot be sent fails its transaction, with that for the reason, and no other (%s)",
  async (how) => {
    const store = open();
    const at = (tx: Tx, time: unknown) => tx`select ${time as Date}::timestamptz as at`;
    await store[how](TENANT, (tx) => at(tx, new Date(0)));
    for (const [wrong, told] of [
      [undefined, { code: "UNDEFINED_VALUE" }],
      [new Date(Number.NaN), { message: "Invalid time value" }],
    ] as const) {
      const behind = store[how](TENANT, (tx) => Promise.all([addUser(tx, `unsent-${how}`), at(tx, wrong)]));
      await expect(behind).rejects.toMatchObject(told);
      await expect(store[how](TENANT, (tx) => at(tx, wrong))).rejects.toMatchObject(told);
      await isWhole(store, 1);
    }
    const alone = store.tenant(TENANT, async (tx) => {
      await addUser(tx, `unsent-${how}`);
      await at(tx, undefined);
    });
    await expect(alone).rejects.toMatchObject({ code: "UNDEFINED_VALUE" });
    await isWhole(store, 1);
    expect(await kept("unsent")).toEqual([]);
  },
);

test.each(["select 1/0", "commit;select 1/0"])(
  "a transaction that Postgres refuses to begin (%s) sends nothing more, and leaves the connection to others",
  async (opening) => {
    const client = postgres(databaseUrl, {
      max: 1,
      connection: { role: "posthorn_tenant" },
      onnotice: () => undefined,
    });
    onTestFinished(() => client.end());
    const begin = pipelined(client);
    let second: unknown;
    const failing = begin(opening, async (tx) => {
      await addUser(tx, "unbegun").catch(() => undefined);
      second = await Promise.resolve(tx)
        .then((late) => late`select 1`)
        .catch((error: unknown) => error);
    });
    await expect(failing).rejects.toMatchObject({ cause: { code: "22012" } });
    expect(await begin(`set local posthorn.tenant = '${OTHER}'`, name)).toEqual([{ tenant: OTHER }]);
    expect(second).toMatchObject({ message: "The transaction is over." });
    expect(await kept("unbegun")).toEqual([]);
  },
);

test("what does not fit at once is sent in order, and COMMIT behind it", async () => {
  const store = open();
  const many = await store.tenantAtOnce(TENANT, (tx) =>
    Promise.all(Array.from({ length: 250 }, (_, n) => tx`select ${n}::int as n`)),
  );
  expect(many.map(([row]) => row?.n)).toEqual(many.map((_, n) => n));
  const text = "x".repeat(4_000_000);
  for (let n = 0; n < 3; n++) {
    const large = await store.tenant(TENANT, async (tx, last) => {
      await tx`select length(${text}) as length`;
      await new Promise((resolve) => setImmediate(resolve));
      last();
      const [length] = await Promise.all([tx`select length(${text}) as length`, addUser(tx, `large-${n}`)]);
      return length;
    });
    expect(large).toEqual([{ length: text.length }]);
  }
  expect(await kept("large")).toEqual(["large-0", "large-1", "large-2"]);
});

test.each(["one host", "two hosts"])(
  "a connection that ends in its first transaction is used again (%s)",
  async (hosts) => {
    const proxy = await startProxy(databaseUrl);
    const url =
      hosts === "one host" ? proxy.url : proxy.url.replace(new URL(proxy.url).host, (host) => `${host},${host}`);
    const store = open(1, url);
    onTestFinished(() => proxy[Symbol.asyncDispose]());
    for (const how of ["fin", "rst"] as const) {
      const cut = store.tenant(TENANT, async (tx) => {
        await addUser(tx, "cut");
        proxy.cut(how);
        await Promise.allSettled([tx`select pg_sleep(5)`, tx`select 1`]);
        // Of these none may be taken for sent by the next.
        await Promise.allSettled([tx`select 2`, tx`select 3`]);
      });
      await expect(cut).rejects.toMatchObject({ code: expect.stringMatching(/^(CONNECTION_|ECONN)/) });
      await until(
        () => nameOf(store).catch(() => []),
        (rows) => rows.length > 0,
      );
      await isWhole(store, 1);
    }
    expect(await kept("cut")).toEqual([]);
  },
);

test("two tenants' transactions at once, some of which fail, are slow or killed: each sees its own, and none is half kept", async () => {
  const SIZE = 5;
  const store = open(SIZE);
  const kill = () =>
    sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'posthorn' and pid <> pg_backend_pid()
      and usename = current_user and datname = current_database() and query like '%pipelined-stress%' order by random() limit 1`;
  const one = async (n: number): Promise<{ n: number; ok: boolean }> => {
    const tenant = n % 2 === 0 ? TENANT : OTHER;
    const id = (part: number) => `stress-${String(n).padStart(3, "0")}-${part}`;
    const work = async (tx: Tx, last: () => void) => {
      if (n % 5 === 0) last();
      const parts: Promise<unknown>[] = [addUser(tx, id(0), tenant), addUser(tx, id(1), tenant)];
      if (n % 7 === 0) parts.push(tx`select 1 / ${0}::int`);
      if (n % 11 === 0) parts.push(tx`select pg_sleep(0.05), 'pipelined-stress'`);
      if (n % 13 === 0) parts.push(addUser(tx, "stranger", tenant === TENANT ? OTHER : TENANT));
      const seen = tx<{ tenant: string }[]>`select distinct tenant_id::text as tenant from users`;
      // With the others, or it would come after the last.
      await Promise.all([...parts, seen]);
      for (const row of await seen) expect(row.tenant).toBe(tenant);
      if (n % 5 === 0) return;
      if (n % 17 === 0) throw new Error("changed its mind");
      expect(await name(tx)).toEqual([{ tenant }]);
    };
    return store.tenant(tenant, work).then(
      () => ({ n, ok: true }),
      (error: unknown) => {
        expect(error).not.toMatchObject({ matcherResult: expect.anything() });
        return { n, ok: false };
      },
    );
  };
  let killing = true;
  const killer = (async () => {
    while (killing) await kill();
  })();
  const outcomes: { n: number; ok: boolean }[] = [];
  const told = await Promise.all(Array.from({ length: 200 }, (_, n) => one(n))).finally(() => {
    killing = false;
  });
  await killer;
  outcomes.push(...told);
  await until(
    () =>
      isWhole(store, SIZE)
        .then(() => true)
        .catch(() => false),
    (whole) => whole,
  );
  const stored = new Set(await kept("stress-"));
  for (const { n, ok } of outcomes) {
    const id = `stress-${String(n).padStart(3, "0")}`;
    const both = [0, 1].map((part) => stored.has(`${id}-${part}`));
    expect([n, both[0]]).toEqual([n, both[1]]);
    // Of what is told as done all is kept; what fails is not, but where COMMIT was on its way when the connection ended.
    if (ok) expect([n, ...both]).toEqual([n, true, true]);
    else if (n % 7 === 0 || n % 13 === 0 || (n % 17 === 0 && n % 5 !== 0))
      expect([n, ...both]).toEqual([n, false, false]);
    if (n % 7 === 0 || n % 13 === 0 || (n % 17 === 0 && n % 5 !== 0)) expect([n, ok]).toEqual([n, false]);
  }
  const done = outcomes.filter(({ ok }) => ok);
  expect(done.length).toBeGreaterThan(50);
  expect(done.filter(({ n }) => n % 5 === 0).length).toBeGreaterThan(10);
});

test("the driver's list of connections stays short, however many transactions a pool that is never in full use has had", async () => {
  const store = open(3);
  await isWhole(store, 3);
  let longest = 0;
  const indexOf = Array.prototype.indexOf;
  const spy = vi.spyOn(Array.prototype, "indexOf").mockImplementation(function (this: unknown[], item, from) {
    if (typeof item === "object" && item !== null && "idleTimer" in item) longest = Math.max(longest, this.length);
    return indexOf.call(this, item, from);
  });
  try {
    for (let n = 0; n < 800; n++) await nameOf(store);
  } finally {
    spy.mockRestore();
  }
  expect(longest).toBeGreaterThan(2);
  expect(longest).toBeLessThan(300);
  await isWhole(store, 3);
});
