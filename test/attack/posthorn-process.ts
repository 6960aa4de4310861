import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { ServiceUrls } from "#src/dev/services.ts";

/** Posthorn as a process of its own, as it runs in production, with all that it says. */
export type PosthornProcess = AsyncDisposable & {
  readonly grpcUrl: string;
  readonly httpUrl: string;
  readonly operatorKey: string;
  /** Its lines on standard output and standard error until now. */
  said(): readonly string[];
  residentMb(): Promise<number>;
  /** Whether it is gone, and nobody asked it to go. */
  exited(): boolean;
};

const ROOT = join(import.meta.dirname, "../..");

/** `program`: what to run with node in the place of `posthorn serve`, and answers as it does. */
export async function startPosthorn(
  services: ServiceUrls & { namespace: string },
  env: Record<string, string> = {},
  program: readonly string[] = [join(ROOT, "src/cli/posthorn.js"), "serve", "--json"],
): Promise<PosthornProcess> {
  const operatorKey = randomBytes(24).toString("base64url");
  const child = spawn(process.execPath, [...program], {
    env: {
      PATH: process.env.PATH ?? "",
      POSTHORN_ENV: "staging",
      POSTHORN_DATABASE_URL: services.databaseUrl,
      POSTHORN_NATS_URL: services.natsUrl,
      POSTHORN_REDIS_URL: services.redisUrl,
      POSTHORN_NAMESPACE: services.namespace,
      POSTHORN_ENCRYPTION_KEY: randomBytes(32).toString("base64"),
      POSTHORN_OPERATOR_KEYS: operatorKey,
      POSTHORN_GRPC_HOST: "127.0.0.1",
      POSTHORN_HTTP_HOST: "127.0.0.1",
      POSTHORN_GRPC_PORT: "0",
      POSTHORN_HTTP_PORT: "0",
      POSTHORN_API_KEY_REQUESTS_PER_SECOND: "0",
      POSTHORN_API_TENANT_REQUESTS_PER_SECOND: "0",
      POSTHORN_SHUTDOWN_DRAIN_MS: "2000",
      POSTHORN_STREAM_DRAIN_MS: "200",
      ...env,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const lines: string[] = [];
  const listening = Promise.withResolvers<{ server: string; httpUrl: string }>();
  createInterface(child.stderr).on("line", (line) => lines.push(line));
  createInterface(child.stdout).on("line", (line) => {
    lines.push(line);
    if (line.includes('"httpUrl"')) listening.resolve(JSON.parse(line));
  });
  let stopping = false;
  const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  void gone.then(() => listening.reject(new Error(`Posthorn ended: ${lines.slice(-10).join("\n")}`)));
  const { server: grpcUrl, httpUrl } = await listening.promise;
  return {
    grpcUrl,
    httpUrl,
    operatorKey,
    said: () => lines,
    exited: () => !stopping && child.exitCode !== null,
    async residentMb() {
      const text = await (await fetch(`${httpUrl}/metrics`)).text();
      return Math.round(Number(/^process_resident_memory_bytes (\S+)/m.exec(text)?.[1]) / 2 ** 20);
    },
    async [Symbol.asyncDispose]() {
      stopping = true;
      child.kill("SIGTERM");
      await gone;
    },
  };
}
