import { createHash, randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { nodeChild } from "../child.ts";
import { run } from "../run.ts";
import type { Peer } from "./peer.ts";

const SOURCE = join(import.meta.dirname, "socket-stack");
const INSTALLED = join(import.meta.dirname, "../../../.cache/bench/peers/socket-stack");

/**
 * Socket.IO, its Redis adapter, BullMQ and a row for each notification. What it stands on is installed unless it is there,
 * and never comes into our packages.
 */
export const socketStack: Peer = {
  name: "socket-stack",
  protocol: "socket.io",
  async start({ services, say, signal }) {
    await install(say, signal);
    const child = nodeChild(join(INSTALLED, "server.js"), { name: "socket-stack", cwd: INSTALLED, say, signal });
    const done = async (command: string, more: object = {}) => {
      child.send({ do: command, ...more });
      return await child.next(command);
    };
    try {
      const { databaseUrl, redisUrl } = services;
      child.send({ databaseUrl, redisUrl, prefix: `bench${randomBytes(4).toString("hex")}` });
      const { address } = await child.next("ready");
      return {
        pid: child.pid,
        address: String(address),
        settle: async () => void (await done("settle")),
        work: async () => void (await done("work")),
        rest: async () => void (await done("rest")),
        handled: async (count) => void (await done("handled", { count })),
        [Symbol.asyncDispose]: () => child[Symbol.asyncDispose](),
      };
    } catch (error) {
      await child[Symbol.asyncDispose]();
      throw error;
    }
  },
};

/** @throws when the npm registry cannot be reached. */
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
  for (const file of ["server.js", "store.js"]) await cp(join(SOURCE, file), join(INSTALLED, file));
}
