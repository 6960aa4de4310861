import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";

/** One line that a child writes: what happened, and whatever belongs to it. */
export type Message = { event: string } & Record<string, unknown>;

/**
 * A process that takes lines of JSON and answers with lines of JSON: servers, load clients and yardsticks alike. It ends
 * when its standard input does, so even a kill -9 of this process ends it.
 */
export type Child = AsyncDisposable & {
  readonly pid: number;
  send(message: object): void;
  /**
   * Resolves with the first message of this event that has not been taken yet; others before it go to `seen`.
   *
   * @throws when the child ends or says `failed` first, with what it wrote last.
   */
  next(event: string, seen?: (message: Message) => void): Promise<Message>;
};

export type ChildOptions = {
  /** For messages to people. */
  name: string;
  command: string;
  args: readonly string[];
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  /** Lines of its standard error. */
  say: (line: string) => void;
  signal: AbortSignal;
};

const LAST_WORDS = 8;
const MAY_TAKE_TO_END_MS = 5_000;

const RESOLVE_DRIZZLE = join(import.meta.dirname, "../../src/store/resolve-drizzle.ts");

/** Node as it runs this process: the pinned one. */
export function nodeChild(script: string, options: Omit<ChildOptions, "command" | "args">): Child {
  return startChild({ ...options, command: process.execPath, args: ["--import", RESOLVE_DRIZZLE, script] });
}

export function startChild(options: ChildOptions): Child {
  const { name, command, args, say, signal } = options;
  signal.throwIfAborted();
  const child = spawn(command, args, { cwd: options.cwd, env: options.env, stdio: ["pipe", "pipe", "pipe"] });
  const kill = () => child.kill("SIGKILL");
  process.on("exit", kill);
  signal.addEventListener("abort", kill, { once: true });

  const lastWords: string[] = [];
  const waiting: Message[] = [];
  let wake = () => {};
  let ended: string | undefined;
  const hear = (line: string) => {
    lastWords.push(line);
    if (lastWords.length > LAST_WORDS) lastWords.shift();
    say(`${name}: ${line}`);
  };
  createInterface({ input: child.stderr }).on("line", hear);
  createInterface({ input: child.stdout }).on("line", (line) => {
    const message = parsed(line);
    if (message === undefined) return hear(line);
    waiting.push(message);
    wake();
  });
  child.stdin.on("error", () => undefined); // It has ended, which `exit` tells.
  const exited = new Promise<void>((resolve) => {
    const end = (how: string) => {
      process.off("exit", kill);
      signal.removeEventListener("abort", kill);
      ended ??= how;
      wake();
      resolve();
    };
    child.once("error", (error) => end(error.message));
    child.once("close", (code, by) => end(by === null ? `exit code ${code}` : `${by}`));
  });

  return {
    pid: child.pid ?? -1,
    send: (message) => child.stdin.write(`${JSON.stringify(message)}\n`),
    async next(event, seen) {
      for (;;) {
        for (let message = waiting.shift(); message !== undefined; message = waiting.shift()) {
          if (message.event === event) return message;
          if (message.event === "failed") throw new Error(`${name}: ${message.message}`);
          seen?.(message);
        }
        signal.throwIfAborted();
        if (ended !== undefined)
          throw new Error([`${name} ended (${ended}) before «${event}»`, ...lastWords].join("\n  "));
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
    async [Symbol.asyncDispose]() {
      child.stdin.end();
      const timer = setTimeout(kill, MAY_TAKE_TO_END_MS);
      await exited;
      clearTimeout(timer);
    },
  };
}

function parsed(line: string): Message | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null && "event" in value ? (value as Message) : undefined;
  } catch {
    return undefined;
  }
}
