import { create, toBinary } from "@bufbuild/protobuf";
import { expect, test, vi } from "vitest";
import { SendRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import { certificates } from "../rpc/certificates.ts";
import { until } from "../support/until.ts";
import { envelope, frame, Type, uint32 } from "./frames.ts";
import { begin, callHead, rawSession } from "./raw-session.ts";
import { besieged } from "./siege.ts";

/** Attacks 27 and 28 through TLS, where sockets are other objects and bytes come in other pieces. */

vi.setConfig({ testTimeout: 90_000 });
const siege =
  certificates &&
  (await besieged({
    tls: { ca: certificates.ca.pem, ...certificates.server },
    env: { POSTHORN_GRPC_REQUEST_TIMEOUT_MS: "2000" },
  }));

const SEND = "/posthorn.v1.SendService/Send";
const CHECK = "/grpc.health.v1.Health/Check";
const STREAMS = Array.from({ length: 300 }, (_, n) => 2 * n + 1);

test.skipIf(siege === undefined)("27: rapid reset", async () => {
  const { target, during } = siege!;
  const head = callHead(target.grpc, SEND, target.apiKey);
  await during(async () => {
    using session = await rawSession(target.grpc);
    for (let sent = 0; sent < 40_000 && session.open; sent += 1_000) {
      const ids = Array.from({ length: 1_000 }, (_, n) => 2 * (sent + n) + 1);
      await session.write(
        Buffer.concat(ids.flatMap((id) => [begin(id, head), frame(Type.RST_STREAM, 0, id, uint32(8))])),
      );
    }
    expect(session.open).toBe(false);
  });
});

test.skipIf(siege === undefined).each([SEND, CHECK])(
  "28: requests to %s of which the second half never comes",
  async (path) => {
    const { target, during } = siege!;
    const request = create(SendRequestSchema, { to: { userIds: ["u"] }, content: { title: "x".repeat(400) } });
    const half = envelope(toBinary(SendRequestSchema, request)).subarray(0, 200);
    const head = callHead(target.grpc, path, target.apiKey);
    await during(async () => {
      using session = await rawSession(target.grpc);
      for (const id of STREAMS) await session.write(Buffer.concat([begin(id, head), frame(Type.DATA, 0, id, half)]));
      await until(
        async () => session.ended.size,
        (ended) => ended >= STREAMS.length,
        15_000,
      );
    });
  },
);
