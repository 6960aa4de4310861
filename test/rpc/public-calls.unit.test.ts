import { once } from "node:events";
import { type ClientHttp2Session, type ClientHttp2Stream, connect } from "node:http2";
import { gzipSync } from "node:zlib";
import { create, toBinary } from "@bufbuild/protobuf";
import { afterEach, describe, expect, test, vi } from "vitest";
import { HealthCheckRequestSchema } from "#gen/grpc/health/v1/health_pb.ts";
import { Code } from "#src/errors.ts";
import { envelope } from "../attack/frames.ts";
import { type Overrides, startPorts } from "./fakes.ts";
import { beginCall, endOf } from "./raw-calls.ts";

// Health and reflection are for whoever reaches the gRPC port, so for those too who mean it harm.

const CHECK = "/grpc.health.v1.Health/Check";
const WATCH = "/grpc.health.v1.Health/Watch";
const REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const REFLECTION_ALPHA = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
const ALL = [CHECK, WATCH, REFLECTION, REFLECTION_ALPHA];

let disposing = new AsyncDisposableStack();
afterEach(async () => {
  await disposing.disposeAsync();
  disposing = new AsyncDisposableStack();
});

async function start(overrides: Overrides = {}) {
  const { grpc } = disposing.use(await startPorts(overrides));
  const session = () => {
    const made = connect(`http://127.0.0.1:${grpc.port}`);
    made.on("error", () => undefined);
    disposing.defer(() => made.destroy());
    return made;
  };
  return { grpc, session };
}

const post = (session: ClientHttp2Session, path: string, body: Buffer, headers: object = {}) => {
  const stream = beginCall(session, path, headers);
  stream.end(body);
  return endOf(stream);
};
const asked = (service: string) =>
  envelope(toBinary(HealthCheckRequestSchema, create(HealthCheckRequestSchema, { service })));
/** ServerReflectionRequest.file_containing_symbol is field 4. */
const symbol = (name: string) => envelope(Buffer.concat([Buffer.from([(4 << 3) | 2, name.length]), Buffer.from(name)]));

describe("a call without a credential", () => {
  test.each(ALL)("%s ends with its message unfinished", async (path) => {
    const { session } = await start({ grpc: { requestTimeoutMs: 200 } });
    const stream = beginCall(session(), path);
    stream.write(asked("posthorn.v1.SendService").subarray(0, 12));
    expect(await endOf(stream)).toMatchObject({ status: Code.DEADLINE_EXCEEDED, typed: Code.DEADLINE_EXCEEDED });
  });

  test.each([REFLECTION, REFLECTION_ALPHA])("%s is refused when its last message is cut off", async (path) => {
    const { session } = await start();
    const h2 = session();
    const whole = symbol("posthorn.v1.SendService");
    const refused = { status: Code.INVALID_ARGUMENT, typed: Code.INVALID_ARGUMENT };
    for (const cut of [3, 5, whole.length - 1]) {
      expect(await post(h2, path, whole.subarray(0, cut))).toMatchObject(refused);
      expect(await post(h2, path, Buffer.concat([whole, whole.subarray(0, cut)]))).toMatchObject(refused);
    }
    expect(await post(h2, path, Buffer.concat([whole, whole]))).toMatchObject({ status: 0 });
  });

  test.each(ALL)("%s takes no large message", async (path) => {
    const { session } = await start();
    const h2 = session();
    const tooLarge = { status: Code.RESOURCE_EXHAUSTED, typed: Code.RESOURCE_EXHAUSTED };
    expect(await post(h2, path, asked("x".repeat(100_000)))).toMatchObject(tooLarge);
    const bomb = gzipSync(asked("x".repeat(100_000)).subarray(5));
    expect(await post(h2, path, envelope(bomb, 1), { "grpc-encoding": "gzip" })).toMatchObject(tooLarge);
  });

  test.each(ALL)("%s says what cannot be read", async (path) => {
    const { session } = await start();
    const h2 = session();
    const unreadable = { status: Code.INVALID_ARGUMENT, typed: Code.INVALID_ARGUMENT };
    expect(await post(h2, path, envelope(Buffer.from("ffffff", "hex")))).toMatchObject(unreadable);
    expect(await post(h2, path, asked(""), { "grpc-timeout": "abc" })).toMatchObject({
      ...unreadable,
      fields: ["grpc-timeout"],
    });
  });

  test("hears of unknown services without their name", async () => {
    const { session } = await start();
    const { message, ...end } = await post(session(), CHECK, asked("é".repeat(2_000)));
    expect(end).toMatchObject({ status: Code.NOT_FOUND, typed: Code.NOT_FOUND });
    expect(message.length).toBeLessThan(100);
  });

  test.each([WATCH, REFLECTION])("%s finds room for a few streams on a connection", async (path) => {
    const { session } = await start();
    const h2 = session();
    const open = new Set<ClientHttp2Stream>();
    const refused: unknown[] = [];
    const begin = () => {
      const stream = beginCall(h2, path);
      open.add(stream);
      void endOf(stream).then((end) => {
        open.delete(stream);
        refused.push(end);
      });
      stream.write(asked(""));
      if (path === WATCH) stream.end();
      return once(stream, "response");
    };
    await Promise.all(Array.from({ length: 30 }, begin));
    await vi.waitUntil(() => open.size === 10);
    for (const end of refused) expect(end).toMatchObject({ status: Code.RESOURCE_EXHAUSTED, typed: 8 });
    // Others have room, and so has the next once one has ended.
    expect(await post(session(), CHECK, asked(""))).toMatchObject({ status: 0 });
    expect(await post(h2, CHECK, asked(""))).toMatchObject({ status: 0 });
    const [first] = open;
    first?.close();
    await once(first as ClientHttp2Stream, "close");
    await post(h2, CHECK, asked(""));
    await begin();
    await post(h2, CHECK, asked(""));
    expect(open.size).toBe(10);
  });

  test.each([REFLECTION, REFLECTION_ALPHA])("%s reads no more than is taken of its answers", async (path) => {
    const { session } = await start({ grpc: { requestTimeoutMs: 1_000 } });
    const stream = beginCall(session(), path);
    const requests = Buffer.concat(Array<Buffer>(100).fill(symbol("posthorn.v1.SendService")));
    let taken = 0;
    const offer = () =>
      stream.write(requests, () => {
        taken += 100;
        if (taken < 100_000) offer();
      });
    offer();
    await once(stream, "close");
    expect(stream.rstCode).toBe(8);
    expect(taken).toBeLessThan(20_000);
  });
});
