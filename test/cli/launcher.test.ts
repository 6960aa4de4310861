import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { expect, onTestFinished, test as plainTest } from "vitest";

const root = join(import.meta.dirname, "../..");
const launcher = join(root, "src/cli/posthorn.js");

/** A Node of this machine that is too old to run the CLI by itself. */
const olderNode = (process.env.PATH ?? "")
  .split(delimiter)
  .filter((dir) => dir !== "" && !dir.includes("node_modules"))
  .map((dir) => join(dir, "node"))
  .find((file) => existsSync(file) && Number(/^v(\d+)/.exec(nodeVersion(file))?.[1] ?? 99) < 24);

const test = olderNode === undefined ? plainTest.skip : plainTest;
const node = olderNode ?? "";

test("an older Node hands over to the pinned one, with arguments, output and exit code", () => {
  const help = spawnSync(node, [launcher, "send", "--help"], { encoding: "utf8" });
  expect({ status: help.status, stderr: help.stderr }).toEqual({ status: 0, stderr: "" });
  expect(help.stdout).toContain("posthorn send");
  expect(spawnSync(node, [launcher, "no-such-command"]).status).toBe(2);
});

test("the launcher can be started as a program, as npx does", () => {
  const { status, stdout } = spawnSync(launcher, ["--version"], { encoding: "utf8" });
  expect({ status, stdout: stdout.trim() }).toEqual({ status: 0, stdout: expect.stringMatching(/^\d+\.\d+\.\d+$/) });
});

test.each(["SIGTERM", "SIGKILL"] as const)(
  "when the launcher gets %s, what it started ends as well",
  async (signal) => {
    // Reads standard input until it ends, which it does not.
    const child = spawn(node, [launcher, "send", "--from", "-", "--api-key", "k"], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    onTestFinished(() => void child.kill("SIGKILL"));
    const started = await until(() => childrenOf(child)[0]);
    child.kill(signal);
    // Whoever holds its standard output open is still there.
    if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
    await until(() => (isAlive(started) ? undefined : true));
  },
);

function nodeVersion(file: string): string {
  return spawnSync(file, ["--version"], { encoding: "utf8" }).stdout ?? "";
}

function childrenOf({ pid }: ChildProcess): number[] {
  const { stdout } = spawnSync("ps", ["-o", "pid=", "--ppid", String(pid)], { encoding: "utf8" });
  return stdout.split("\n").flatMap((line) => (line.trim() === "" ? [] : [Number(line)]));
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function until<T>(look: () => T | undefined): Promise<T> {
  for (let tries = 0; tries < 500; tries++) {
    const found = look();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error("it did not happen within 10 s");
}
