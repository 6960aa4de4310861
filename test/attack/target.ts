import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import { get } from "node:https";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { expect } from "vitest";
import { AdminService } from "#gen/posthorn/v1/admin_service_pb.ts";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import type { TestServices } from "../support/services.ts";
import { until } from "../support/until.ts";

export type Started = { grpcUrl: string; httpUrl: string; tenantId: string; apiKey: string };

/** What a process holds once its garbage is collected. Bytes and counts. */
export type Held = { rss: number; memory: number; sockets: number; others: number };

export type Port = { readonly name: "grpc" | "http"; readonly port: number; readonly tls: Buffer | undefined };

/** The platform under attack: another process, with the settings of production. */
export type Target = AsyncDisposable &
  Started & {
    readonly pid: number;
    readonly grpc: Port;
    readonly http: Port;
    readonly ports: readonly Port[];
    /** A user's token, and the user. */
    readonly userId: string;
    readonly userToken: string;
    /** With the tenant's key. */
    readonly sender: Client<typeof SendService>;
    /** Calls that are open now, on both ports. */
    openCalls(): Promise<number>;
    held(): Promise<Held>;
    /** Waits until it holds what it held `before`, with room for what a process learns on its way. */
    backTo(before: Held): Promise<void>;
    alive(): boolean;
  };

export type TargetOptions = {
  env?: Record<string, string>;
  tls?: { ca: Buffer; cert: string; key: string };
};

/**
 * What an attack may leave behind: caches, compiled code and the allocator's own room. The attacks offer gigabytes; on a
 * fast machine the allocator keeps 130 MB of them now and then, of which nothing is in use.
 *
 * Heap snapshots after one, two and three rounds of stalls.test.ts differ by 2.4 and 1.2 MB. The larger part of the last
 * were sessions of the HTTP port, one for each probe, held by a timer of Node's for five minutes (see endWhenIdle). The
 * rest was compiled code and some 120 bytes of each gRPC connection, kept until it would be of age, for half an hour:
 * grpc-js gives each a timer of another length, and Node keeps the list of those that are alike until the first of them
 * would have fired, empty as it is.
 */
const ROOM_RSS = 256 * 2 ** 20;
const ROOM_MEMORY = 24 * 2 ** 20;
const ROOM_SOCKETS = 3;

const PRODUCTION = {
  POSTHORN_ENV: "production",
  POSTHORN_OPERATOR_KEYS: "f3a90c5b7d2e8146f3a90c5b7d2e8146",
  POSTHORN_ENCRYPTION_KEY: Buffer.from("0123456789abcdefghijklmnopqrstuv").toString("base64"),
  POSTHORN_GRPC_HOST: "127.0.0.1",
  POSTHORN_HTTP_HOST: "127.0.0.1",
  POSTHORN_GRPC_PORT: "0",
  POSTHORN_HTTP_PORT: "0",
  POSTHORN_LOG_LEVEL: "warn",
  POSTHORN_STREAM_DRAIN_MS: "0",
  // What an attack is about is not how many notifications the probe may send.
  POSTHORN_USER_BURST: "100000",
  POSTHORN_USER_MAX_PER_MINUTE: "100000",
  POSTHORN_USER_MAX_PER_HOUR: "100000",
  POSTHORN_USER_MAX_PER_DAY: "100000",
};

export async function startTarget(services: TestServices, options: TargetOptions = {}): Promise<Target> {
  const { tls } = options;
  const child = fork(fileURLToPath(new URL("target-process.ts", import.meta.url)), {
    execArgv: ["--expose-gc", "--import", new URL("../../src/store/resolve-drizzle.ts", import.meta.url).href],
    stdio: ["ignore", "inherit", "inherit", "ipc"],
    env: {
      PATH: process.env.PATH,
      ...PRODUCTION,
      POSTHORN_DATABASE_URL: services.databaseUrl,
      POSTHORN_NATS_URL: services.natsUrl,
      POSTHORN_REDIS_URL: services.redisUrl,
      POSTHORN_NAMESPACE: services.namespace,
      ...(tls === undefined
        ? {}
        : {
            POSTHORN_GRPC_TLS_CERT_FILE: tls.cert,
            POSTHORN_GRPC_TLS_KEY_FILE: tls.key,
            POSTHORN_HTTP_TLS_CERT_FILE: tls.cert,
            POSTHORN_HTTP_TLS_KEY_FILE: tls.key,
          }),
      ...options.env,
    },
  });
  const started = (await answerOf(child)) as Started;
  const port = (name: Port["name"], url: string): Port => ({
    name,
    port: Number(url.slice(url.lastIndexOf(":") + 1)),
    tls: tls?.ca,
  });
  const grpc = port("grpc", started.grpcUrl);
  const http = port("http", started.httpUrl);
  const transport = createGrpcTransport({
    baseUrl: `${tls === undefined ? "http" : "https"}://localhost:${grpc.port}`,
    ...(tls === undefined ? {} : { nodeOptions: { ca: tls.ca } }),
    idleConnectionTimeoutMs: 100,
    interceptors: [
      (next) => (request) => {
        request.header.set("authorization", `Bearer ${started.apiKey}`);
        return next(request);
      },
    ],
  });
  const admin = createClient(AdminService, transport);
  const userId = "victim";
  const { token: userToken } = await admin.createUserToken({ userId });

  const held = async () => {
    child.send("held");
    return (await answerOf(child)) as Held;
  };
  return {
    ...started,
    pid: child.pid ?? -1,
    grpc,
    http,
    ports: [grpc, http],
    userId,
    userToken,
    sender: createClient(SendService, transport),
    held,
    alive: () => child.exitCode === null && child.signalCode === null,
    async openCalls() {
      const metrics = await bodyOf(`${started.httpUrl}/metrics`, tls?.ca);
      return [...metrics.matchAll(/^posthorn_rpc_active\{.*\} (\d+)$/gm)].reduce((sum, [, n]) => sum + Number(n), 0);
    },
    async backTo(before) {
      const good = (now: Held) =>
        now.rss < before.rss + ROOM_RSS &&
        now.memory < before.memory + ROOM_MEMORY &&
        now.sockets <= before.sockets + ROOM_SOCKETS &&
        now.others <= before.others + ROOM_SOCKETS;
      const now = await until(held, good, 20_000);
      expect(good(now)).toBe(true);
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const exited = once(child, "exit");
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), 20_000);
      await exited;
      clearTimeout(timer);
    },
  };
}

/** `fetch` cannot be told whom to trust. */
async function bodyOf(url: string, ca: Buffer | undefined): Promise<string> {
  if (ca === undefined) return (await fetch(url)).text();
  const [response] = (await once(get(url, { ca, agent: false }), "response")) as [IncomingMessage];
  return text(response);
}

async function answerOf(child: ChildProcess): Promise<unknown> {
  const answered = new AbortController();
  const { signal } = answered;
  const gone = once(child, "exit", { signal }).then(([code, by]) => {
    throw new Error(`the platform has ended: ${code ?? by}`);
  });
  gone.catch(() => undefined);
  try {
    const [message] = await Promise.race([once(child, "message", { signal }), gone]);
    return message;
  } finally {
    answered.abort();
  }
}
