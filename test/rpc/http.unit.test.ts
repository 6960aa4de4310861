import { once } from "node:events";
import {
  type ClientHttp2Session,
  connect as connectH2,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
} from "node:http2";
import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { createConnectTransport } from "@connectrpc/connect-node";
import { Gauge } from "prom-client";
import { afterEach, describe, expect, test, vi } from "vitest";
import { AdminService } from "#gen/posthorn/v1/admin_service_pb.ts";
import type { Call } from "#src/rpc/call.ts";
import { envelope } from "../attack/frames.ts";
import { transportCaller } from "./callers.ts";
import { certificates } from "./certificates.ts";
import { type Overrides, startPorts } from "./fakes.ts";

/** What only the HTTP port has, and what hostile clients send it. */

let disposing = new AsyncDisposableStack();
afterEach(async () => {
  await disposing.disposeAsync();
  disposing = new AsyncDisposableStack();
});

async function start(overrides: Overrides = {}) {
  const ports = disposing.use(await startPorts(overrides));
  return { ...ports, port: ports.http.port, url: `http://127.0.0.1:${ports.http.port}` };
}

const SEND = "/posthorn.v1.SendService/Send";
const WHO_AM_I = "/posthorn.v1.AdminService/WhoAmI";
const SUBSCRIBE = "/posthorn.v1.StreamService/Subscribe";
const json = { "content-type": "application/json", authorization: "Bearer key:*" };
const valid = JSON.stringify({ to: { userIds: ["u1"] }, content: { title: "t" } });

type Body = NonNullable<NonNullable<Parameters<typeof fetch>[1]>["body"]>;

/** Sends bytes as they are; resolves with all that came back when the server closes. */
function raw(port: number): { socket: Socket; closed: Promise<string> } {
  const socket = connectTcp(port, "127.0.0.1");
  disposing.defer(() => void socket.destroy());
  const chunks: Buffer[] = [];
  socket.on("data", (chunk) => chunks.push(chunk));
  socket.on("error", () => undefined);
  return { socket, closed: once(socket, "close").then(() => Buffer.concat(chunks).toString("latin1")) };
}

function session(url: string): ClientHttp2Session {
  const made = connectH2(url);
  made.on("error", () => undefined);
  disposing.defer(() => made.destroy());
  return made;
}

async function request(h2: ClientHttp2Session, headers: OutgoingHttpHeaders, body: string | Buffer = "") {
  const stream = h2.request({ ":method": "POST", ...headers });
  stream.on("error", () => undefined);
  let trailers: IncomingHttpHeaders = {};
  stream.on("trailers", (each) => {
    trailers = each;
  });
  stream.end(body);
  const [response] = await once(stream, "response");
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString("utf8");
  // Wherever a protocol says it.
  const message = String(response["grpc-message"] ?? trailers["grpc-message"] ?? "");
  return {
    status: response[":status"] as number,
    body: text,
    said: (text + message).replaceAll(/%[0-9A-F]{2}/g, decodeURIComponent),
  };
}

async function stillAlive(url: string): Promise<void> {
  const answer = await fetch(url + WHO_AM_I, { method: "POST", headers: json, body: "{}" });
  expect(answer.status).toBe(200);
}

async function problemOf(answer: Response) {
  const { code, details } = (await answer.json()) as { code: string; details?: { debug?: { reason?: string } }[] };
  return { status: answer.status, code, reason: details?.[0]?.debug?.reason };
}

describe("probes", () => {
  test("say that it lives, whether it is ready, and what it measures", async () => {
    const { url, ready } = await start();
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
    expect(await (await fetch(`${url}/readyz`)).json()).toEqual({ ready: true, checks: { postgres: true } });
    ready.postgres = false;
    const answer = await fetch(`${url}/readyz`);
    expect([answer.status, await answer.json()]).toEqual([503, { ready: false, checks: { postgres: false } }]);
    await fetch(url + WHO_AM_I, { method: "POST", headers: json, body: "{}" });
    const metrics = await (await fetch(`${url}/metrics`)).text();
    expect(metrics).toContain(
      'posthorn_rpc_requests_total{transport="connect",method="posthorn.v1.AdminService/WhoAmI",code="OK"} 1',
    );
    expect((await fetch(`${url}/healthz`, { method: "POST" })).status).toBe(405);
  });

  test("there is nothing else", async () => {
    const { url } = await start();
    for (const path of ["/", "/healthz/", "/..%2f..%2fetc/passwd", "/constructor", "/__proto__", `${SEND}/`])
      expect((await fetch(url + path)).status).toBe(404);
  });

  test("not ready while it drains", async () => {
    const begun = Promise.withResolvers<void>();
    const go = Promise.withResolvers<void>();
    const { url, http } = await start({
      handlers: {
        "SendService.Send": async () => {
          begun.resolve();
          await go.promise;
          return {};
        },
      },
    });
    const h2 = session(url);
    const slow = request(h2, { ":path": SEND, ...json }, valid);
    await begun.promise;
    const drained = http.drain(5_000);
    const answer = await fetch(`${url}/readyz`);
    expect([answer.status, await answer.json()]).toEqual([
      503,
      { ready: false, checks: { postgres: true, draining: false } },
    ]);
    const late = await fetch(url + SEND, { method: "POST", headers: json, body: valid });
    expect(await problemOf(late)).toEqual({ status: 503, code: "unavailable", reason: "SHUTTING_DOWN" });
    go.resolve();
    expect((await slow).status).toBe(200);
    await drained;
    await expect(fetch(`${url}/healthz`)).rejects.toThrow();
  });
});

test("a call that is refused twice over, by draining and for its credential, is one refusal and no stray rejection", async () => {
  const stray = vi.fn();
  process.on("unhandledRejection", stray);
  disposing.defer(() => void process.off("unhandledRejection", stray));
  const go = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  const { url, http } = await start({
    handlers: {
      "SendService.Send": async () => {
        begun.resolve();
        await go.promise;
        return {};
      },
    },
  });
  const slow = request(session(url), { ":path": SEND, ...json }, valid);
  await begun.promise;
  const drained = http.drain(5_000);
  for (const authorization of ["", "Bearer forged", "Bearer key:INBOX"]) {
    const answer = await fetch(url + SEND, { method: "POST", headers: { ...json, authorization }, body: valid });
    expect(await problemOf(answer)).toEqual({ status: 503, code: "unavailable", reason: "SHUTTING_DOWN" });
  }
  go.resolve();
  await Promise.all([slow, drained]);
  expect(stray).not.toHaveBeenCalled();
});

describe("CORS", () => {
  const preflight = (url: string, origin: string) =>
    fetch(url + SEND, {
      method: "OPTIONS",
      headers: { origin, "access-control-request-method": "POST", "access-control-request-headers": "authorization" },
    });

  test("pages of configured origins may call, with every header of every protocol", async () => {
    const { url } = await start();
    const answer = await preflight(url, "https://app.example");
    expect(answer.status).toBe(204);
    expect(answer.headers.get("access-control-allow-origin")).toBe("https://app.example");
    const allowed = answer.headers.get("access-control-allow-headers")?.toLowerCase().split(", ");
    expect(allowed).toEqual(
      expect.arrayContaining([
        "authorization",
        "content-type",
        "connect-protocol-version",
        "connect-timeout-ms",
        "x-grpc-web",
        "x-user-agent",
        "grpc-timeout",
        "posthorn-tenant",
        "traceparent",
      ]),
    );
    const call = await fetch(url + SEND, {
      method: "POST",
      headers: { ...json, origin: "https://app.example" },
      body: valid,
    });
    expect(call.headers.get("access-control-allow-origin")).toBe("https://app.example");
    const exposed = call.headers.get("access-control-expose-headers")?.toLowerCase().split(", ");
    expect(exposed).toEqual(expect.arrayContaining(["grpc-status-details-bin", "deprecation", "sunset"]));
  });

  test("pages of other origins may not", async () => {
    const { url } = await start();
    for (const origin of ["https://evil.example", "https://app.example.evil.example", "null", "http://app.example"]) {
      const answer = await preflight(url, origin);
      expect(answer.headers.get("access-control-allow-origin")).toBeNull();
      expect(answer.headers.get("access-control-allow-headers")).toBeNull();
    }
  });
});

describe("hostile input", () => {
  test("a Host or authority that is none does not stop the server", async () => {
    const { url, port } = await start();
    for (const host of ["x:99999", "[", "", "a b", "\u00ff"]) {
      const { socket, closed } = raw(port);
      socket.write(
        `POST ${WHO_AM_I} HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/json\r\nAuthorization: Bearer operator\r\n` +
          "Content-Length: 2\r\nConnection: close\r\n\r\n{}",
        "latin1",
      );
      expect(await closed).toMatch(/^HTTP\/1\.1 [24]\d\d /);
    }
    const h2 = session(url);
    const answer = await request(h2, { ":path": WHO_AM_I, ":authority": "x:99999", ...json }, "{}");
    expect(answer.status).toBe(200);
    await stillAlive(url);
  });

  test("what cannot be read is INVALID_ARGUMENT, not a defect", async () => {
    const { url } = await start();
    const post = (headers: object, body: Body) =>
      fetch(url + SEND, { method: "POST", headers: { ...json, ...headers }, body });
    const invalid = { status: 400, code: "invalid_argument", reason: "INVALID_REQUEST" };
    const proto = { "content-type": "application/proto" };
    const nested = `{"content":{"data":{"a":${"[".repeat(50_000)}${"]".repeat(50_000)}}}}`;
    const cases: [object, Body][] = [
      [{}, "{"],
      [{}, '{"priority":"URGENT"}'],
      [{}, Buffer.from([0xff, 0xfe])],
      [{}, nested],
      [{}, '{"to":{"userIds":["u1"]},"content":{"title":"t","data":{"n":1e400}}}'],
      [proto, Buffer.from("ffffff", "hex")],
      [{ "content-encoding": "gzip" }, valid],
      [{ "content-encoding": "nonsense" }, valid],
      [{ "connect-timeout-ms": "soon" }, valid],
    ];
    for (const [headers, body] of cases) expect(await problemOf(await post(headers, body))).toEqual(invalid);
    const get = `${url}/posthorn.v1.SendService/GetNotification?connect=v1&encoding=proto&base64=1&message=`;
    for (const message of ["%%%", "!!!", "////"])
      expect(await problemOf(await fetch(get + message, { headers: json }))).toEqual(invalid);
    await stillAlive(url);
  });

  test("the field that cannot be read is named, in a body, a query and a stream", async () => {
    const { url } = await start();
    const fieldOf = async (answer: Response) => {
      const { details } = (await answer.json()) as { details: { debug: { fieldViolations?: { field?: string }[] } }[] };
      return details.flatMap(({ debug }) => debug.fieldViolations ?? []).map(({ field }) => field ?? "");
    };
    const post = (body: Body) => fetch(url + SEND, { method: "POST", headers: json, body });
    expect(await fieldOf(await post('{"to":{"userIds":["a",1]}}'))).toEqual(["to.user_ids[1]"]);
    expect(await fieldOf(await post("{"))).toEqual([""]);
    const late = await fetch(url + SEND, {
      method: "POST",
      headers: { ...json, "connect-timeout-ms": "x" },
      body: "{}",
    });
    expect(await fieldOf(late)).toEqual(["connect-timeout-ms"]);
    const get = `${url}/posthorn.v1.SendService/GetNotification?connect=v1&encoding=json&message=`;
    expect(await fieldOf(await fetch(`${get}${encodeURIComponent('{"id":{}}')}`, { headers: json }))).toEqual(["id"]);
    const body = '{"filter":{"types":"news"}}';
    const stream = await fetch(`${url}/posthorn.v1.StreamService/Subscribe`, {
      method: "POST",
      headers: { ...json, "content-type": "application/connect+json" },
      body: `\0\0\0\0${String.fromCharCode(body.length)}${body}`,
    });
    expect(await stream.text()).toContain('"field":"filter.types"');
  });

  test("the field is named in what is large, compressed or comes late in a stream", async () => {
    const { url } = await start({
      handlers: {
        "SendService.SendStream": async function* (requests) {
          for await (const { chunkId } of requests) yield { chunkId };
        },
      },
    });
    const h2 = session(url);
    const wrong = Buffer.from('{"to":{"userIds":["u1"]},"priority":"NOPE"}');
    const large = Buffer.from(
      JSON.stringify({ content: { title: "t", data: { text: "x".repeat(100_000) } }, priority: "NOPE" }),
    );
    const noUser = Buffer.from("0a020aff", "hex"); // In Send: to.user_ids[0] is longer than what follows.
    const items = [...Array<object>(1_500).fill({ to: { userIds: ["u1"] }, content: { title: "ttttttt" } }), { to: 5 }];
    const batch = Buffer.from(JSON.stringify({ items }));
    const [proto, gzip] = [{ "content-type": "application/proto" }, { "content-encoding": "gzip" }];
    const grpc = (kind: string) => ({
      "content-type": `application/grpc${kind}`,
      "grpc-encoding": "gzip",
      te: "trailers",
    });
    const late = [...Array<object>(3_000).fill({ items: [JSON.parse(valid)] }), { items: [{ to: 5 }] }].map((each) =>
      envelope(Buffer.from(JSON.stringify(each))),
    );
    const STREAM = "/posthorn.v1.SendService/SendStream";
    const cases: [string, string, object, Buffer, string][] = [
      ["large JSON", SEND, {}, large, "priority"],
      ["a large batch", "/posthorn.v1.SendService/SendBatch", {}, batch, "items[1500].to"],
      ["compressed JSON", SEND, gzip, gzipSync(wrong), "priority"],
      ["large compressed JSON", SEND, gzip, gzipSync(large), "priority"],
      ["compressed bytes", SEND, { ...proto, ...gzip }, gzipSync(noUser), "to.user_ids[0]"],
      ["compressed gRPC-Web", SEND, grpc("-web+proto"), envelope(gzipSync(noUser), 1), "to.user_ids[0]"],
      ["compressed gRPC", SEND, grpc(""), envelope(gzipSync(noUser), 1), "to.user_ids[0]"],
      ["compressed gRPC of JSON", SEND, grpc("+json"), envelope(gzipSync(large), 1), "priority"],
      ["a late message", STREAM, { "content-type": "application/connect+json" }, Buffer.concat(late), "items[0].to"],
    ];
    for (const [name, path, headers, body, field] of cases) {
      const { status, said } = await request(h2, { ":path": path, ...json, ...headers }, body);
      expect([name, status, said]).toEqual([name, expect.toBeOneOf([200, 400]), expect.stringContaining(`: ${field}`)]);
    }
  });

  test("a wrong content type or verb is told so", async () => {
    const { url } = await start();
    const text = await fetch(url + SEND, {
      method: "POST",
      headers: { ...json, "content-type": "text/plain" },
      body: "x",
    });
    expect(text.status).toBe(415);
    expect((await fetch(url + SEND, { method: "PUT", headers: json, body: "x" })).status).toBe(405);
    expect((await fetch(url + SEND, { headers: json })).status).toBe(405);
    await stillAlive(url);
  });

  test("an unknown method is UNKNOWN_METHOD on every protocol", async () => {
    const { url } = await start();
    const path = "/posthorn.v1.SendService/Nope";
    const connect = await fetch(url + path, { method: "POST", headers: json, body: "{}" });
    expect(await problemOf(connect)).toEqual({ status: 501, code: "unimplemented", reason: "UNKNOWN_METHOD" });
    for (const contentType of ["application/grpc", "application/grpc-web+proto"]) {
      const answer = await fetch(url + path, { method: "POST", headers: { "content-type": contentType }, body: "" });
      expect(answer.headers.get("grpc-status")).toBe("12");
      expect(answer.headers.get("grpc-status-details-bin")).toMatch(/./);
    }
  });

  test("oversize bodies and compression bombs cost nothing", async () => {
    const { url } = await start();
    const zeros = Buffer.alloc(256 * 2 ** 20);
    const before = process.memoryUsage().rss;
    const post = (headers: object, body: Buffer) =>
      fetch(url + SEND, { method: "POST", headers: { ...json, ...headers }, body: Uint8Array.from(body) });
    const tooLarge = { status: 429, code: "resource_exhausted", reason: "MESSAGE_TOO_LARGE" };
    expect(await problemOf(await post({}, zeros.subarray(0, 300 * 1024)))).toEqual(tooLarge);
    const bomb = gzipSync(zeros);
    expect(await problemOf(await post({ "content-encoding": "gzip" }, bomb.subarray()))).toEqual(tooLarge);
    const message = encodeURIComponent(gzipSync(zeros.subarray(0, 8 * 2 ** 20)).toString("base64url"));
    const get = `${url}/posthorn.v1.SendService/GetNotification?connect=v1&encoding=json&compression=gzip&base64=1`;
    expect(await problemOf(await fetch(`${get}&message=${message}`, { headers: json }))).toMatchObject(tooLarge);
    expect((await post({ "content-encoding": "br" }, brotliCompressSync(zeros.subarray(0, 2 ** 20)))).status).toBe(400);
    expect(process.memoryUsage().rss - before).toBeLessThan(200 * 2 ** 20);
    await stillAlive(url);
  });

  test("nothing is read of calls without a credential", async () => {
    const { port } = await start();
    const { socket } = raw(port);
    const length = 200_000;
    socket.write(
      `POST ${SEND} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${length}\r\n\r\n{"to"`,
    );
    // The answer comes though the body never does.
    const [head] = await once(socket, "data");
    expect(String(head)).toMatch(/^HTTP\/1.1 401 /);
  });

  test("slow headers, slow bodies and silence end", async () => {
    const { port, url } = await start({ http: { headersTimeoutMs: 300, requestTimeoutMs: 600 } });
    const silent = raw(port);
    const slowHead = raw(port);
    slowHead.socket.write("POST /x HTTP/1.1\r\nHost:");
    const slowPreface = raw(port);
    slowPreface.socket.write("PR");
    const slowBody = raw(port);
    slowBody.socket.write(
      `POST ${SEND} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer key:*\r\n` +
        "Content-Length: 100\r\n\r\n{",
    );
    const h2 = session(url);
    const stalled = h2.request({
      ":method": "POST",
      ":path": SUBSCRIBE,
      ...json,
      "content-type": "application/connect+json",
    });
    stalled.on("error", () => undefined);
    stalled.resume();
    stalled.write("half");
    const half = h2.request({ ":method": "POST", ":path": SEND, ...json });
    half.on("error", () => undefined);
    half.write("{");
    await Promise.all([silent.closed, slowHead.closed, slowPreface.closed, slowBody.closed, once(stalled, "close")]);
    await once(half.resume(), "close");
    await stillAlive(url);
  });

  test("a message that was begun has to come to its end, and a stream may be quiet between messages", async () => {
    const { url } = await start({
      http: { requestTimeoutMs: 400 },
      handlers: {
        "SendService.SendStream": async function* (requests) {
          for await (const { chunkId } of requests) yield { chunkId };
        },
      },
    });
    const open = () => {
      const headers = { ":method": "POST", ":path": "/posthorn.v1.SendService/SendStream", ...json };
      const stream = session(url).request({ ...headers, "content-type": "application/connect+json" });
      let answered = "";
      stream.on("error", () => undefined);
      stream.on("data", (chunk) => {
        answered += chunk;
      });
      return { stream, answered: () => answered };
    };
    const message = envelope(Buffer.from(JSON.stringify({ chunkId: "1", items: [JSON.parse(valid)] })));
    const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

    const [quiet, halved, half, trickling] = [open(), open(), open(), open()];
    quiet.stream.write(message);
    half.stream.write(Buffer.concat([message, message.subarray(0, 2)]));
    const trickle = (async () => {
      for (const byte of message.subarray(0, 12)) {
        trickling.stream.write(Buffer.from([byte]));
        await pause(50);
      }
    })();
    // Always within a message, and never for long within one.
    for (let n = 0; n < 5; n++) {
      halved.stream.write(
        n === 0 ? message.subarray(0, 7) : Buffer.concat([message.subarray(7), message.subarray(0, 7)]),
      );
      await pause(150);
    }
    await trickle;
    for (const { stream, answered } of [half, trickling]) {
      if (!stream.closed) await once(stream, "close");
      expect(answered()).toContain("DEADLINE_EXCEEDED");
    }
    for (const { stream, answered } of [quiet, halved]) {
      expect(answered()).not.toContain("DEADLINE_EXCEEDED");
      stream.end(stream === halved.stream ? message.subarray(7) : message);
      await once(stream, "close");
      expect(answered()).not.toContain("error");
    }
    expect(halved.answered().match(/chunkId/g)).toHaveLength(5);
  });

  test("who hangs up without a word is hung up on", async () => {
    const patient = { headersTimeoutMs: 60_000, requestTimeoutMs: 60_000, sessionIdleMs: 60_000 };
    const { port } = await start({ http: patient });
    const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "latin1");
    for (const said of [preface, preface.subarray(0, 2), Buffer.alloc(0)]) {
      const { socket, closed } = raw(port);
      await once(socket, "connect");
      if (said.length > 0) socket.write(said);
      if (said === preface) await once(socket, "data");
      socket.end();
      await closed;
    }
  });

  test("requests that do not wait for answers are taken one after the other", async () => {
    let [atOnce, most] = [0, 0];
    const handlers = {
      "SendService.Send": async () => {
        most = Math.max(most, ++atOnce);
        await new Promise((resolve) => setImmediate(resolve));
        atOnce--;
        return {};
      },
    };
    const { port } = await start({ handlers });
    const head = `POST ${SEND} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer key:*\r\n`;
    const sent = (more: string) => `${head}${more}Content-Length: ${valid.length}\r\n\r\n${valid}`;
    const { socket, closed } = raw(port);
    socket.write(sent("").repeat(20) + sent("Connection: close\r\n"));
    expect((await closed).match(/HTTP\/1.1 200 /g)).toHaveLength(21);
    expect(most).toBe(1);
  });

  test.each(["key:*", "none"])("what comes after a refusal is let go by (%s)", async (credential) => {
    const handlers = {
      "UserService.ImportUsers": async function* (requests: AsyncIterable<unknown>) {
        for await (const _ of requests) yield {};
      },
    };
    const { url } = await start({ http: { requestTimeoutMs: 60_000 }, handlers });
    const stream = session(url).request({
      ":method": "POST",
      ":path": "/posthorn.v1.UserService/ImportUsers",
      "content-type": "application/grpc",
      authorization: `Bearer ${credential}`,
    });
    stream.resume();
    stream.write(Buffer.alloc(5));
    // More than fits into HTTP/2's window, and no window opens where nobody reads.
    for (let n = 0; n < 4; n++)
      stream.write(Buffer.concat([Buffer.from([0, 0, 3, 0x0d, 0x40]), Buffer.alloc(200_000)]));
    stream.end();
    await once(stream, "close");
  });

  test("an answer that nobody reads is cut off", async () => {
    const ended = Promise.withResolvers<void>();
    const { url } = await start({
      http: { requestTimeoutMs: 300 },
      handlers: {
        "StreamService.Subscribe": async function* (_, call: Call) {
          call.signal.addEventListener("abort", () => ended.resolve());
          const event = { case: "announcement", value: { category: "x".repeat(100_000) } };
          // Enough to fill every window and buffer many times over.
          for (let i = 0; i < 1_000 && !call.signal.aborted; i++) yield { event };
          await ended.promise;
        },
      },
    });
    const h2 = session(url);
    const stream = h2.request({
      ":method": "POST",
      ":path": SUBSCRIBE,
      ...json,
      "content-type": "application/connect+json",
    });
    stream.on("error", () => undefined);
    stream.end(envelope(Buffer.from('{"userId":"u1"}')));
    // Not resumed: the flow-control window fills and stays full.
    await ended.promise;
  });

  test("answers of every kind that nobody takes are cut off", async () => {
    const { url } = await start({ http: { requestTimeoutMs: 300 } });
    const h2 = connectH2(url, { settings: { initialWindowSize: 0 } });
    disposing.defer(() => h2.destroy());
    await once(h2, "remoteSettings");
    const asked = ["/metrics", "/healthz", "/readyz", "/nothing", "/posthorn.v1.SendService/Nope"].map((path) => {
      const stream = h2.request({ ":path": path, "content-type": "application/json" });
      stream.on("error", () => undefined);
      return once(stream, "close");
    });
    await Promise.all(asked);
  });

  test("who asks for metrics over HTTP/1.1 and reads none is hung up on", async () => {
    const { port, registry } = await start({ http: { requestTimeoutMs: 500, headersTimeoutMs: 500 } });
    const help = "More of it than the buffers on the way hold.".repeat(7_000);
    registry.registerMetric(new Gauge({ name: "large", help, registers: [] }));
    const socket = connectTcp(port, "127.0.0.1").on("error", () => undefined);
    disposing.defer(() => void socket.destroy());
    socket.pause();
    socket.write("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200));
    const sockets = () => process.getActiveResourcesInfo().filter((kind) => kind === "TCPSocketWrap").length;
    await vi.waitUntil(() => sockets() === 2);
    // Its own end is all that is left: it has not heard that the other hung up.
    await vi.waitUntil(() => sockets() === 1, { timeout: 10_000 });
  });

  test("a session that takes no answer and pings ends", async () => {
    const { url } = await start({ http: { requestTimeoutMs: 300, sessionIdleMs: 1_000 } });
    const h2 = connectH2(url, { settings: { initialWindowSize: 0 } });
    h2.on("error", () => undefined);
    disposing.defer(() => h2.destroy());
    await once(h2, "remoteSettings");
    h2.request({ ":path": "/metrics" }).on("error", () => undefined);
    const pings = setInterval(() => h2.destroyed || h2.ping(() => undefined), 50);
    await once(h2, "close");
    clearInterval(pings);
  });

  test("floods of resets, pings and settings leave the port alive", async () => {
    const { url } = await start({ handlers: { "SendService.Send": () => new Promise(() => undefined) } });
    const h2 = session(url);
    await once(h2, "connect");
    for (let i = 0; i < 2_000 && !h2.destroyed; i++) {
      const stream = h2.request({ ":method": "POST", ":path": SEND, ...json });
      stream.on("error", () => undefined);
      stream.close(8);
      if (i % 10 === 0 && !h2.destroyed && !h2.closed) {
        h2.settings({ initialWindowSize: 65_535 + i });
      }
    }
    await stillAlive(url);
  });
});

describe("streams", () => {
  test("the head comes before the first message", async () => {
    const go = Promise.withResolvers<void>();
    const { url } = await start({
      handlers: {
        "StreamService.Subscribe": async function* () {
          await go.promise;
          yield {};
        },
      },
    });
    const body = Buffer.concat([Buffer.from([0, 0, 0, 0, 15]), Buffer.from('{"userId":"u1"}')]);
    const answer = await fetch(url + SUBSCRIBE, {
      method: "POST",
      headers: { ...json, "content-type": "application/connect+json", origin: "https://app.example" },
      body: Uint8Array.from(body),
    });
    expect(answer.status).toBe(200);
    expect(answer.headers.get("content-type")).toBe("application/connect+json");
    expect(answer.headers.get("access-control-allow-origin")).toBe("https://app.example");
    go.resolve();
    expect(await answer.text()).toContain("{}");
  });

  test("both ways needs HTTP/2", async () => {
    const { url } = await start();
    const answer = await fetch(`${url}/posthorn.v1.SendService/SendStream`, {
      method: "POST",
      headers: { ...json, "content-type": "application/connect+json" },
      body: "",
    });
    expect(answer.status).toBe(505);
  });
});

test("calls without side effects can be made by GET", async () => {
  const { url } = await start();
  const answer = await fetch(`${url}${WHO_AM_I}?connect=v1&encoding=json&message=%7B%7D`, { headers: json });
  expect([answer.status, await answer.json()]).toEqual([200, {}]);
});

test("every call leaves the count of active ones where it was", async () => {
  const { url, registry } = await start();
  await fetch(url + SEND, { method: "POST", headers: json, body: "{" });
  await fetch(url + SEND, { method: "PUT", headers: json, body: "{" });
  await fetch(url + SEND, { method: "POST", body: "{" });
  await vi.waitFor(async () => expect(await registry.metrics()).toMatch(/rpc_active\{transport="connect"\} 0/));
});

describe.skipIf(certificates === undefined)("TLS", () => {
  test("serves HTTP/1.1 and HTTP/2 by ALPN", async () => {
    const tls = certificates!;
    const { port } = await start({ http: { tls: { certFile: tls.server.cert, keyFile: tls.server.key } } });
    const baseUrl = `https://localhost:${port}`;
    for (const httpVersion of ["1.1", "2"] as const) {
      const nodeOptions = { ca: tls.ca.pem };
      const caller = transportCaller(httpVersion, createConnectTransport({ baseUrl, httpVersion, nodeOptions }));
      const answer = await caller.call(AdminService.method.whoAmI, {}, { authorization: "Bearer operator" });
      expect(answer.problem).toBeUndefined();
    }
    const plain = connectTls({ port, host: "localhost", ca: tls.ca.pem, ALPNProtocols: ["h2"] });
    await once(plain, "secureConnect");
    expect(plain.alpnProtocol).toBe("h2");
    plain.destroy();
  });
});
