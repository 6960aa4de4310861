import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Child, nodeChild } from "../child.ts";
import { run } from "../run.ts";

const SOURCE = join(import.meta.dirname, "socket-stack");
const INSTALLED = join(import.meta.dirname, "../../../.cache/bench/peers/socket-stack");

export type SocketStackJob = { databaseUrl: string; redisUrl: string; prefix: string };

/**
 * Installs what the peer stands on, unless it is there, and starts it. Its packages never come into ours.
 *
 * @throws when the npm registry cannot be reached, or the peer does not start.
 */
export async function startSocketStack(
  job: SocketStackJob,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<{ child: Child; address: string }> {
  await install(say, signal);
  const child = nodeChild(join(INSTALLED, "server.js"), { name: "socket-stack", cwd: INSTALLED, say, signal });
  try {
    child.send(job);
    const { address } = await child.next("ready");
    return { child, address: String(address) };
  } catch (error) {
    await child[Symbol.asyncDispose]();
    throw error;
  }
}

async function install(say: (line: string) => void, signal: AbortSignal): Promise<void> {
  const wanted = createHash("sha256")
    .update(await readFile(join(SOURCE, "package.json")))
    .digest("hex");
  const stamp = join(INSTALLED, "node_modules/.installed");
  const present = existsSync(stamp) ? await readFile(stamp, "utf8") : undefined;
  if (present !== wanted) {
    say("installing the packages of socket-stack, once");
    await rm(INSTALLED, { recursive: true, force: true });
    await mkdir(INSTALLED, { recursive: true });
    await cp(join(SOURCE, "package.json"), join(INSTALLED, "package.json"));
    const args = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"];
    await run("npm", args, { cwd: INSTALLED, signal });
    await writeFile(stamp, wanted);
  }
  await cp(join(SOURCE, "server.js"), join(INSTALLED, "server.js"));
}
