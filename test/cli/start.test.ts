import { existsSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { createClient } from "@connectrpc/connect";
import postgres from "postgres";
import { afterAll, expect, onTestFinished, test } from "vitest";
import { PreferencesService } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { transportTo } from "#src/cli/connection.ts";
import { stateFile } from "#src/cli/state.ts";
import { freshServices, testServices } from "../support/services.ts";
import { startServing } from "./serving.ts";
import { testWorld } from "./world.ts";

const services = await testServices();
const first = await startServing(services);
afterAll(() => first[Symbol.asyncDispose]());
const { world, state } = first;

test("it writes down where it is and whose credentials it made, and commands need nothing else", async () => {
  expect(state).toMatchObject({
    server: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
    httpUrl: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/),
    userId: "ada",
  });
  const key = JSON.parse((await world.run("whoami --json")).out[0] ?? "");
  expect(key).toMatchObject({ kind: "KIND_API_KEY", tenantId: state.tenantId });
  const user = JSON.parse((await world.run(`whoami --json --api-key ${state.userToken}`)).out[0] ?? "");
  expect(user).toMatchObject({ kind: "KIND_USER", userId: "ada", tenantId: state.tenantId });
  expect((await fetch(`${state.httpUrl}/readyz`)).status).toBe(200);
});

test("what is sent comes out of tail and stays in the inbox", async () => {
  const ready = Promise.withResolvers<void>();
  const tail = world.run("tail --count 2 --json", undefined, {
    out: (line) => {
      if (JSON.parse(line).caughtUp) ready.resolve();
    },
  });
  await ready.promise;
  const sent = await world.run(["send", "ada", "-t", "Hello, Ada", "--json"]);
  expect(JSON.parse(sent.out[0] ?? "")).toMatchObject({ userId: "ada", status: "STATUS_DELIVERED" });
  await world.run(["send", "ada", "-t", "Again", "-p", "critical"]);
  const { exitCode, out } = await tail;
  expect(exitCode).toBe(0);
  expect(out.flatMap((line) => JSON.parse(line).notification?.entry.content.title ?? [])).toEqual([
    "Hello, Ada",
    "Again",
  ]);

  const id = JSON.parse(sent.out[0] ?? "").notificationId;
  const list = await world.run("inbox --unread --json");
  expect(list.out.map((line) => JSON.parse(line).content.title)).toEqual(["Again", "Hello, Ada"]);
  expect((await world.run(`inbox read ${id}`)).out).toEqual(["1 entry changed; 1 unread of 2, 2 unseen"]);
  expect((await world.run("inbox archive all")).out[0]).toContain("2 entries changed");
  expect((await world.run("inbox --archived --json")).out).toHaveLength(2);
  expect((await world.run("inbox counts")).out).toEqual(["0 unread of 0, 2 unseen, 2 archived"]);
});

test("what-if and explain say the same about a night, on the user's clock", async () => {
  const grpc = createClient(PreferencesService, transportTo(state.server, state.apiKey));
  const quietHours = { enabled: true, startTime: "22:00", endTime: "08:00" };
  const preferences = { timeZone: "Europe/Berlin", quietHours };
  await grpc.updatePreferences({ userId: "grace", preferences, reason: "asked by phone" });
  // An evening to come, whatever the time is now.
  const night = new Date(Math.ceil(Date.now() / 86_400_000) * 86_400_000 + 22.5 * 3_600_000).toISOString();
  const foreseen = await world.run(["what-if", "grace", "--at", night, "--channel", "in-app,email"]);
  expect(foreseen.exitCode).toBe(0);
  const table = foreseen.out.join("\n");
  expect(table).toMatch(/held \(quiet-hours\) until \w{3} \d{4}-\d\d-\d\d 08:00/);
  expect(table).toMatch(/no quiet hours +NO: held until .* 08:00 \(22:00–08:00, set by the user\) +-/);
  expect(table).toMatch(/the channel is there +yes +NO: never/);
  expect(table).toMatch(/Europe\/Berlin \(.*Z\) {2}delivered, inbox/);
  await grpc.updatePreferences({
    userId: "grace",
    preferences: { quietHours: { startTime: "12:00", endTime: "12:00" } },
    reason: "asked by phone",
  });
  const sent = await world.run(["send", "grace", "-t", "Psst", "--json"]);
  const { out } = await world.run(["explain", JSON.parse(sent.out[0] ?? "").notificationId]);
  expect(out[0]).toMatch(/grace {2}general {2}normal {2}held \(quiet-hours\) {2}Psst$/);
  expect(out.join("\n")).toMatch(/no quiet hours +NO: held until .* \(12:00–12:00, set by the user\)/);
});

test("types are loaded from a preset once", async () => {
  expect((await world.run("types load jobs")).err).toEqual(["7 types created, 0 were there"]);
  expect((await world.run("types load jobs")).err).toEqual(["0 types created, 7 were there"]);
  const keys = (await world.run("types list --json")).out.map((line) => JSON.parse(line).key);
  expect(keys).toEqual(expect.arrayContaining(["job_match", "general"]));
});

test("tenants and keys: created, used, rotated and revoked", async () => {
  const tenant = JSON.parse((await world.run("tenant create Acme --json")).out[0] ?? "");
  expect((await world.run("tenant list --json")).out.map((line) => JSON.parse(line).id)).toContain(tenant.id);
  const created = await world.run(`key create backend --scope send,admin --tenant ${tenant.id} --json`);
  const { secret, apiKey } = JSON.parse(created.out[0] ?? "");
  expect(JSON.parse((await world.run(`tenant get --json --api-key ${secret}`)).out[0] ?? "").displayName).toBe("Acme");
  expect((await world.run(`key list --api-key ${secret}`)).out.join("\n")).toContain("send, admin");

  const lacking = await world.run(`inbox --user ada --api-key ${secret}`);
  expect({ exitCode: lacking.exitCode, out: lacking.out }).toEqual({ exitCode: 1, out: [] });
  expect(lacking.err.join("\n")).toMatch(/\[SCOPE_MISSING\][\s\S]*--scope inbox/);

  expect((await world.run(`key rotate ${apiKey.id} --api-key ${secret}`)).out[0]).toMatch(/^phk_/);
  expect((await world.run(`key revoke ${apiKey.id} --tenant ${tenant.id}`)).out[0]).toContain("revoked");
  await expect.poll(async () => (await world.run(`whoami --api-key ${secret}`)).exitCode, { timeout: 5_000 }).toBe(1);
});

test("a refused field is named with the option that sets it", async () => {
  const { exitCode, err } = await world.run(["send", "ada", "-t", "x".repeat(300)]);
  expect(exitCode).toBe(1);
  expect(err.join("\n")).toMatch(/content\.title[\s\S]*--title[\s\S]*/);
});

test("a second start on the same data has the same tenant and key", async () => {
  await using own = await freshServices();
  using place = testWorld();
  const { dataDir } = place;
  const before = await startServing(own, { dataDir });
  await before[Symbol.asyncDispose]();
  await using after = await startServing(own, { dataDir });
  expect(after.state).toMatchObject({ tenantId: before.state.tenantId, apiKey: before.state.apiKey });
  expect((await after.world.run("whoami")).exitCode).toBe(0);
});

test("beside a running one, another does not take its place in the file", async () => {
  await using own = await freshServices();
  await using second = await startServing(own, { dataDir: world.dataDir });
  expect(second.state).toEqual(state);
});

test("ports that are taken are replaced, and it says so", async () => {
  const taken: Server[] = [];
  for (const port of [50051, 8080]) {
    const server = createServer();
    const { promise: isTaken, resolve } = Promise.withResolvers<void>();
    // Taken by others is as good: `once` of node:events would throw then.
    server.once("listening", resolve).once("error", () => resolve());
    server.listen({ port, host: "127.0.0.1", exclusive: true });
    await isTaken;
    taken.push(server);
  }
  onTestFinished(() => {
    for (const server of taken) server.close();
  });
  await using own = await freshServices();
  await using serving = await startServing(own, { env: {} });
  expect(serving.said.join("\n")).toMatch(
    /gRPC: port 50051 is taken, using \d+[\s\S]*HTTP: port 8080 is taken, using \d+/,
  );
  expect((await serving.world.run("whoami")).exitCode).toBe(0);
});

test("in staging it serves what is configured, makes nothing up, and stops when asked", async () => {
  await using own = await freshServices();
  using place = testWorld();
  const operatorKey = "0f8e7d6c5b4a39281706f5e4d3c2b1a0";
  const env = {
    POSTHORN_ENV: "staging",
    POSTHORN_DATABASE_URL: own.databaseUrl,
    POSTHORN_NATS_URL: own.natsUrl,
    POSTHORN_REDIS_URL: own.redisUrl,
    POSTHORN_NAMESPACE: own.namespace,
    POSTHORN_OPERATOR_KEYS: operatorKey,
    POSTHORN_ENCRYPTION_KEY: Buffer.from("0123456789abcdefghijklmnopqrstuv").toString("base64"),
    POSTHORN_GRPC_HOST: "127.0.0.1",
    POSTHORN_HTTP_HOST: "127.0.0.1",
    POSTHORN_GRPC_PORT: "0",
    POSTHORN_HTTP_PORT: "0",
    POSTHORN_LOG_LEVEL: "error",
    POSTHORN_STREAM_DRAIN_MS: "0",
  };
  const stop = new AbortController();
  const where = Promise.withResolvers<{ server: string; httpUrl: string }>();
  const ended = place.run("serve --json", stop.signal, { env, out: (line) => where.resolve(JSON.parse(line)) });
  void ended.then(({ err }) => where.reject(new Error(err.join("\n"))));
  const { server, httpUrl } = await where.promise;
  expect((await fetch(`${httpUrl}/readyz`)).status).toBe(200);
  const { out } = await place.run(`tenant list --json --server ${server} --api-key ${operatorKey}`);
  expect(out).toEqual([]);
  expect(existsSync(stateFile(place.dataDir))).toBe(false);
  stop.abort();
  expect(await ended).toMatchObject({ exitCode: 0, err: [] });

  const incomplete = await place.run("serve", undefined, {
    env: { ...env, POSTHORN_NATS_URL: "", POSTHORN_OPERATOR_KEYS: "" },
  });
  expect(incomplete.exitCode).toBe(1);
  expect(incomplete.err.join("\n")).toMatch(/POSTHORN_NATS_URL[\s\S]*POSTHORN_OPERATOR_KEYS/);
});

test("migrate brings an empty database up to date, and does nothing the second time", async () => {
  await using own = await freshServices();
  const sql = postgres(own.databaseUrl, { max: 1, onnotice: () => undefined });
  onTestFinished(() => sql.end());
  await sql`drop schema public cascade`;
  await sql`drop schema if exists drizzle cascade`;
  await sql`create schema public`;
  using place = testWorld({ env: { POSTHORN_DATABASE_URL: own.databaseUrl } });
  for (let time = 1; time <= 2; time++) expect((await place.run("migrate --json")).out).toEqual(['{"migrated":true}']);
  expect(await sql`select to_regclass('notifications') is not null as there`).toEqual([{ there: true }]);
});

test("a database that is of something else is told in a line, not as a statement", async () => {
  await using own = await freshServices();
  const sql = postgres(own.databaseUrl, { max: 1, onnotice: () => undefined });
  onTestFinished(() => sql.end());
  await sql`drop schema if exists drizzle cascade`;
  using place = testWorld({ env: { POSTHORN_DATABASE_URL: own.databaseUrl } });
  const { exitCode, out, err } = await place.run("migrate");
  expect({ exitCode, out }).toEqual({ exitCode: 1, out: [] });
  expect(err).toEqual([expect.stringContaining("already exists"), expect.stringContaining("remove .data")]);
});
