import { type ChildProcess, spawn } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { claimPort } from "#src/dev/ports.ts";
import type { TestServices } from "../../support/fresh-services.ts";
import { until } from "../../support/until.ts";
import type { FailAt } from "./failpoints.ts";

/** How a process ended, and how long that took from being asked. */
export type Exit = { code: number | null; signal: NodeJS.Signals | null; ms: number };

/**
 * A node of Posthorn as a process of its own, which a test may do anything to. It listens on the same two ports however
 * often it is started again, as a node behind a fixed address does.
 */
export type FaultNode = AsyncDisposable & {
  readonly name: string;
  /** `host:port` of its gRPC port. */
  readonly address: string;
  /** `http://host:port` */
  readonly httpUrl: string;
  /** Undefined while it does not run. */
  readonly pid: number | undefined;
  readonly running: boolean;
  /**
   * Starts it and waits until it answers. With `failAt` it kills or stops itself at that point, which may be before it
   * answers: then this resolves all the same.
   */
  start(options?: { failAt?: FailAt | undefined; settings?: Settings }): Promise<void>;
  /** Resolves when the process that runs now has ended, by whatever. */
  exited(): Promise<Exit>;
  /** Resolves with the next of its failpoints that it has come to and nobody was told of. */
  reached(): Promise<string>;
  /** SIGKILL. */
  kill(): Promise<Exit>;
  /** Resolves when it has stopped itself: what it says of that comes just before. */
  stopped(): Promise<void>;
  /** SIGCONT. */
  resume(): void;
  /** SIGTERM, as a deploy does. */
  stop(): Promise<Exit>;
  /** What is alive in it, heap and buffers, with all garbage collected. Not for one that runs as shipped. */
  liveMb(): Promise<number>;
  /** What it said last, of all its lives. */
  lines(): readonly string[];
};

export type Settings = Readonly<Record<string, string>>;

export const OPERATOR_KEY = "7d1f0c39b84e4a6fa5c2e9d3b1608f47";

/** As in production, but quick to notice what is lost, and with nothing limited: the faults are the subject. */
export const SETTINGS: Settings = {
  POSTHORN_ENV: "staging",
  POSTHORN_ENCRYPTION_KEY: Buffer.from("0123456789abcdefghijklmnopqrstuv").toString("base64"),
  POSTHORN_OPERATOR_KEYS: OPERATOR_KEY,
  POSTHORN_GRPC_HOST: "127.0.0.1",
  POSTHORN_HTTP_HOST: "127.0.0.1",
  POSTHORN_LOG_LEVEL: "warn",
  POSTHORN_API_KEY_REQUESTS_PER_SECOND: "0",
  POSTHORN_API_TENANT_REQUESTS_PER_SECOND: "0",
  POSTHORN_USER_MAX_PER_MINUTE: "1000000",
  POSTHORN_USER_MAX_PER_HOUR: "1000000",
  POSTHORN_USER_MAX_PER_DAY: "1000000",
  POSTHORN_USER_BURST: "1000000",
  POSTHORN_SMS_MAX_PER_DAY: "0",
  POSTHORN_TENANT_MAX_PER_MINUTE: "0",
  POSTHORN_INBOX_MAX_UNREAD: "1000000",
  POSTHORN_RECONCILE_AFTER_MS: "1000",
  POSTHORN_RECONCILE_INTERVAL_MS: "500",
  POSTHORN_SCHEDULE_TICK_MS: "100",
  POSTHORN_STREAM_HEARTBEAT_MS: "2000",
  POSTHORN_STREAM_DRAIN_MS: "500",
  POSTHORN_SHUTDOWN_DRAIN_MS: "5000",
  POSTHORN_DATABASE_LOCK_TIMEOUT_MS: "5000",
};

const NEVER: FailAt = { by: "SIGKILL", points: [] };
const CLI = join(import.meta.dirname, "../../../src/cli/posthorn.js");
const FAILING = join(import.meta.dirname, "failing-node.ts");
const RESOLVE_DRIZZLE = join(import.meta.dirname, "../../../src/store/resolve-drizzle.ts");
const READY_WITHIN_MS = 180_000;
const TELLS_WITHIN_MS = 20_000;
const KEPT_LINES = 2000;

/** Reserves ports for a node; it does not run yet. `started` is done after each start, before that is said. */
export async function faultNode(
  name: string,
  services: TestServices,
  own: Settings = {},
  started: () => Promise<void> = async () => undefined,
): Promise<FaultNode> {
  const grpc = await claimPort();
  const http = await claimPort();
  const lines: string[] = [];
  let child: ChildProcess | undefined;
  let ended: Promise<Exit> | undefined;
  const reached: string[] = [];
  const atFailpoint = new EventEmitter();
  let askedAt = 0;

  const hear = (line: string) => {
    lines.push(line);
    if (lines.length > KEPT_LINES) lines.shift();
  };
  const exited = () => ended ?? Promise.resolve({ code: null, signal: null, ms: 0 });
  const signal = (which: NodeJS.Signals) => {
    askedAt = performance.now();
    child?.kill(which);
    return exited();
  };

  async function start({ failAt, settings = {} }: Parameters<FaultNode["start"]>[0] = {}): Promise<void> {
    if (child !== undefined) throw new Error(`${name} runs already`);
    const { PATH, HOME, TMPDIR } = process.env;
    // Without channels and failpoints it is the very thing that is shipped.
    const isShipped = failAt === undefined && !{ ...own, ...settings }.LAB_CHANNELS;
    const failing = ["--import", RESOLVE_DRIZZLE, FAILING, JSON.stringify(failAt ?? NEVER)];
    const command = isShipped ? [CLI, "serve", "--json"] : failing;
    const running = spawn(process.execPath, command, {
      env: {
        PATH,
        HOME,
        ...(TMPDIR === undefined ? {} : { TMPDIR }),
        // Nodes start often here, and most of a start is reading the program.
        NODE_COMPILE_CACHE: join(import.meta.dirname, "../../../.cache/compile"),
        ...SETTINGS,
        POSTHORN_INSTANCE_ID: name,
        POSTHORN_DATABASE_URL: services.databaseUrl,
        POSTHORN_NATS_URL: services.natsUrl,
        POSTHORN_REDIS_URL: services.redisUrl,
        POSTHORN_NAMESPACE: services.namespace,
        POSTHORN_GRPC_PORT: String(grpc.port),
        POSTHORN_HTTP_PORT: String(http.port),
        ...own,
        ...settings,
      },
      // Through the channel it hears when this process is killed, and ends as well.
      stdio: ["ignore", "pipe", "pipe", "ipc"],
    });
    child = running;
    const ready = Promise.withResolvers<void>();
    reached.length = 0;
    createInterface({ input: running.stderr as NodeJS.ReadableStream }).on("line", hear);
    createInterface({ input: running.stdout as NodeJS.ReadableStream }).on("line", (line) => {
      hear(line);
      if (line.startsWith('{"reached":')) {
        reached.push(String(JSON.parse(line).reached));
        atFailpoint.emit("reached");
      }
      if (line.startsWith('{"server":') || line.startsWith('{"reached":')) ready.resolve();
    });
    ended = once(running, "close").then(([code, by]) => {
      child = undefined;
      return { code, signal: by, ms: performance.now() - askedAt };
    });
    const late = setTimeout(() => {
      running.kill("SIGKILL");
      ready.reject(new Error(`${name} did not answer within ${READY_WITHIN_MS} ms`));
    }, READY_WITHIN_MS);
    const gone = ended.then(({ code, signal: by }) => {
      if (failAt !== undefined && by === "SIGKILL") return;
      throw new Error(
        `${name} ended (${by ?? `exit code ${code}`}) before it answered:\n${lines.slice(-8).join("\n")}`,
      );
    });
    try {
      await Promise.race([ready.promise, gone]);
      await started();
    } finally {
      clearTimeout(late);
      gone.catch(() => undefined);
    }
  }

  return {
    name,
    address: `127.0.0.1:${grpc.port}`,
    httpUrl: `http://127.0.0.1:${http.port}`,
    get pid() {
      return child?.pid;
    },
    get running() {
      return child !== undefined;
    },
    start,
    exited,
    async reached() {
      while (reached.length === 0) await once(atFailpoint, "reached");
      return reached.shift() ?? "";
    },
    kill: () => signal("SIGKILL"),
    async stopped() {
      await until(
        () => readFile(`/proc/${child?.pid}/stat`, "utf8"),
        // pid (name) state …
        (stat) => stat.slice(stat.lastIndexOf(")") + 2).startsWith("T"),
      );
    },
    resume: () => void child?.kill("SIGCONT"),
    stop: () => signal("SIGTERM"),
    async liveMb() {
      if (child === undefined) throw new Error(`${name} does not run`);
      const told = once(child, "message", { signal: AbortSignal.timeout(TELLS_WITHIN_MS) });
      child.send("live");
      const [bytes] = await told;
      return Number(bytes) / 2 ** 20;
    },
    lines: () => lines,
    async [Symbol.asyncDispose]() {
      await signal("SIGKILL");
      grpc[Symbol.dispose]();
      http[Symbol.dispose]();
    },
  };
}
