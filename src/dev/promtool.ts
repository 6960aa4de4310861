import { spawnSync } from "node:child_process";
import { cp, mkdir, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { unpackFromApt } from "./apt.ts";
import { TOOLS_DIR } from "./services.ts";

/** Kept between runs; of Debian's package, which brings the server and its web pages too, nothing else is. */
const UNPACKED = join(TOOLS_DIR, "promtool");

/** Prometheus' own reader of rules, where it is on this machine: a command to run. */
export function findPromtool(): string | undefined {
  return ["promtool", UNPACKED].find((command) => spawnSync(command, ["--version"]).status === 0);
}

/** Gets it from Debian's packages, without installing anything. Never fails: what it comes to is told by one line, if any. */
export async function fetchPromtool(log: (line: string) => void, signal: AbortSignal): Promise<void> {
  if (findPromtool() !== undefined) return;
  await mkdir(TOOLS_DIR, { recursive: true });
  const work = await mkdtemp(`${UNPACKED}-`);
  try {
    const tree = join(work, "tree");
    await unpackFromApt("prometheus", tree, signal);
    await cp(join(tree, "usr/bin/promtool"), UNPACKED);
    log("fetched promtool");
  } catch (error) {
    log(`goes without promtool: ${error instanceof Error ? error.message.trim().split("\n").at(-1) : error}`);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
