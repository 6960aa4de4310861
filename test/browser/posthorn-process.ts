import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { claimPort } from "#src/dev/ports.ts";

/** Posthorn in a process of its own, on ports that stay the same when it is started again. */
export type PosthornProcess = AsyncDisposable & {
  readonly httpPort: number;
  /** Ends it as the kernel does when memory is short: without a word to anybody. */
  kill(): Promise<void>;
  /** Resolves when it serves. */
  start(): Promise<void>;
};

const COMMAND = join(import.meta.dirname, "../../src/cli/posthorn.js");

/** `posthorn serve` with this environment, and no other but what programs need to be found. */
export async function startPosthorn(env: Record<string, string>): Promise<PosthornProcess> {
  const http = await claimPort();
  const grpc = await claimPort();
  let running: ChildProcess | undefined;

  const start = async () => {
    const { PATH = "", HOME = "" } = process.env;
    const ports = { POSTHORN_HTTP_PORT: String(http.port), POSTHORN_GRPC_PORT: String(grpc.port) };
    // Over the channel it hears when this process is gone, and ends too.
    const child = spawn(process.execPath, [COMMAND, "serve", "--json"], {
      env: { PATH, HOME, ...env, ...ports },
      stdio: ["ignore", "pipe", "inherit", "ipc"],
    });
    running = child;
    if (child.stdout === null) throw new Error("it has no output");
    const ended = once(child, "exit").then(([code, signal]) => {
      throw new Error(`posthorn serve ended with ${code ?? signal}`);
    });
    ended.catch(() => undefined); // Later ends are wanted.
    await Promise.race([once(createInterface(child.stdout), "line"), ended]);
  };
  const kill = async () => {
    if (running === undefined || running.exitCode !== null || running.signalCode !== null) return;
    const gone = once(running, "exit");
    running.kill("SIGKILL");
    await gone;
  };
  await start();
  const end = async () => {
    await kill();
    http[Symbol.dispose]();
    grpc[Symbol.dispose]();
  };
  return { httpPort: http.port, start, kill, [Symbol.asyncDispose]: end };
}
