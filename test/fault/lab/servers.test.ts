import { connect } from "nats";
import postgres from "postgres";
import { afterAll, beforeAll, expect, test } from "vitest";
import { greetNats } from "#src/dev/nats.ts";
import { greetPostgres } from "#src/dev/postgres.ts";
import { greetRedis } from "#src/dev/redis.ts";
import { type LabServer, type Servers, startServers } from "./servers.ts";

let servers: Servers;
beforeAll(async () => {
  servers = await startServers();
});
afterAll(() => servers[Symbol.asyncDispose]());

const GREET: Record<"postgres" | "nats" | "redis", (url: string) => Promise<string>> = {
  postgres: greetPostgres,
  nats: greetNats,
  redis: greetRedis,
};
const answers = (name: keyof typeof GREET) =>
  GREET[name](servers[name].url).then(
    () => true,
    () => false,
  );

test.each(["postgres", "nats", "redis"] as const)("%s is killed, paused, and back where it was", async (name) => {
  const server: LabServer = servers[name];
  await server.end("SIGKILL");
  expect(await answers(name)).toBe(false);
  await server.start();
  expect(await answers(name)).toBe(true);
  await server.pause();
  const asked = GREET[name](server.url);
  expect(await Promise.race([asked, new Promise((resolve) => setTimeout(resolve, 300, "silent"))])).toBe("silent");
  await server.resume();
  expect(await asked).toMatch(/^\d/);
});

test("what Postgres has committed outlives a kill", async () => {
  const ask = async (question: string) => {
    const sql = postgres(servers.postgres.url, { max: 1 });
    try {
      return await sql.unsafe(question);
    } finally {
      await sql.end({ timeout: 5 });
    }
  };
  await ask("create table kept as select 42 as answer");
  await servers.postgres.end("SIGKILL");
  await servers.postgres.start();
  // By a connection that the kill did not cut: that one may refuse more than one question before it is opened anew.
  expect(await ask("select answer from kept")).toEqual([{ answer: 42 }]);
});

test("what JetStream holds outlives a kill, and not its files", async () => {
  const streams = async () => {
    const nats = await connect({ servers: servers.nats.url });
    const manager = await nats.jetstreamManager();
    const infos = await manager.streams.list().next();
    await nats.close();
    return infos.map(({ config, state }) => [config.name, state.messages]);
  };
  const nats = await connect({ servers: servers.nats.url });
  await (await nats.jetstreamManager()).streams.add({ name: "KEPT", subjects: ["kept"] });
  await nats.jetstream().publish("kept");
  await nats.close();
  await servers.nats.end("SIGKILL");
  await servers.nats.start();
  expect(await streams()).toEqual([["KEPT", 1]]);
  await servers.nats.end("SIGKILL");
  await servers.nats.wipe();
  await servers.nats.start();
  expect(await streams()).toEqual([]);
});
