// Asks both ports for their health and sends notifications, again and again, from a thread of its own: the attacker's work
// must not be taken for the server's.
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { connect } from "node:http2";
import { setTimeout as delay } from "node:timers/promises";
import { parentPort, workerData } from "node:worker_threads";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { envelope } from "./frames.ts";
import { waitedForCores } from "./schedule.ts";
import type { Probed, ProberJob } from "./siege.ts";

const { pid, grpc, http, apiKey, ca } = workerData as ProberJob;
const scheme = ca === undefined ? "http" : "https";
const trusted = ca === undefined ? {} : { ca };
const GIVE_UP_MS = 20_000;
const EVERY_MS = 100;

/** As an orchestrator asks: a new connection each time. */
async function onNewConnection(
  port: number,
  headers: Record<string, string>,
  body: Uint8Array | undefined,
  good: (seen: Record<string, unknown>, body: Buffer) => boolean,
): Promise<void> {
  const session = connect(`${scheme}://localhost:${port}`, trusted);
  const failed = new Promise<never>((_, reject) => session.once("error", reject));
  failed.catch(() => undefined);
  try {
    const stream = session.request(headers);
    const seen: Record<string, unknown> = {};
    const chunks: Buffer[] = [];
    stream.on("response", (each) => Object.assign(seen, each));
    stream.on("trailers", (each) => Object.assign(seen, each));
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.setTimeout(GIVE_UP_MS, () => stream.close(8));
    stream.end(body);
    await Promise.race([once(stream, "close"), failed]);
    if (!good(seen, Buffer.concat(chunks))) throw new Error(`was answered ${JSON.stringify(seen)}`);
  } finally {
    session.destroy();
  }
}

const manager = new Http2SessionManager(`${scheme}://localhost:${grpc}`, {}, trusted);
const sender = createClient(
  SendService,
  createGrpcTransport({ baseUrl: `${scheme}://localhost:${grpc}`, sessionManager: manager }),
);

const probes: Record<string, () => Promise<void>> = {
  "gRPC health": () =>
    onNewConnection(
      grpc,
      {
        ":method": "POST",
        ":path": "/grpc.health.v1.Health/Check",
        "content-type": "application/grpc",
        te: "trailers",
      },
      envelope(Buffer.alloc(0)),
      // HealthCheckResponse { status: SERVING }
      (seen, body) => seen["grpc-status"] === "0" && body.subarray(5).equals(Buffer.from([8, 1])),
    ),
  "HTTP health": () =>
    onNewConnection(
      http,
      { ":method": "GET", ":path": "/healthz" },
      undefined,
      (seen, body) => seen[":status"] === 200 && String(body) === "ok\n",
    ),
  // As clients do: what may be tried again is, and is sent once.
  Send: async () => {
    const request = { to: { userIds: ["probe"] }, content: { title: "still there" }, idempotencyKey: randomUUID() };
    for (let tries = 1; ; tries++) {
      try {
        const options = { headers: { authorization: `Bearer ${apiKey}` }, timeoutMs: GIVE_UP_MS };
        const { results } = await sender.send(request, options);
        if (results.length !== 1) throw new Error("was not accepted");
        return;
      } catch (error) {
        if (tries === 3 || ![Code.Unavailable, Code.DeadlineExceeded].includes(ConnectError.from(error).code))
          throw error;
      }
    }
  },
};

let window: Probed = {};
/** Rounds that were begun after the last question, of every probe; the answer is due when each has ended one. */
let asked: { rounds: Set<string> } | undefined;

parentPort?.on("message", (what: "begin" | "end") => {
  if (what === "begin") window = {};
  else asked = { rounds: new Set() };
});

for (const [name, probe] of Object.entries(probes)) void again(name, probe);

async function again(name: string, probe: () => Promise<void>): Promise<void> {
  for (;;) {
    const question = asked;
    const began = performance.now();
    const waitedBefore = waitedForCores(pid);
    const failure = await probe().then(
      () => undefined,
      (error) => `after ${Math.round(performance.now() - began)} ms: ${error}`,
    );
    // What the machine had no core for is not the server's doing.
    const tookMs = performance.now() - began - (waitedForCores(pid) - waitedBefore);
    window[name] ??= { asked: 0, slowestMs: 0, failures: [] };
    const result = window[name];
    result.asked++;
    result.slowestMs = Math.max(result.slowestMs, tookMs);
    if (failure !== undefined) result.failures.push(failure);
    question?.rounds.add(name);
    if (asked !== undefined && asked.rounds.size === Object.keys(probes).length) {
      asked = undefined;
      parentPort?.postMessage(window);
    }
    await delay(EVERY_MS);
  }
}
