import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";

/** What a client tells, one JSON object a line. */
export type Fact = { fact: string; [what: string]: unknown };

/** Disposing ends the client, if it has not ended. */
export type Story = AsyncDisposable & {
  /** All that was told until now, in order. */
  readonly facts: readonly Fact[];
  of(fact: string): Fact[];
  /** Resolves when it has told this so many times; fails when the client ends before, or is silent about it for too long. */
  told(fact: string, times?: number): Promise<void>;
  /** Its exit code. */
  readonly ended: Promise<number | null>;
  /** What went to standard error. */
  complaints(): string;
};

/** For a client that starts slowly and waits between its connections. */
const PATIENCE_MS = 60_000;

/** Starts a client and listens. */
export function listenTo(command: readonly string[], cwd: string, env: Record<string, string>): Story {
  const [program = "", ...args] = command;
  const child: ChildProcess = spawn(program, args, {
    cwd,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const facts: Fact[] = [];
  const waiting = new Set<() => void>();
  let complaints = "";
  let over = false;
  const look = () => {
    for (const each of [...waiting]) each();
  };
  const of = (fact: string) => facts.filter((each) => each.fact === fact);
  if (child.stdout) {
    createInterface(child.stdout).on("line", (line) => {
      facts.push(JSON.parse(line) as Fact);
      look();
    });
  }
  child.stderr?.on("data", (data) => {
    complaints += data;
  });
  const ended = new Promise<number | null>((resolve) => {
    child.once("error", (error) => {
      complaints += error.message;
      resolve(null);
    });
    child.once("close", (code) => resolve(code));
  });
  void ended.then(() => {
    over = true;
    look();
  });
  return {
    facts,
    of,
    ended,
    complaints: () => complaints,
    told: (fact, times = 1) =>
      new Promise((resolve, reject) => {
        const fail = (how: string) => {
          const count = of(fact).length;
          reject(new Error(`it ${how} and told "${fact}" ${count} times, not ${times}: ${complaints}`));
        };
        const each = () => {
          const enough = of(fact).length >= times;
          if (!enough && !over) return;
          waiting.delete(each);
          clearTimeout(timer);
          if (enough) resolve();
          else fail("ended");
        };
        const timer = setTimeout(() => {
          waiting.delete(each);
          fail("was waited for");
        }, PATIENCE_MS);
        waiting.add(each);
        each();
      }),
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await ended;
    },
  };
}
