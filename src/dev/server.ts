import { mkdirSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type KeptServer, keep, logTail } from "./keeper.ts";
import { endLeftovers, type Mark } from "./leftovers.ts";
import { claimPort } from "./ports.ts";

/** A server that answered. */
export type RunningServer = AsyncDisposable & { url: string; version: string };

/** What every server is started with. */
export type ServerOptions = {
  /** The server's own directory, absolute and without symbolic links; created when missing. */
  dir: string;
  /** Removes `dir` when the server has stopped, even when this process was killed. */
  erase: boolean;
  log: (line: string) => void;
  /** Gives up starting. It has no effect on a server that has started: dispose that. */
  signal: AbortSignal;
};

/** One kind of server: how to recognise, run and greet it. */
export type ServerPlan = {
  name: string;
  mark: Mark;
  stopSignal: "INT" | "TERM";
  /** Writes configuration and returns the command line for this port. */
  command: (port: number) => Promise<readonly string[]>;
  /** Talks to the server; throws while it is not ready. */
  greet: (port: number) => Promise<{ url: string; version: string }>;
};

const READY_WITHIN_MS = 60_000;
const START_TRIES = 4;

/**
 * Starts one server on a free port of 127.0.0.1 and returns once it has answered. It stops when disposed or when this
 * process ends. A server that stops by itself is reported through `log` with the end of its own log.
 */
export async function runServer(plan: ServerPlan, options: ServerOptions): Promise<RunningServer> {
  const { dir, log, signal } = options;
  mkdirSync(dir, { recursive: true, mode: 0o711 });
  const logFile = join(dir, "log");
  const portFile = join(dir, "port");
  await endLeftovers(plan.mark, `SIG${plan.stopSignal}`, log);
  for (let tries = 1; ; tries++) {
    const lastPort = tries === 1 ? Number(await readFile(portFile, "utf8").catch(() => Number.NaN)) : undefined;
    using claim = await claimPort(lastPort);
    const { port } = claim;
    const argv = await plan.command(port);
    signal.throwIfAborted();
    const kept = keep({ argv, stopSignal: plan.stopSignal, logFile, erase: options.erase ? dir : undefined });
    try {
      const greeting = await untilReady(() => plan.greet(port), kept, signal);
      await writeFile(portFile, String(port));
      return watched(plan.name, kept, greeting, logFile, log);
    } catch (cause) {
      const tail = await logTail(logFile);
      await kept[Symbol.asyncDispose]();
      signal.throwIfAborted();
      // Somebody took the port between our look and the server's bind, or a killed Postgres is still letting go of memory.
      if (tries < START_TRIES && /(already|still) in use/i.test(tail)) {
        await delay(tries * 250);
        continue;
      }
      throw new Error(`${plan.name} did not start (${message(cause)}); its log, ${logFile}, ends:\n${tail}`, { cause });
    }
  }
}

async function untilReady<T>(greet: () => Promise<T>, kept: KeptServer, signal: AbortSignal): Promise<T> {
  let gone = false;
  void kept.exited.then(() => {
    gone = true;
  });
  const deadline = AbortSignal.timeout(READY_WITHIN_MS);
  for (let pause = 10; ; pause = Math.min(pause * 1.5, 200)) {
    try {
      return await greet();
    } catch (error) {
      signal.throwIfAborted();
      if (gone) throw new Error("it stopped at once", { cause: error });
      if (deadline.aborted)
        throw new Error(`no answer within ${READY_WITHIN_MS / 1000} s: ${message(error)}`, { cause: error });
      await Promise.race([delay(pause), kept.exited]);
    }
  }
}

function watched(
  name: string,
  kept: KeptServer,
  greeting: { url: string; version: string },
  logFile: string,
  log: (line: string) => void,
): RunningServer {
  let stopping = false;
  void kept.exited.then(async () => {
    if (!stopping) log(`${name} stopped by itself; its log, ${logFile}, ends:\n${await logTail(logFile)}`);
  });
  return {
    ...greeting,
    async [Symbol.asyncDispose]() {
      stopping = true;
      await kept[Symbol.asyncDispose]();
    },
  };
}

function message(error: unknown): string {
  return error instanceof Error ? error.message || error.name : String(error);
}
