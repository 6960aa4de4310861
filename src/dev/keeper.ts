import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, renameSync } from "node:fs";
import { readFile } from "node:fs/promises";
import type { Socket } from "node:net";
import { join } from "node:path";

/** How to run one server. Everything in `argv` is absolute, because it runs with `/` as its directory. */
export type ServerCommand = {
  /** Program and arguments, perhaps behind a prefix such as `setpriv` or `env` that ends in exec. */
  argv: readonly string[];
  /** The signal on which this server shuts down at once and in order. */
  stopSignal: "INT" | "TERM";
  /** Takes stdout and stderr; what it held before is kept beside it as `<logFile>.1`. */
  logFile: string;
  /** A directory to remove once the server has gone, even when that happens after our own death. */
  erase?: string | undefined;
};

/** A running server. Disposing stops it and returns when it has gone; doing so twice is harmless. */
export type KeptServer = AsyncDisposable & {
  /** Resolves when the server is gone, for whatever reason. Never rejects. */
  exited: Promise<void>;
};

const KEEPER = join(import.meta.dirname, "keeper.sh");

/**
 * Starts a server that cannot outlive this process: the shell between us (keeper.sh) stops it as soon as our end of a
 * pipe is closed, be it by us or by the kernel. It runs in a session of its own, so a Ctrl-C meant for us does not
 * reach it before we had the chance to finish with it, and it does not keep our event loop alive.
 */
export function keep(command: ServerCommand): KeptServer {
  try {
    renameSync(command.logFile, `${command.logFile}.1`);
  } catch {
    // The first start has no earlier log.
  }
  const log = openSync(command.logFile, "a", 0o600);
  const shell = spawn("/bin/sh", [KEEPER, command.stopSignal, command.erase ?? "", ...command.argv], {
    cwd: "/",
    detached: true,
    env: quietEnvironment(process.env),
    stdio: ["pipe", log, log],
  });
  closeSync(log);
  const pipe = shell.stdin as Socket;
  pipe.on("error", () => undefined); // The keeper may be gone before we close our end.
  const exited = exitOf(shell);
  shell.unref();
  pipe.unref();
  return {
    exited,
    async [Symbol.asyncDispose]() {
      shell.ref();
      pipe.destroy();
      await exited;
    },
  };
}

/** The end of a server's log, for an error message. */
export async function logTail(logFile: string, lines = 12): Promise<string> {
  const text = await readFile(logFile, "utf8").catch(() => "");
  return text.trimEnd().split("\n").slice(-lines).join("\n");
}

function exitOf(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    child.once("exit", () => resolve());
    child.once("error", () => resolve());
  });
}

/** Without the variables of psql and friends, which Postgres would take as its own settings, and with English messages. */
export function quietEnvironment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return { ...Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith("PG"))), LC_ALL: "C" };
}
