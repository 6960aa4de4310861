import { create, toBinary } from "@bufbuild/protobuf";
import { describe, expect, test, vi } from "vitest";
import { SendRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import { SubscribeRequestSchema } from "#gen/posthorn/v1/stream_service_pb.ts";
import { until } from "../support/until.ts";
import { envelope, Flag, frame, Type } from "./frames.ts";
import { begin, callHead, type Raw, type RawSession, rawConnection, rawSession } from "./raw-session.ts";
import { besieged } from "./siege.ts";
import type { Port } from "./target.ts";

/** Attack 28: who takes time, or takes nothing. The attacker comes from an address of its own. */

const CONNECTIONS = 300;
vi.setConfig({ testTimeout: 90_000 });
const { target, during } = await besieged({
  env: {
    // As in production, only sooner.
    POSTHORN_HTTP_HEADERS_TIMEOUT_MS: "1000",
    POSTHORN_HTTP_REQUEST_TIMEOUT_MS: "2000",
    POSTHORN_GRPC_HELLO_TIMEOUT_MS: "1000",
    POSTHORN_GRPC_REQUEST_TIMEOUT_MS: "2000",
    POSTHORN_STREAM_HEARTBEAT_MS: "1000",
    POSTHORN_HTTP_MAX_CONNECTIONS_PER_ADDRESS: String(CONNECTIONS),
    POSTHORN_GRPC_MAX_CONNECTIONS_PER_ADDRESS: String(CONNECTIONS),
  },
});
const FROM = "127.0.0.2";
const SEND = "/posthorn.v1.SendService/Send";
const WHO_AM_I = "/posthorn.v1.AdminService/WhoAmI";
const SUBSCRIBE = "/posthorn.v1.StreamService/Subscribe";
const MIB = 2 ** 20;

const streamsOf = (port: Port) => (port.name === "grpc" ? 500 : 128);
const ids = (count: number) => Array.from({ length: count }, (_, n) => 2 * n + 1);

/** All streams are told an end, or the whole connection is gone. */
async function allEnd(session: RawSession, count: number): Promise<void> {
  await until(
    async () => (session.open ? session.ended.size : count),
    (ended) => ended >= count,
    15_000,
  );
  expect(session.open ? session.ended.size : count).toBeGreaterThanOrEqual(count);
}

describe.each(target.ports)("on the $name port", (port) => {
  test("28: a thousand silent connections from one address", async () => {
    await during(async () => {
      const silent: Raw[] = [];
      for (let n = 0; n < 1_000; n++) {
        const raw = await rawConnection(port, "h2", FROM);
        raw.socket.resume(); // Else it would not hear that the other side has hung up.
        silent.push(raw);
      }
      const kept = await until(
        async () => silent.filter((each) => each.open).length,
        (open) => open <= CONNECTIONS,
      );
      expect(kept).toBeLessThanOrEqual(CONNECTIONS);
      await Promise.all(silent.map((each) => each.closed));
    });
  });

  test("28: requests of which the second half never comes", async () => {
    const request = create(SendRequestSchema, { to: { userIds: ["u"] }, content: { title: "x".repeat(400) } });
    const half = envelope(toBinary(SendRequestSchema, request)).subarray(0, 200);
    await during(async () => {
      using session = await rawSession(port, { from: FROM });
      const streams = ids(streamsOf(port));
      const head = callHead(port, SEND, target.apiKey);
      for (const id of streams) await session.write(Buffer.concat([begin(id, head), frame(Type.DATA, 0, id, half)]));
      await allEnd(session, streams.length);
    });
  });

  test("28: a message that trickles, for a stream", async () => {
    await during(async () => {
      using session = await rawSession(port, { from: FROM });
      await session.write(begin(1, callHead(port, SUBSCRIBE, target.userToken)));
      const bytes = envelope(
        toBinary(SubscribeRequestSchema, create(SubscribeRequestSchema, { cursor: "x".repeat(200) })),
      );
      for (const byte of bytes) {
        await session.write(frame(Type.DATA, 0, 1, Buffer.from([byte])));
        await new Promise((resolve) => setTimeout(resolve, 50));
        if (session.ended.has(1)) break;
      }
      expect(session.ended.has(1)).toBe(true);
    });
  });

  test("28: large requests without a credential are not read", async () => {
    const before = (await target.held()).rss;
    await during(async () => {
      const sessions = await Promise.all(Array.from({ length: 4 }, () => rawSession(port, { from: FROM })));
      const part = frame(Type.DATA, 0, 1, Buffer.alloc(16_000)).subarray(9);
      for (const session of sessions) {
        const head = callHead(port, SEND, undefined);
        for (const id of ids(streamsOf(port)))
          await session.write(
            Buffer.concat([begin(id, head), frame(Type.DATA, 0, id, envelope(part, 0, 4 * MIB).subarray(0, 16_000))]),
          );
      }
      expect((await target.held()).rss - before).toBeLessThan(64 * MIB);
      for (const session of sessions) session[Symbol.dispose]();
    });
  });

  test("28: answers that nobody takes", async () => {
    await during(async () => {
      using session = await rawSession(port, { own: { 4: 0 }, from: FROM });
      const streams = ids(streamsOf(port));
      const head = callHead(port, WHO_AM_I, target.apiKey);
      for (const id of streams)
        await session.write(
          Buffer.concat([begin(id, head), frame(Type.DATA, Flag.END_STREAM, id, envelope(Buffer.alloc(0)))]),
        );
      await allEnd(session, streams.length);
    });
  });

  test("28: streams that nobody reads", async () => {
    await during(async () => {
      using session = await rawSession(port, { own: { 4: 0 }, from: FROM });
      const streams = ids(50);
      for (const id of streams) {
        const request = create(SubscribeRequestSchema, { userId: `silent-${id}` });
        await session.write(
          Buffer.concat([
            begin(id, callHead(port, SUBSCRIBE, target.apiKey)),
            frame(Type.DATA, Flag.END_STREAM, id, envelope(toBinary(SubscribeRequestSchema, request))),
          ]),
        );
      }
      await until(target.openCalls, (open) => open >= streams.length);
      // More than the buffers of a stream hold: 64 KiB by Node's default.
      const userIds = streams.map((id) => `silent-${id}`);
      for (let n = 0; n < 25; n++)
        await target.sender.send({ to: { userIds }, content: { title: "t", body: "x".repeat(4_000) } });
      await allEnd(session, streams.length);
    });
  });

  test("28: streams on one token, ten thousand of them on the gRPC port", async () => {
    await during(async () => {
      const perSession = streamsOf(port);
      // Those of the HTTP port cost more, and need four times as many connections.
      const streams = port.name === "grpc" ? 10_000 : 4_000;
      const body = envelope(toBinary(SubscribeRequestSchema, create(SubscribeRequestSchema)));
      const head = callHead(port, SUBSCRIBE, target.userToken);
      const sessions: RawSession[] = [];
      for (let left = streams; left > 0; left -= perSession) {
        const session = await rawSession(port, { from: FROM });
        sessions.push(session);
        for (const id of ids(Math.min(left, perSession)))
          await session.write(Buffer.concat([begin(id, head), frame(Type.DATA, Flag.END_STREAM, id, body)]));
      }
      const refused = () => sessions.reduce((sum, { ended }) => sum + ended.size, 0);
      await until(
        async () => refused(),
        (count) => count >= streams - 20,
        60_000,
      );
      // Calls of the probes are open as well.
      expect(await target.openCalls()).toBeLessThanOrEqual(20 + 3);
      for (const session of sessions) session[Symbol.dispose]();
    });
  });
});

test("28: metrics and refusals that nobody takes, with pings, and without a credential", async () => {
  const paths = ["/metrics", "/readyz", "/nothing"];
  const heads = paths.map((path) => callHead(target.http, path, undefined, { ":method": "GET" }));
  await during(async () => {
    using session = await rawSession(target.http, { own: { 4: 0 }, from: FROM });
    const streams = ids(128);
    for (const [n, id] of streams.entries())
      await session.write(begin(id, heads[n % heads.length] ?? Buffer.alloc(0), Flag.END_STREAM));
    const pings = setInterval(() => void session.write(frame(Type.PING, 0, 0, Buffer.alloc(8))), 200);
    await allEnd(session, streams.length);
    clearInterval(pings);
  });
});

describe("over HTTP/1.1", () => {
  const port = target.http;
  const head = `POST ${SEND} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n`;

  test("28: slow heads (slowloris) and slow bodies (R-U-Dead-Yet)", async () => {
    await during(async () => {
      const slow: Raw[] = [];
      for (let n = 0; n < 300; n++) {
        const raw = await rawConnection(port, "http/1.1", FROM);
        raw.socket.resume();
        const body = `Authorization: Bearer ${target.apiKey}\r\nContent-Length: 1000\r\n\r\n{`;
        await raw.write(Buffer.from(head + (n % 2 === 0 ? "" : body)));
        slow.push(raw);
      }
      const trickle = setInterval(() => {
        for (const [n, raw] of slow.entries()) void raw.write(Buffer.from(n % 2 === 0 ? "X-A: b\r\n" : " "));
      }, 200);
      try {
        await Promise.all(slow.map((raw) => raw.closed));
      } finally {
        clearInterval(trickle);
      }
    });
  });

  test("28: a pipeline of requests whose answers nobody reads", async () => {
    await during(async () => {
      const pipelined: Raw[] = [];
      for (let n = 0; n < 20; n++) {
        const raw = await rawConnection(port, "http/1.1", FROM);
        raw.socket.pause();
        const requests = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(500);
        void raw.write(Buffer.from(requests));
        pipelined.push(raw);
      }
      await new Promise((resolve) => setTimeout(resolve, 1_000));
      expect((await target.held()).rss).toBeLessThan(700 * MIB);
      for (const raw of pipelined) raw[Symbol.dispose]();
    });
  });
});
