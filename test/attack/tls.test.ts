import { create, toBinary } from "@bufbuild/protobuf";
import { describe, expect, test, vi } from "vitest";
import { SendRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import { certificates } from "../rpc/certificates.ts";
import { until } from "../support/until.ts";
import { envelope, Flag, frame, PREFACE, Type, uint32 } from "./frames.ts";
import { begin, callHead, type Raw, rawConnection, rawSession } from "./raw-session.ts";
import { besieged, type Siege } from "./siege.ts";
import type { Port } from "./target.ts";

/** Attacks 27 and 28 once more, on ports that speak TLS, and what only TLS has: handshakes. */

const FROM = "127.0.0.2";
const SEND = "/posthorn.v1.SendService/Send";
const CHECK = "/grpc.health.v1.Health/Check";
const WHO_AM_I = "/posthorn.v1.AdminService/WhoAmI";
const STREAMS = Array.from({ length: 128 }, (_, n) => 2 * n + 1);

vi.setConfig({ testTimeout: 90_000 });
const siege = certificates === undefined ? undefined : await besiegedWithTls(certificates);

function besiegedWithTls({ ca, server }: NonNullable<typeof certificates>): Promise<Siege> {
  return besieged({
    tls: { ca: ca.pem, ...server },
    env: {
      // As in production, only sooner.
      POSTHORN_HTTP_HEADERS_TIMEOUT_MS: "3000",
      POSTHORN_HTTP_REQUEST_TIMEOUT_MS: "3000",
      POSTHORN_GRPC_HELLO_TIMEOUT_MS: "3000",
      POSTHORN_GRPC_REQUEST_TIMEOUT_MS: "3000",
    },
  });
}

// Its name is what the list of skipped tests says.
if (siege === undefined) test.skip("openssl", () => undefined);

describe.each(siege?.target.ports ?? [])("with TLS on the $name port", (port) => {
  const { target, during } = siege!;
  const tcp = (to: Port) => rawConnection({ ...to, tls: undefined }, "h2", FROM);
  const allClose = async (raws: readonly Raw[]) => {
    for (const { socket } of raws) socket.resume();
    await Promise.all(raws.map(({ closed }) => closed));
  };

  test("28: handshakes that are begun, trickle, or are none", async () => {
    // A ClientHello of 512 bytes, of which there are never all.
    const hello = Buffer.concat([Buffer.from([22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]), Buffer.alloc(200)]);
    await during(async () => {
      const [begun, slow, none] = await Promise.all(
        [100, 100, 100].map((count) => Promise.all(Array.from({ length: count }, () => tcp(port)))),
      );
      for (const raw of begun!) await raw.write(hello.subarray(0, 1));
      for (const raw of none!) await raw.write(PREFACE);
      let at = 0;
      const trickle = setInterval(() => {
        for (const raw of slow!) void raw.write(hello.subarray(at, at + 1));
        at++;
      }, 200);
      await allClose([...begun!, ...slow!, ...none!]);
      clearInterval(trickle);
    });
  });

  test("28: silence behind the handshake, and half a preface", async () => {
    await during(async () => {
      const raws = await Promise.all(Array.from({ length: 60 }, () => rawConnection(port, "h2", FROM)));
      for (const raw of raws.slice(30)) await raw.write(PREFACE.subarray(0, 20));
      await allClose(raws);
    });
  });

  test("27: rapid reset", async () => {
    const head = callHead(port, SEND, target.apiKey);
    const reset = (id: number) => Buffer.concat([begin(id, head), frame(Type.RST_STREAM, 0, id, uint32(8))]);
    await during(async () => {
      for (let connection = 0; connection < 4; connection++) {
        using session = await rawSession(port, { from: FROM });
        for (let sent = 0; sent < 40_000 && session.open; sent += 1_000)
          await session.write(Buffer.concat(Array.from({ length: 1_000 }, (_, n) => reset(2 * (sent + n) + 1))));
        expect(session.open).toBe(false);
      }
    });
  });

  test("28: requests of which the second half never comes, and answers that nobody takes", async () => {
    const request = create(SendRequestSchema, { to: { userIds: ["u"] }, content: { title: "x".repeat(400) } });
    const half = envelope(toBinary(SendRequestSchema, request)).subarray(0, 200);
    const empty = envelope(Buffer.alloc(0));
    await during(async () => {
      using halves = await rawSession(port, { from: FROM });
      using unread = await rawSession(port, { own: { 4: 0 }, from: FROM });
      const [send, check, whoAmI] = [SEND, CHECK, WHO_AM_I].map((path) => callHead(port, path, target.apiKey));
      for (const [n, id] of STREAMS.entries()) {
        // Health is served on the gRPC port only.
        const head = port.name === "grpc" && n % 2 === 0 ? check! : send!;
        await halves.write(Buffer.concat([begin(id, head), frame(Type.DATA, 0, id, half)]));
        await unread.write(Buffer.concat([begin(id, whoAmI!), frame(Type.DATA, Flag.END_STREAM, id, empty)]));
      }
      for (const session of [halves, unread]) {
        const ended = await until(
          async () => (session.open ? session.ended.size : STREAMS.length),
          (count) => count >= STREAMS.length,
          15_000,
        );
        expect(ended).toBeGreaterThanOrEqual(STREAMS.length);
      }
    });
  });
});

describe.each(siege === undefined ? [] : [siege])("with TLS over HTTP/1.1", ({ target, during }) => {
  test("28: slow heads and slow bodies", async () => {
    const head = `POST ${SEND} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n`;
    const body = `Authorization: Bearer ${target.apiKey}\r\nContent-Length: 1000\r\n\r\n{`;
    await during(async () => {
      const slow = await Promise.all(Array.from({ length: 100 }, () => rawConnection(target.http, "http/1.1", FROM)));
      for (const [n, raw] of slow.entries()) {
        raw.socket.resume();
        await raw.write(Buffer.from(head + (n % 2 === 0 ? "" : body)));
      }
      const trickle = setInterval(() => {
        for (const [n, raw] of slow.entries()) void raw.write(Buffer.from(n % 2 === 0 ? "X-A: b\r\n" : " "));
      }, 200);
      await Promise.all(slow.map(({ closed }) => closed));
      clearInterval(trickle);
    });
  });
});
