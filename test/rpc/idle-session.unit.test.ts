import { once } from "node:events";
import { connect, createServer, type ServerHttp2Session } from "node:http2";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { endWhenIdle } from "#src/rpc/http/dual.ts";
import { watchLiveMemory } from "#src/telemetry/live-memory.ts";

const SESSIONS = 20;

async function serverOf(idleMs: number) {
  const sessions: WeakRef<ServerHttp2Session>[] = [];
  const server = createServer((_, response) => void response.end("ok"));
  server.on("session", (session) => {
    sessions.push(new WeakRef(session));
    endWhenIdle(session, idleMs);
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const { port } = server.address() as AddressInfo;
  return { sessions, url: `http://127.0.0.1:${port}`, [Symbol.dispose]: () => void server.close() };
}

test("sessions that have ended are not kept for as long as they might have been idle", async () => {
  using server = await serverOf(600_000);
  for (let n = 0; n < SESSIONS; n++) {
    const client = connect(server.url);
    const stream = client.request({ ":path": "/" });
    await once(stream.resume(), "end");
    client.destroy();
    await once(client, "close");
  }
  using memory = watchLiveMemory(() => undefined);
  const kept = () => {
    memory.collect();
    return server.sessions.filter((session) => session.deref() !== undefined).length;
  };
  // The one that ended last may be at hand still.
  await expect.poll(kept).toBeLessThan(SESSIONS / 2);
  expect(server.sessions).toHaveLength(SESSIONS);
});

test("a session on which nothing moves ends", async () => {
  using server = await serverOf(50);
  const client = connect(server.url);
  await once(client, "close");
  expect(client.destroyed).toBe(true);
});
