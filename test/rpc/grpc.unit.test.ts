import { once } from "node:events";
import { type ClientHttp2Session, connect as connectH2, constants } from "node:http2";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { create, createFileRegistry, fromBinary, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Client, credentials, loadPackageDefinition, type ServiceClientConstructor } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { service as healthService } from "grpc-health-check";
import { afterEach, describe, expect, test, vi } from "vitest";
import { StatusSchema } from "#gen/google/rpc/status_pb.ts";
import { AdminService } from "#gen/posthorn/v1/admin_service_pb.ts";
import { ContentSchema } from "#gen/posthorn/v1/notification_pb.ts";
import { SendRequestSchema, SendStreamRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import { Code } from "#src/errors.ts";
import { grpcCaller } from "./callers.ts";
import { certificates } from "./certificates.ts";
import { GRPC, type Overrides, SERVICES, startPorts } from "./fakes.ts";

/** What only the gRPC port has. */

let disposing = new AsyncDisposableStack();
afterEach(async () => {
  await disposing.disposeAsync();
  disposing = new AsyncDisposableStack();
});
const start = async (overrides: Overrides = {}) => disposing.use(await startPorts(overrides));

function client<T>(port: number, make: (address: string) => T & { close(): void }): T {
  const made = make(`127.0.0.1:${port}`);
  disposing.defer(() => made.close());
  return made;
}

describe("health", () => {
  const healthClient = (port: number) => client(port, (address) => new Client(address, credentials.createInsecure()));
  const ask = <T>(health: Client, method: "Check" | "List", request: object) =>
    new Promise<T>((resolve, reject) => {
      const { path, requestSerialize, responseDeserialize } = healthService[method]!;
      health.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, (error, answer) =>
        error ? reject(error) : resolve(answer as T),
      );
    });
  const watch = (health: Client, service: string) => {
    const { path, requestSerialize, responseDeserialize } = healthService.Watch!;
    const stream = health.makeServerStreamRequest(path, requestSerialize, responseDeserialize, { service });
    stream.on("error", () => undefined);
    return stream;
  };

  test("is told of every service, without a credential", async () => {
    const { grpc } = await start();
    const health = healthClient(grpc.port);
    const names = ["", ...SERVICES.map(({ typeName }) => typeName)];
    for (const service of names) expect(await ask(health, "Check", { service })).toEqual({ status: "SERVING" });
    const { statuses } = await ask<{ statuses: object }>(health, "List", {});
    expect(statuses).toEqual(Object.fromEntries(names.map((name) => [name, { status: "SERVING" }])));
  });

  test("is not told of what there is not", async () => {
    const { grpc } = await start();
    const health = healthClient(grpc.port);
    const service = "posthorn.v1.NoService";
    await expect(ask(health, "Check", { service })).rejects.toMatchObject({ code: Code.NOT_FOUND });
    expect(await once(watch(health, service), "data")).toMatchObject([{ status: "SERVICE_UNKNOWN" }]);
  });

  test("watchers hear when the port drains", async () => {
    const { grpc } = await start();
    const watching = watch(healthClient(grpc.port), "posthorn.v1.SendService");
    expect(await once(watching, "data")).toMatchObject([{ status: "SERVING" }]);
    const heard = once(watching, "data");
    const drained = grpc.drain(1_000);
    expect(await heard).toMatchObject([{ status: "NOT_SERVING" }]);
    await drained;
  });
});

describe.each(["v1", "v1alpha"])("reflection %s", (version) => {
  type Reply = {
    fileDescriptorResponse?: { fileDescriptorProto: Uint8Array[] };
    listServicesResponse?: { service: { name: string }[] };
    errorResponse?: object;
  };
  async function ask(port: number) {
    const require = createRequire(import.meta.url);
    const root = join(dirname(require.resolve("@grpc/reflection/package.json")), "build/proto");
    const definition = loadSync(join(root, `grpc/reflection/${version}/reflection.proto`), { oneofs: true });
    const loaded = loadPackageDefinition(definition) as never as Record<
      string,
      Record<string, Record<string, Record<string, ServiceClientConstructor>>>
    >;
    const Reflection = loaded.grpc!.reflection![version]!.ServerReflection!;
    const made = client(
      port,
      (address) =>
        new Reflection(address, credentials.createInsecure()) as never as Client & {
          ServerReflectionInfo(): NodeJS.ReadWriteStream;
        },
    );
    const stream = made.ServerReflectionInfo();
    stream.on("error", () => undefined); // The port closes before it does.
    return async (request: object): Promise<Reply> => {
      const answer = once(stream, "data");
      stream.write(request as never);
      const [reply] = await answer;
      return reply as Reply;
    };
  }

  test("resolves every service, message and import", async () => {
    const { grpc } = await start();
    const reflect = await ask(grpc.port);
    const listed = (await reflect({ listServices: "" })).listServicesResponse!.service.map(({ name }) => name);
    expect(listed.sort()).toEqual(["grpc.health.v1.Health", ...SERVICES.map(({ typeName }) => typeName)].sort());

    const files = new Map<string, ReturnType<typeof read>>();
    const read = (bytes: Uint8Array) => fromBinary(FileDescriptorProtoSchema, Uint8Array.from(bytes));
    const take = (reply: Reply) => {
      expect(reply.errorResponse).toBeFalsy();
      for (const bytes of reply.fileDescriptorResponse!.fileDescriptorProto) {
        const file = read(bytes);
        files.set(file.name, file);
      }
    };
    for (const { typeName, methods } of SERVICES) {
      take(await reflect({ fileContainingSymbol: typeName }));
      for (const { name, input, output } of methods)
        for (const symbol of [`${typeName}.${name}`, input.typeName, output.typeName])
          take(await reflect({ fileContainingSymbol: symbol }));
    }
    // As grpcurl does: ask for imports that did not come along.
    for (const { dependency } of files.values())
      for (const name of dependency) if (!files.has(name)) take(await reflect({ fileByFilename: name }));

    const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: ordered([...files.values()]) }));
    for (const { typeName, methods } of SERVICES)
      expect(registry.getService(typeName)?.methods.map(({ name }) => name)).toEqual(methods.map(({ name }) => name));
    // The true descriptors: rules of validation, which tools show, included.
    for (const { file } of SERVICES) expect(files.get(file.proto.name)).toEqual(file.proto);
  });
});

/** Dependencies first, as a FileDescriptorSet wants them. */
function ordered<T extends { name: string; dependency: string[] }>(files: T[]): T[] {
  const done = new Set<T>();
  const visit = (file: T) => {
    if (done.has(file)) return;
    for (const name of file.dependency) visit(files.find((each) => each.name === name)!);
    done.add(file);
  };
  files.forEach(visit);
  return [...done];
}

describe("a hostile client", () => {
  const path = "/posthorn.v1.SendService/Send";
  const UNREADABLE = "The request cannot be read: content.data: malformed.";
  const frame = (payload: Uint8Array, flag = 0, length = payload.byteLength) => {
    const head = Buffer.alloc(5);
    head.writeUInt8(flag, 0);
    head.writeUInt32BE(length, 1);
    return Buffer.concat([head, payload]);
  };
  const message = toBinary(
    SendRequestSchema,
    create(SendRequestSchema, { to: { userIds: ["u1"] }, content: { title: "t" } }),
  );

  function session(port: number): ClientHttp2Session {
    const made = connectH2(`http://127.0.0.1:${port}`);
    made.on("error", () => undefined);
    disposing.defer(() => made.destroy());
    return made;
  }

  async function post(h2: ClientHttp2Session, headers: object, body: Buffer) {
    const stream = h2.request({
      ":method": "POST",
      ":path": path,
      "content-type": "application/grpc",
      te: "trailers",
      authorization: "Bearer key:*",
      ...headers,
    });
    const seen: Record<string, unknown> = {};
    stream.on("response", (each) => Object.assign(seen, each));
    stream.on("trailers", (each) => Object.assign(seen, each));
    stream.on("error", () => undefined);
    stream.resume();
    stream.end(body);
    await once(stream, "close");
    const details = seen["grpc-status-details-bin"];
    const status = typeof details === "string" ? fromBinary(StatusSchema, Buffer.from(details, "base64")) : undefined;
    return { status: Number(seen["grpc-status"]), typed: status?.code, message: status?.message };
  }

  test("gets typed answers to what is too large, unreadable or unknown", async () => {
    // Slow enough for a deadline that has wrapped round to come first.
    const slowly = () => new Promise((resolve) => setTimeout(resolve, 20, {}));
    const { grpc } = await start({ handlers: { "SendService.Send": slowly } });
    const h2 = session(grpc.port);
    const bomb = gzipSync(Buffer.alloc(64 * 2 ** 20));
    const cases: [string, object, Buffer, number][] = [
      ["an oversize message", {}, frame(Buffer.alloc(300_000)), Code.RESOURCE_EXHAUSTED],
      ["a lying length", {}, frame(message, 0, 0xffff_ffff), Code.RESOURCE_EXHAUSTED],
      ["a compression bomb", { "grpc-encoding": "gzip" }, frame(bomb, 1), Code.RESOURCE_EXHAUSTED],
      ["bad compression", { "grpc-encoding": "gzip" }, frame(message, 1), Code.INVALID_ARGUMENT],
      ["unknown compression", { "grpc-encoding": "br" }, frame(message, 1), Code.INVALID_ARGUMENT],
      ["no protobuf", {}, frame(Buffer.from("ffffff", "hex")), Code.INVALID_ARGUMENT],
      ["no message", {}, Buffer.alloc(0), Code.INVALID_ARGUMENT],
      ["two messages", {}, Buffer.concat([frame(message), frame(message)]), Code.INVALID_ARGUMENT],
      ["a bad time-out", { "grpc-timeout": "soon" }, frame(message), Code.INVALID_ARGUMENT],
      ["an unknown method", { ":path": "/posthorn.v1.SendService/Nope%0a" }, frame(message), Code.UNIMPLEMENTED],
    ];
    for (const [name, headers, body, code] of cases)
      expect([name, await post(h2, headers, body)]).toMatchObject([name, { status: code, typed: code }]);
    // More milliseconds than 31 bits hold, once so many that the sign bit is set.
    for (const timeout of ["99999999H", "600H"])
      expect(await post(h2, { "grpc-timeout": timeout }, frame(message))).toMatchObject({ status: 0 });
  });

  test("is told the same of what is malformed, however large it is", async () => {
    const { grpc } = await start();
    const h2 = session(grpc.port);
    const told = async (body: Buffer) => (await post(h2, {}, frame(body))).message;
    // Groups of a number that is no field, and that do not end.
    for (const groups of [1, 10_000])
      expect(await told(Buffer.alloc(2 * groups, Buffer.from("fb7f", "hex")))).toBe("The request cannot be read.");
    // The title of the content is longer than what it is in.
    const title = Buffer.from("1a020a7f", "hex");
    for (const size of [0, 20_000])
      expect(await told(Buffer.concat([title, Buffer.alloc(size, message)]))).toBe(
        "The request cannot be read: content.title: malformed.",
      );
  });

  test("cannot make unknown fields cost memory, or nest without end", async () => {
    let fields: unknown;
    const { grpc } = await start({
      handlers: {
        "SendService.Send": async (request) => {
          fields = request.$unknown;
          return {};
        },
      },
    });
    const h2 = session(grpc.port);
    const unknown = Buffer.concat([Buffer.from(message), Buffer.alloc(210_000, Buffer.from([0xf8, 0x7f, 0x00]))]);
    expect(await post(h2, {}, frame(unknown))).toMatchObject({ status: 0 });
    expect(fields).toBeUndefined();
    // Lists in lists in Content.data: Value.list_value is field 6, ListValue.values field 1.
    const wrap = (number: number, inner: Buffer) =>
      Buffer.concat([varint((number << 3) | 2), varint(inner.length), inner]);
    let deep: Buffer = Buffer.alloc(0);
    for (let i = 0; i < 10_000; i++) deep = wrap(6, wrap(1, deep));
    const struct = wrap(1, Buffer.concat([wrap(1, Buffer.from("k")), wrap(2, deep)]));
    const nested = wrap(SendRequestSchema.field.content.number, wrap(ContentSchema.field.data.number, struct));
    expect(nested.length).toBeLessThan(GRPC.maxReceiveBytes);
    expect(await post(h2, {}, frame(nested))).toMatchObject({ status: Code.INVALID_ARGUMENT, message: UNREADABLE });
  });

  test("finds little room for requests that nobody takes", async () => {
    const { grpc } = await start({
      handlers: {
        "SendService.SendStream": async function* (requests, call) {
          for await (const { chunkId } of requests) {
            await new Promise((resolve) => call.signal.addEventListener("abort", resolve));
            yield { chunkId };
          }
        },
      },
    });
    const h2 = session(grpc.port);
    const stream = h2.request({
      ":method": "POST",
      ":path": "/posthorn.v1.SendService/SendStream",
      "content-type": "application/grpc",
      te: "trailers",
      authorization: "Bearer key:*",
    });
    stream.on("error", () => undefined);
    let taken = 0;
    let last = performance.now();
    const items = [{ content: { body: "x".repeat(200_000) } }];
    const chunk = toBinary(SendStreamRequestSchema, create(SendStreamRequestSchema, { items }));
    const offer = () =>
      stream.write(frame(chunk), () => {
        taken++;
        last = performance.now();
        if (taken < 40) offer();
      });
    offer();
    // Nothing tells that nothing happens.
    await vi.waitUntil(() => taken > 0 && performance.now() - last > 300, { timeout: 5_000 });
    expect(taken).toBeLessThan(6);
    stream.close();
  });

  test("opens no more streams than allowed", async () => {
    const { grpc } = await start({
      grpc: { maxConcurrentStreams: 5 },
      handlers: { "SendService.Send": () => new Promise(() => undefined) },
    });
    const h2 = session(grpc.port);
    await once(h2, "remoteSettings");
    expect(h2.remoteSettings.maxConcurrentStreams).toBe(5);
  });

  test("that cancels a thousand calls at once leaves the port alive", async () => {
    const { grpc } = await start({ handlers: { "SendService.Send": () => new Promise(() => undefined) } });
    const h2 = session(grpc.port);
    await once(h2, "connect");
    for (let i = 0; i < 1_000; i++) {
      const stream = h2.request({ ":method": "POST", ":path": path, "content-type": "application/grpc" });
      stream.on("error", () => undefined);
      stream.close(constants.NGHTTP2_CANCEL);
    }
    const other = grpcCaller(grpc.port);
    disposing.use(other);
    const answer = await other.call(AdminService.method.whoAmI, {}, { authorization: "Bearer operator" });
    expect(answer.problem).toBeUndefined();
  });
});

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest > 127) {
    bytes.push((rest & 127) | 128);
    rest >>>= 7;
  }
  return Buffer.from([...bytes, rest]);
}

describe.skipIf(certificates === undefined)("TLS", () => {
  const tls = certificates!;
  const whoAmI = (port: number, creds: ReturnType<typeof credentials.createSsl>) => {
    const caller = grpcCaller(port, creds);
    disposing.use(caller);
    return caller.call(AdminService.method.whoAmI, {}, { authorization: "Bearer operator", timeoutMs: 2_000 });
  };

  test("serves those who trust its certificate", async () => {
    const { grpc } = await start({
      grpc: { tls: { certFile: tls.server.cert, keyFile: tls.server.key, clientCaFile: undefined } },
    });
    expect((await whoAmI(grpc.port, credentials.createSsl(tls.ca.pem))).problem).toBeUndefined();
    expect((await whoAmI(grpc.port, credentials.createInsecure())).problem).toBeDefined();
  });

  test("refuses callers without a certificate when it asks for one", async () => {
    const { grpc } = await start({
      grpc: { tls: { certFile: tls.server.cert, keyFile: tls.server.key, clientCaFile: tls.ca.cert } },
    });
    const withCert = credentials.createSsl(tls.ca.pem, tls.client.keyPem, tls.client.certPem);
    expect((await whoAmI(grpc.port, withCert)).problem).toBeUndefined();
    expect((await whoAmI(grpc.port, credentials.createSsl(tls.ca.pem))).problem).toBeDefined();
  });
});
