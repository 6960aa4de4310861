import { type AddressInfo, connect, createServer, Socket } from "node:net";
import postgres from "postgres";
import { expect, onTestFinished, type TestContext, test, vi } from "vitest";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { toFault } from "#src/rpc/to-fault.ts";
import { postgresReady } from "#src/store/ready.ts";
import { openStore, type Store } from "#src/store/store.ts";
import { startProxy } from "../fault/lab/proxy.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

const { databaseUrl } = await testServices();
const TENANT = "01890000-0000-7000-8000-00000000000a";

async function behindProxy(
  finished: TestContext["onTestFinished"] = onTestFinished,
  { statementTimeoutMs = 10_000, poolSize = 2 } = {},
) {
  const proxy = await startProxy(databaseUrl);
  const store = openStore({
    url: proxy.url,
    hotPoolSize: poolSize,
    poolSize,
    statementTimeoutMs,
    lockTimeoutMs: 10_000,
    prepare: true,
  });
  finished(async () => {
    await store[Symbol.asyncDispose]();
    await proxy[Symbol.asyncDispose]();
  });
  return { proxy, store };
}

/** What a caller is told, and after how long. */
async function ask(store: Store, statement = "select 1"): Promise<{ said: ErrorReason | "done"; ms: number }> {
  const began = performance.now();
  const said = await store
    .tenant(TENANT, (tx) => tx.unsafe(statement))
    .then(
      () => "done" as const,
      (error) => toFault(error, "").reason,
    );
  return { said, ms: performance.now() - began };
}
const askMany = (store: Store, count: number) => Promise.all(Array.from({ length: count }, () => ask(store)));
const UNAVAILABLE = ErrorReason.DEPENDENCY_UNAVAILABLE;

test.each(["close", "not-listening"] as const)(
  "a Postgres that refuses (%s) costs nobody a wait, and is used again as soon as it can be",
  async (how) => {
    const { proxy, store } = await behindProxy();
    await askMany(store, 4);
    await proxy.refuse(how);
    proxy.cut("fin");
    await until(
      () => ask(store),
      ({ said }) => said === UNAVAILABLE,
    );
    const answers = await askMany(store, 200);
    expect(new Set(answers.map(({ said }) => said))).toEqual(new Set([UNAVAILABLE]));
    expect(Math.max(...answers.map(({ ms }) => ms))).toBeLessThan(1000);
    await proxy.heal();
    await until(
      () => ask(store),
      ({ said }) => said === "done",
      2000,
    );
    expect((await askMany(store, 20)).map(({ said }) => said)).toEqual(Array(20).fill("done"));
  },
);

test("a Postgres that says no to who connects is away for everybody, and is used again as soon as it says yes", async () => {
  // With more than two connections a second try is told the reason too, and not only that a connection has ended.
  const { proxy, store } = await behindProxy(onTestFinished, { poolSize: 6 });
  await askMany(store, 12);
  const sql = postgres(new URL("/postgres", databaseUrl).href, { max: 1, onnotice: () => undefined });
  const { pathname } = new URL(databaseUrl);
  const allow = (whether: boolean) =>
    sql`alter database ${sql(pathname.slice(1))} with allow_connections ${sql.unsafe(String(whether))}`;
  onTestFinished(async () => {
    await allow(true);
    await sql.end();
  });
  await allow(false);
  proxy.cut("fin");
  await until(
    () => ask(store),
    ({ said }) => said !== "done",
  );
  for (let n = 0; n < 5; n++) {
    const before = proxy.made;
    // Until one of them has looked again.
    await until(
      async () => {
        expect(new Set((await askMany(store, 20)).map(({ said }) => said))).toEqual(new Set([UNAVAILABLE]));
        return proxy.made;
      },
      (made) => made > before,
    );
  }
  await allow(true);
  await until(
    () => ask(store),
    ({ said }) => said === "done",
  );
});

test("a Postgres that takes no writes is not ready, says so once, and is ready again when it does", async () => {
  const { proxy, store } = await behindProxy();
  const log = { error: vi.fn(), info: vi.fn() };
  const ready = postgresReady(store, log);
  expect(await ready()).toBe(true);
  const sql = postgres(new URL("/postgres", databaseUrl).href, { max: 1, onnotice: () => undefined });
  const name = new URL(databaseUrl).pathname.slice(1);
  const turn = async (readOnly: boolean) => {
    await sql`alter database ${sql(name)} set default_transaction_read_only = ${sql.unsafe(String(readOnly))}`;
    proxy.cut("fin"); // Connections that are there keep what they have.
    const told = readOnly ? log.error : log.info;
    const before = told.mock.calls.length;
    await until(
      async () => [await ready(), told.mock.calls.length],
      ([isReady, times]) => isReady !== readOnly && times === before + 1,
    );
  };
  onTestFinished(async () => {
    await sql`alter database ${sql(name)} reset default_transaction_read_only`;
    await sql.end();
  });
  for (let round = 1; round <= 2; round++) {
    await turn(true);
    expect(await ask(store, "create table t ()")).toMatchObject({ said: UNAVAILABLE });
    for (let n = 0; n < 3; n++) expect(await ready()).toBe(false);
    expect(log.error).toHaveBeenCalledTimes(round);
    expect(log.info).toHaveBeenCalledTimes(round - 1);
    await turn(false);
    expect(log.info).toHaveBeenCalledTimes(round);
  }
});

test("resets in the midst of transactions fail what was in them, and the connections come back, again and again", async () => {
  const { proxy, store } = await behindProxy();
  for (let round = 0; round < 20; round++) {
    const under = Promise.all(Array.from({ length: 6 }, () => ask(store, "select pg_sleep(0.02)")));
    // Not for anything: each round cuts at another moment of the statements.
    await new Promise((resolve) => setTimeout(resolve, round));
    proxy.cut(round % 2 === 0 ? "rst" : "fin");
    for (const { said } of await under) expect([UNAVAILABLE, "done"]).toContain(said);
  }
  await until(
    () => askMany(store, 6),
    (answers) => answers.every(({ said }) => said === "done"),
    2000,
  );
});

/** Runs `meanwhile` where the store hears that its connection through the proxy has ended: before it does, or as it goes. */
function asOneEnds(port: number, when: "before" | "after", meanwhile: () => void): void {
  const { emit } = Socket.prototype;
  let isFirst = true;
  const hook = vi.spyOn(Socket.prototype, "emit").mockImplementation(function (this: Socket, event, ...args) {
    const tell = () => emit.call(this, event, ...args);
    if (String(event) !== "end" || this.remotePort !== port || !isFirst) return tell();
    isFirst = false;
    if (when === "after") setImmediate(meanwhile);
    else meanwhile();
    // By then the driver has it, and writes it in the next turn.
    return when === "after" ? tell() : Boolean(afterMicrotasks(tell));
  });
  onTestFinished(() => hook.mockRestore());
}

async function afterMicrotasks(then: () => void): Promise<void> {
  for (let turn = 0; turn < 50; turn++) await undefined;
  then();
}

test.each(["before", "after"] as const)(
  "what is asked for in the moment %s a connection ends keeps none of the next ones from speaking",
  async (when) => {
    const { proxy, store } = await behindProxy(onTestFinished, { poolSize: 1 });
    expect((await ask(store)).said).toBe("done");
    const asked = Promise.withResolvers<unknown>();
    asOneEnds(Number(new URL(proxy.url).port), when, () => asked.resolve(ask(store)));
    proxy.cut("fin");
    await asked.promise;
    // Each of the driver's own tries would take five seconds.
    await until(
      () => ask(store),
      ({ said }) => said === "done",
      4900,
    );
  },
);

// The two that wait do so together.
test.concurrent("a connection that is reset as soon as it may be used fails its call, and nothing else", async ({
  onTestFinished,
}) => {
  const ready = Buffer.from([0x5a, 0, 0, 0, 5, 0x49]);
  const { hostname, port } = new URL(databaseUrl);
  const server = createServer((client) => {
    const upstream = connect({ host: hostname, port: Number(port) });
    let isReady = false;
    upstream.on("data", (data: Buffer) => {
      isReady ||= data.subarray(-ready.length).equals(ready);
      client.write(data);
    });
    client.on("data", (data) => {
      if (isReady) client.resetAndDestroy();
      else upstream.write(data);
    });
    for (const socket of [client, upstream])
      socket
        .on("error", () => undefined)
        .on("close", () => {
          client.destroy();
          upstream.destroy();
        });
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const url = new URL(databaseUrl);
  url.host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  await using store = openStore({
    url: url.href,
    hotPoolSize: 2,
    poolSize: 2,
    statementTimeoutMs: 10_000,
    lockTimeoutMs: 10_000,
    prepare: true,
  });
  onTestFinished(() => void server.close());
  for (let n = 0; n < 5; n++) {
    expect((await ask(store)).said).toBe(UNAVAILABLE);
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
});

test.concurrent("a Postgres that falls silent is given up, and its connections too", async ({ onTestFinished }) => {
  const { proxy, store } = await behindProxy(onTestFinished, { statementTimeoutMs: 500 });
  await askMany(store, 4);
  proxy.silence("to-client");
  const given = await ask(store);
  expect(given.said).toBe(UNAVAILABLE);
  expect(given.ms).toBeLessThan(6000);
  await until(
    () => ask(store),
    ({ said, ms }) => said === UNAVAILABLE && ms < 100,
  );
  await proxy.heal();
  await until(
    () => ask(store),
    ({ said }) => said === "done",
    6000,
  );
}, 40_000);
