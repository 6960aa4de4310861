import { brotliCompressSync, deflateSync, gzipSync } from "node:zlib";
import { BinaryWriter } from "@bufbuild/protobuf/wire";
import { describe, expect, test, vi } from "vitest";
import { until } from "../support/until.ts";
import { envelope, Flag, frame, headerBlock, rememberedField, Type } from "./frames.ts";
import { manyCalls } from "./many-calls.ts";
import { begin, callHead, rawSession } from "./raw-session.ts";
import { besieged } from "./siege.ts";

/** Attack 26: what is not what it says it is, and heads that are too much. */

vi.setConfig({ testTimeout: 90_000 });
const { target, during } = await besieged();
const many = manyCalls(target.apiKey);
const SEND = "/posthorn.v1.SendService/Send";
const SEND_STREAM = "/posthorn.v1.SendService/SendStream";
const GET = "/posthorn.v1.SendService/GetNotification";
const MIB = 2 ** 20;
const zeros = Buffer.alloc(64 * MIB);
const bombs = { gzip: gzipSync(zeros), deflate: deflateSync(zeros), br: brotliCompressSync(zeros) };
/** Code of the status or HTTP status that refuses a call because of what was sent. */
const REFUSED = ["3", "8", "12"];

const grpc = { ":method": "POST", "content-type": "application/grpc", te: "trailers" };
const connectJson = { ":method": "POST", "content-type": "application/json" };

describe.each(target.ports)("on the $name port", (port) => {
  test("26: compression bombs in gRPC messages", async () => {
    await during(async () => {
      for (const encoding of ["gzip", "deflate", "br"] as const)
        for (const path of [SEND, SEND_STREAM]) {
          const headers = { ...grpc, ":path": path, "grpc-encoding": encoding };
          for (const { grpcStatus } of await many(port, 10, headers, envelope(bombs[encoding], 1)))
            expect(REFUSED).toContain(grpcStatus);
        }
    });
  });

  test("26: many small bombs in one stream", async () => {
    const bomb = envelope(gzipSync(zeros.subarray(0, 4 * MIB - 1)), 1);
    await during(async () => {
      const body = Buffer.concat(Array<Buffer>(30).fill(bomb));
      const headers = { ...grpc, ":path": SEND_STREAM, "grpc-encoding": "gzip" };
      for (const { grpcStatus } of await many(port, 10, headers, body)) expect(REFUSED).toContain(grpcStatus);
    });
  });

  test("26: a length prefix that lies", async () => {
    await during(async () => {
      // Four gigabytes, a byte more and a byte less than there is, and more than is allowed.
      for (const length of [0xffff_ffff, 8, 6, 4 * MIB + 1])
        for (const path of [SEND, SEND_STREAM]) {
          const body = envelope(Buffer.alloc(7), 0, length);
          for (const { grpcStatus } of await many(port, 20, { ...grpc, ":path": path }, body))
            expect(REFUSED).toContain(grpcStatus);
        }
    });
  });

  test("26: far more items than are allowed, and very many fields before one that cannot be read", async () => {
    const times = (count: number, ...bytes: number[]) => Buffer.alloc(count * bytes.length, Buffer.from(bytes));
    const nested = (number: number, content: Buffer) =>
      Buffer.concat([Buffer.from(new BinaryWriter().tag(number, 2).uint32(content.length).finish()), content]);
    const bodies: [path: string, body: Buffer][] = [
      [SEND, nested(1, times(150_000, 0x0a, 0))],
      [SEND, times(150_000, 0x12, 0)],
      ["/posthorn.v1.SendService/SendBatch", times(150_000, 0x0a, 0)],
      ["/posthorn.v1.SendService/SendBatch", nested(1, nested(3, times(150_000, 0x22, 0)))],
      [SEND, Buffer.concat([times(150_000, 0x78, 1), Buffer.from([0x0a, 0x7f])])],
    ];
    await during(async () => {
      for (const [path, body] of bodies)
        for (const { grpcStatus } of await many(port, 2, { ...grpc, ":path": path }, envelope(body)))
          expect(grpcStatus).toBe("3");
    });
  });

  test("26: messages nested without end", async () => {
    // content.data: a Struct, with a list in a list and so on, from the inside out.
    const heads: Uint8Array[] = [];
    let length = 0;
    const within = (number: number) => {
      heads.push(new BinaryWriter().tag(number, 2).uint32(length).finish());
      length += heads.at(-1)?.length ?? 0;
    };
    for (let depth = 0; depth < 200_000; depth++) {
      within(1);
      within(6);
    }
    for (const number of [2, 1, 3, 3]) within(number);
    const nested = Buffer.concat(heads.reverse());
    expect(nested.length).toBeLessThan(4 * MIB);
    await during(async () => {
      for (const body of [nested, gzipSync(nested)]) {
        const headers = { ...grpc, ":path": SEND, ...(body === nested ? {} : { "grpc-encoding": "gzip" }) };
        for (const { grpcStatus } of await many(port, 5, headers, envelope(body, body === nested ? 0 : 1)))
          expect(grpcStatus).toBe("3");
      }
      if (port.name === "grpc") return;
      for (const { status, body } of await many(
        port,
        5,
        { ...connectJson, "content-type": "application/proto", ":path": SEND },
        nested,
      ))
        expect([status, body]).toEqual([400, expect.stringContaining("invalid_argument")]);
    });
  });

  test("26: heads with too many fields, too large ones, and HPACK bombs", async () => {
    await during(async () => {
      const plain = callHead(port, SEND, target.apiKey);
      const heads = [
        Buffer.concat([plain, headerBlock(Array.from({ length: 2_000 }, (_, n) => [`x-${n}`, "y"] as const))]),
        Buffer.concat([plain, headerBlock([["x-large", "y".repeat(200_000)]])]),
        // One field of four kilobytes remembered, then named three thousand times by a byte each.
        Buffer.concat([plain, rememberedField("x-bomb", "y".repeat(4_000)), Buffer.alloc(3_000, 0xbe)]),
      ];
      for (const head of heads)
        for (let connection = 0; connection < 5; connection++) {
          using session = await rawSession(port);
          const parts = [];
          for (let at = 0; at < head.length; at += 16_000) parts.push(head.subarray(at, at + 16_000));
          for (const [n, part] of parts.entries()) {
            const type = n === 0 ? Type.HEADERS : Type.CONTINUATION;
            await session.write(frame(type, n === parts.length - 1 ? Flag.END_HEADERS : 0, 1, part));
          }
          await until(
            async () => session.ended.has(1) || !session.open,
            (over) => over,
          );
        }
    });
  });

  test("26: fields that must not be, and streams that are none", async () => {
    const plain = callHead(port, SEND, target.apiKey);
    const hostile = [
      begin(2, plain),
      begin(0, plain),
      begin(1, headerBlock([[":path", "/x"]])),
      begin(
        1,
        headerBlock([
          [":method", "CONNECT"],
          [":authority", "x:1"],
        ]),
      ),
      begin(1, Buffer.concat([plain, headerBlock([["Upper", "x"]])])),
      begin(1, Buffer.concat([plain, headerBlock([["connection", "x"]])])),
      begin(1, Buffer.concat([plain, headerBlock([["x", "a\r\nb"]])])),
      frame(Type.DATA, 0, 9, Buffer.alloc(9)),
      frame(Type.WINDOW_UPDATE, 0, 0, Buffer.alloc(4)),
      frame(Type.WINDOW_UPDATE, 0, 0, Buffer.from([0x7f, 0xff, 0xff, 0xff])),
      frame(Type.PUSH_PROMISE, 4, 1, Buffer.alloc(9)),
      frame(Type.SETTINGS, 0, 0, Buffer.alloc(5)),
      frame(Type.PING, 0, 0, Buffer.alloc(3)),
      Buffer.from("GET / HTTP/1.1\r\n\r\n"),
      Buffer.concat([frame(Type.DATA, 0, 1).subarray(0, 3), Buffer.alloc(6, 0xff)]),
    ];
    await during(async () => {
      for (const bytes of hostile) {
        using session = await rawSession(port);
        await session.write(bytes);
        await session.write(frame(Type.PING, 0, 0, Buffer.alloc(8)));
        await until(
          async () => !session.open || session.count(Type.PING) + session.count(Type.GOAWAY) > 0,
          (over) => over,
        );
      }
    });
  });
});

describe("in Connect calls", () => {
  const port = target.http;

  test("26: compression bombs, in bodies and in GET", async () => {
    await during(async () => {
      for (const encoding of ["gzip", "br", "deflate"] as const) {
        const post = await many(
          port,
          20,
          { ...connectJson, ":path": SEND, "content-encoding": encoding },
          bombs[encoding],
        );
        const message = gzipSync(zeros.subarray(0, 8 * MIB)).toString("base64url");
        const query = `connect=v1&encoding=json&base64=1&compression=${encoding}&message=${message}`;
        const get = await many(port, 10, { ":method": "GET", ":path": `${GET}?${query}` }, Buffer.alloc(0));
        const stream = {
          ...connectJson,
          "content-type": "application/connect+proto",
          "connect-content-encoding": encoding,
        };
        const streamed = await many(port, 10, { ...stream, ":path": SEND_STREAM }, envelope(bombs[encoding], 1));
        for (const { status } of [...post, ...get]) expect([0, 400, 404, 429, 431]).toContain(status);
        for (const { body } of streamed) expect(body).toMatch(/resource_exhausted|invalid_argument|unimplemented/);
      }
    });
  });

  test("26: far more items than are allowed, as JSON and compressed", async () => {
    const times = (count: number, text: string) => Array(count).fill(text).join(",");
    const bodies: [path: string, body: string][] = [
      ["/posthorn.v1.InboxService/MarkRead", `{"notificationIds":[${times(400_000, '""')}]}`],
      ["/posthorn.v1.SendService/SendBatch", `{"items":[${times(400_000, "{}")}]}`],
      [SEND, `{"to":{"userIds":["u"]},"content":{"title":"t","data":{"a":[${times(600_000, "1")}]}}}`],
    ];
    await during(async () => {
      for (const [path, body] of bodies)
        for (const encoding of ["identity", "gzip"]) {
          const bytes = encoding === "gzip" ? gzipSync(body) : Buffer.from(body);
          const headers = { ...connectJson, ":path": path, "content-encoding": encoding };
          for (const { status, body: said } of await many(port, 2, headers, bytes))
            expect([status, said]).toEqual([400, expect.stringContaining("no more than")]);
        }
    });
  });

  test("26: JSON that is too deep, too large, double, or no text", async () => {
    const send = (fields: string) => `{"to":{"userIds":["u"]},"content":{"title":"t"${fields}}}`;
    const bodies = [
      send(`,"data":{"a":${"[".repeat(200_000)}${"]".repeat(200_000)}}`),
      send(`,"data":${'{"a":'.repeat(200_000)}1${"}".repeat(200_000)}`),
      send(`,"data":{"n":${"9".repeat(100_000)}}`),
      send(',"data":{"n":1e400}'),
      send(',"data":{"n":-1e999999999}'),
      `{"to":{"userIds":["u"]},"to":{"userIds":["v"]},"priority":${"9".repeat(50_000)}}`,
      '{"to":{"userIds":["\\ud800"]},"content":{"title":"\\udfff"}}',
      Buffer.concat([Buffer.from('{"content":{"title":"'), Buffer.from([0xff, 0xfe, 0xc0, 0x80]), Buffer.from('"}}')]),
      `{"__proto__":{"x":1},"constructor":{"prototype":{"y":1}}}`,
      `[${"{},".repeat(300_000)}{}]`,
      `"${"\\u0000".repeat(100_000)}"`,
    ];
    await during(async () => {
      for (const body of bodies)
        for (const answer of await many(port, 3, { ...connectJson, ":path": SEND }, Buffer.from(body))) {
          expect([String(body).slice(0, 60), answer.status]).toEqual([String(body).slice(0, 60), 400]);
          expect(JSON.parse(answer.body)).toMatchObject({ code: "invalid_argument" });
        }
    });
  });

  test("26: an envelope that lies about its length", async () => {
    await during(async () => {
      for (const length of [0xffff_ffff, 8, 6, 4 * MIB + 1]) {
        const headers = { ...connectJson, "content-type": "application/connect+proto", ":path": SEND_STREAM };
        for (const { body } of await many(port, 20, headers, envelope(Buffer.alloc(7), 0, length)))
          expect(body).toMatch(/resource_exhausted|invalid_argument/);
      }
    });
  });
});
