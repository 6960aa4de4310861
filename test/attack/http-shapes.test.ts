import { describe, expect, test, vi } from "vitest";
import { envelope } from "./frames.ts";
import { manyCalls } from "./many-calls.ts";
import { rawConnection } from "./raw-session.ts";
import { besieged } from "./siege.ts";

/** Requests on the HTTP port whose form is the attack: paths, framing, hosts, methods, origins. */

vi.setConfig({ testTimeout: 90_000 });
const { target, during } = await besieged({ env: { POSTHORN_HTTP_CORS_ORIGINS: "https://app.example" } });
const many = manyCalls(target.apiKey);
const SEND = "/posthorn.v1.SendService/Send";
const BODY = '{"to":{"userIds":["u"]},"content":{"title":"t"}}';

/** Sends bytes; resolves with all that came back until the server hung up, or had said nothing more for a while. */
async function exchange(bytes: string): Promise<string> {
  using raw = await rawConnection(target.http, "http/1.1");
  let seen = "";
  raw.socket.setTimeout(1_500, () => raw.socket.destroy());
  raw.socket.on("data", (chunk: Buffer) => {
    seen += chunk.toString("latin1");
  });
  await raw.write(Buffer.from(bytes, "latin1"));
  await raw.closed;
  return seen;
}

const statuses = (answers: string) => [...answers.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status));
const get = (path: string, more = "") => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n${more}Connection: close\r\n\r\n`;
const post = (headers: string, body: string) =>
  `POST ${SEND} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer ${target.apiKey}\r\n${headers}\r\n${body}`;

const PATHS = [
  "/../../etc/passwd",
  "/healthz/../../../etc/passwd",
  "/%2e%2e/%2e%2e/etc/passwd",
  "/..%2f..%2fetc%2fpasswd",
  "/%252e%252e%252fetc/passwd",
  "/..\\..\\windows\\win.ini",
  "/..%5c..%5cetc/passwd",
  "/%00",
  "/healthz%00.json",
  "//etc/passwd",
  "/./healthz",
  `/x/..${SEND}`,
  `${SEND}%2f..`,
  "http://evil.example/healthz",
  "http://evil.example@localhost/healthz",
  "file:///etc/passwd",
  "*",
  "/.git/config",
  "/package.json",
  "/__proto__",
];

test("26: paths that lead elsewhere", async () => {
  await during(async () => {
    for (const path of PATHS) {
      const answer = await exchange(get(path));
      expect([path, statuses(answer)]).toEqual([path, [expect.toBeOneOf([400, 404])]]);
      expect(answer).not.toMatch(/root:|\[core\]|posthorn"|node_modules|\/work|\.ts/);
    }
    expect(statuses(await exchange("GET /health\0z HTTP/1.1\r\nHost: x\r\n\r\n"))).toEqual([400]);
  });
});

const FORMS = [
  { ":method": "GET" },
  { ":method": "POST", "content-type": "application/json" },
  { ":method": "POST", "content-type": "application/grpc", te: "trailers" },
];
/** What refuses: HTTP's way, gRPC's (UNIMPLEMENTED), or the end of a stream whose path is none at all. */
const REFUSED = ["400", "404", "415", "501", "200 12", "PROTOCOL_ERROR"];

test.each(target.ports)("26: paths that lead elsewhere, over HTTP/2 on the $name port", async (port) => {
  await during(async () => {
    for (const path of PATHS)
      for (const form of FORMS) {
        const [answer] = await many(port, 1, { ...form, ":path": path }, envelope(Buffer.alloc(0))).catch((error) => [
          { status: /PROTOCOL_ERROR/.exec(String(error))?.[0], grpcStatus: undefined, body: "" },
        ]);
        const { status, grpcStatus, body = "" } = answer ?? {};
        expect([path, [status, grpcStatus].filter(Boolean).join(" ")]).toEqual([path, expect.toBeOneOf(REFUSED)]);
        expect(body).not.toMatch(/root:|\[core\]|node_modules|\/work|\.ts/);
      }
  });
});

test("26: requests that hide another one", async () => {
  const inner = `GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n`;
  const smuggled = [
    post(`Content-Length: 5\r\nTransfer-Encoding: chunked\r\n`, `0\r\n\r\n${inner}`),
    post(`Transfer-Encoding: chunked\r\nContent-Length: ${inner.length + 5}\r\n`, `0\r\n\r\n${inner}`),
    post(`Transfer-Encoding: xchunked\r\nContent-Length: 3\r\n`, `abc${inner}`),
    post(`Transfer-Encoding : chunked\r\n`, `0\r\n\r\n${inner}`),
    post(`Transfer-Encoding: chunked, identity\r\n`, `0\r\n\r\n${inner}`),
    post(`Transfer-Encoding:\x0bchunked\r\nContent-Length: 1\r\n`, `0${inner}`),
    post(`Content-Length: 0\r\nContent-Length: 5\r\n`, inner),
    post(`Content-Length: +5\r\n`, inner),
    post(`Content-Length: 0x5\r\n`, inner),
    post(`Content-Length: 5, 5\r\n`, inner),
    post(`Transfer-Encoding: chunked\r\n`, `ffffffffffffffff1\r\n${inner}`),
    post(`Transfer-Encoding: chunked\r\n`, `5;\n\r\n${inner}`),
    post(`X: a\nTransfer-Encoding: chunked\r\n`, `0\r\n\r\n${inner}`),
    post(`X: a\r\r\nContent-Length: 0\r\n`, inner),
  ];
  await during(async () => {
    for (const bytes of smuggled) {
      const answer = await exchange(bytes);
      const head = bytes.slice(bytes.indexOf("Bearer"), bytes.indexOf("Bearer") + 160);
      // The hidden request is not answered.
      expect([head, answer.includes("posthorn_")]).toEqual([head, false]);
      expect([head, statuses(answer)]).toEqual([head, expect.not.arrayContaining([200])]);
    }
  });
});

test("26: hosts, methods and upgrades that mean something else", async () => {
  const requests = [
    `POST ${SEND} HTTP/1.1\r\nHost: x:99999\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}`,
    "GET /nothing HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET /nothing HTTP/1.1\r\n\r\n",
    "CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "TRACE /healthz HTTP/1.1\r\nHost: x\r\nX-Secret: echo\r\nConnection: close\r\n\r\n",
    `TRACE ${SEND} HTTP/1.1\r\nHost: x\r\nX-Secret: echo\r\nConnection: close\r\n\r\n`,
    "GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
    "GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n\r\n",
    "GET /nothing HTTP/1.1\r\nHost: x\r\nExpect: everything\r\nConnection: close\r\n\r\n",
    `GET /${"x".repeat(100_000)} HTTP/1.1\r\nHost: x\r\n\r\n`,
    `GET /nothing HTTP/1.1\r\nHost: x\r\nX: ${"y".repeat(100_000)}\r\n\r\n`,
    `GET /nothing HTTP/1.1\r\nHost: x\r\n${Array.from({ length: 20_000 }, (_, n) => `X-${n}: y\r\n`).join("")}\r\n`,
    "GET /nothing HTTP/9.9\r\nHost: x\r\n\r\n",
    "\r\n\r\n\r\n\0\0\0",
    "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
  ];
  await during(async () => {
    for (const bytes of requests) {
      const answer = await exchange(bytes);
      expect([bytes.slice(0, 60), statuses(answer).filter((status) => status < 400)]).toEqual([bytes.slice(0, 60), []]);
      expect(answer).not.toContain("X-Secret");
    }
  });
});

describe("26: pages of other origins", () => {
  const ask = (origin: string, more: Record<string, string> = {}) =>
    fetch(target.httpUrl + SEND, {
      method: "OPTIONS",
      headers: { origin, "access-control-request-method": "POST", ...more },
    });
  const header = (answer: Response, name: string) => answer.headers.get(`access-control-${name}`);

  test.each([
    "null",
    "https://app.example.evil.example",
    "https://evil-app.example",
    "https://appxexample",
    "http://app.example",
    "https://app.example:444",
    "https://app.example/",
    "HTTPS://APP.EXAMPLE",
    "https://app.example, https://evil.example",
    "https://user@app.example",
  ])("%s", async (origin) => {
    for (const answer of [
      await ask(origin),
      await fetch(target.httpUrl + SEND, { method: "POST", headers: { origin }, body: BODY }),
    ])
      expect(header(answer, "allow-origin")).toBeNull();
  });

  test("the right one gets no cookies along, no private network and no answer for others from a cache", async () => {
    const answer = await ask("https://app.example", { "access-control-request-private-network": "true" });
    expect(header(answer, "allow-origin")).toBe("https://app.example");
    expect(header(answer, "allow-credentials")).toBeNull();
    expect(header(answer, "allow-private-network")).toBeNull();
    expect(answer.headers.get("vary")).toMatch(/origin/i);
  });
});
