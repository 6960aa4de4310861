import { once } from "node:events";
import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { afterEach, describe, expect, test, vi } from "vitest";
import { PREFACE, settings } from "../attack/frames.ts";
import { certificates } from "./certificates.ts";
import { type Overrides, startPorts } from "./fakes.ts";

/** Who connects has to say what it wants, on both ports, with TLS and without. */

let disposing = new AsyncDisposableStack();
afterEach(async () => {
  await disposing.disposeAsync();
  disposing = new AsyncDisposableStack();
});
const start = async (overrides: Overrides) => disposing.use(await startPorts(overrides));

const HELLO_MS = 600;
const HANDSHAKE = Buffer.from([22]);
const patient = { requestTimeoutMs: 60_000, maxConnectionIdleMs: 60_000, sessionIdleMs: 60_000 };

function watched<S extends Socket>(socket: S): { socket: S; closed: Promise<number> } {
  disposing.defer(() => void socket.destroy());
  const since = performance.now();
  socket.on("error", () => undefined);
  socket.resume();
  return { socket, closed: new Promise((resolve) => socket.once("close", () => resolve(performance.now() - since))) };
}
const tcp = (port: number) => watched(connectTcp(port, "127.0.0.1"));

/** Sends byte after byte, more of them than there is time for. */
function trickle(socket: Socket, bytes: Buffer): void {
  let at = 0;
  const timer = setInterval(() => socket.write(bytes.subarray(at, ++at)), HELLO_MS / 10);
  socket.once("close", () => clearInterval(timer));
}

const ports = ["grpc", "http"] as const;

describe.each(ports)("on the %s port", (name) => {
  test("silence, half a preface and a trickle of it are hung up on, a whole one is not", async () => {
    const started = await start({
      grpc: { ...patient, helloTimeoutMs: HELLO_MS },
      http: { ...patient, headersTimeoutMs: HELLO_MS },
    });
    const { port } = started[name];
    const whole = tcp(port);
    whole.socket.write(Buffer.concat([PREFACE, settings()]));
    const [silent, half, slow] = [tcp(port), tcp(port), tcp(port)];
    half.socket.write(PREFACE.subarray(0, 20));
    trickle(slow.socket, PREFACE);
    await Promise.all([silent.closed, half.closed, slow.closed]);
    expect(whole.socket.destroyed).toBe(false);
  });
});

test("half the head of an HTTP/1.1 request is hung up on, and who was answered is not", async () => {
  const { http } = await start({ http: { ...patient, headersTimeoutMs: HELLO_MS } });
  const [good, half] = [tcp(http.port), tcp(http.port)];
  half.socket.write("GET /healthz HTTP/1.1\r\nHost: a name so long that an HTTP/2 preface is shorter\r\n");
  good.socket.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
  await half.closed;
  expect(good.socket.destroyed).toBe(false);
});

// Its name is what the list of skipped tests says.
if (certificates === undefined) test.skip("openssl", () => undefined);

describe.each(certificates === undefined ? [] : ports)("with TLS on the %s port", (name) => {
  const { ca, server } = certificates!;
  const tls = { certFile: server.cert, keyFile: server.key, clientCaFile: undefined };
  async function secured(port: number, alpn = "h2"): Promise<ReturnType<typeof watched<TLSSocket>>> {
    const made = watched(connectTls({ port, host: "localhost", ca: ca.pem, ALPNProtocols: [alpn] }));
    await once(made.socket, "secureConnect");
    return made;
  }

  test("the handshake and the preface share the time", async () => {
    const started = await start({
      grpc: { ...patient, helloTimeoutMs: HELLO_MS, tls },
      http: { ...patient, headersTimeoutMs: HELLO_MS, tls },
    });
    const { port } = started[name];
    const whole = await secured(port);
    whole.socket.write(Buffer.concat([PREFACE, settings()]));
    const [silent, begun, slow] = [tcp(port), tcp(port), tcp(port)];
    begun.socket.write(HANDSHAKE);
    trickle(slow.socket, Buffer.concat([Buffer.from([22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]), Buffer.alloc(500)]));
    const [nothing, half] = [await secured(port), await secured(port)];
    half.socket.write(PREFACE.subarray(0, 20));
    const http1 = name === "http" ? [await secured(port, "http/1.1")] : [];
    http1[0]?.socket.write("GET / HTTP/1.1\r\nHost: a name so long that an HTTP/2 preface is shorter\r\n");
    const took = await Promise.all([silent, begun, slow, nothing, half, ...http1].map(({ closed }) => closed));
    // A busy machine is slow; the time-outs of Node are 120 s.
    expect(Math.max(...took)).toBeLessThan(10_000);
    expect(whole.socket.destroyed).toBe(false);
  });

  test("a handshake that fails is told, and nothing of what was presented", async () => {
    const started = await start({ grpc: { tls }, http: { tls } });
    const { port } = started[name];
    const plain = tcp(port);
    plain.socket.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    await plain.closed;
    await vi.waitFor(() =>
      expect(started.lines).toContainEqual(
        expect.objectContaining({ level: "debug", msg: "a TLS handshake failed", reason: "ERR_SSL_HTTP_REQUEST" }),
      ),
    );
  });
});

test.skipIf(certificates === undefined)("a certificate that is missing or not trusted is told, not shown", async () => {
  const { ca, server, client } = certificates!;
  const own = { cert: client.certPem, key: client.keyPem };
  const refusals = [
    { trusted: ca.cert, presented: {}, reason: "ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE" },
    { trusted: server.cert, presented: own, reason: "SELF_SIGNED_CERT_IN_CHAIN" },
  ];
  for (const { trusted, presented, reason } of refusals) {
    const tls = { certFile: server.cert, keyFile: server.key, clientCaFile: trusted };
    const { grpc, lines } = await start({ grpc: { tls } });
    const options = { port: grpc.port, host: "localhost", ca: ca.pem, ALPNProtocols: ["h2"], ...presented };
    await watched(connectTls(options)).closed;
    const told = await vi.waitUntil(() => lines.find(({ msg }) => msg === "a TLS handshake failed"));
    expect(told).toMatchObject({ level: "debug", reason });
    expect(JSON.stringify(told)).not.toMatch(/CN=|BEGIN|subject|issuer"/);
  }
});
