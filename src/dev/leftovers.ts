import { execFile } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";

type Process = { pid: number; name: string; args: string };

/** How to recognise a server of ours: the program's name, and a path in its arguments that nobody else's has. */
export type Mark = { program: string; path: string };

/**
 * Ends servers that an earlier owner of this data directory left running. The caller holds the directory's lock, so
 * whatever still runs on it has no owner; anything that does not name exactly this path is somebody else's and stays.
 */
export async function endLeftovers(mark: Mark, stopSignal: "SIGINT" | "SIGTERM", log: (line: string) => void) {
  const first = await serversNaming(mark);
  if (first.length === 0) return;
  log(`stopping ${mark.program} (pid ${first.join(", ")}), left behind by a run that was killed`);
  for (const signal of [stopSignal, "SIGKILL"] as const) {
    for (const pid of await serversNaming(mark)) send(pid, signal);
    for (let waited = 0; waited < 10_000; waited += 50) {
      if ((await serversNaming(mark)).length === 0) return;
      await delay(50);
    }
  }
  throw new Error(`${mark.program} (pid ${first.join(", ")}) still runs on ${mark.path} and cannot be stopped`);
}

/** The pids of running servers that name this path in their arguments. */
export async function serversNaming(mark: Mark): Promise<number[]> {
  const processes = process.platform === "linux" ? await processesFromProc() : await processesFromPs();
  return processes
    .filter((each) => each.name === mark.program && ` ${each.args} `.includes(` ${mark.path} `))
    .map((each) => each.pid);
}

function send(pid: number, signal: NodeJS.Signals) {
  try {
    process.kill(pid, signal);
  } catch {
    // It went by itself.
  }
}

/** /proc rather than ps, which a slim container does not have. */
async function processesFromProc(): Promise<Process[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid): Promise<Process | undefined> => {
      try {
        const [name, args] = await Promise.all([
          readFile(`/proc/${pid}/comm`, "utf8"),
          readFile(`/proc/${pid}/cmdline`, "utf8"),
        ]);
        return { pid: Number(pid), name: name.trim(), args: args.replaceAll("\0", " ").trim() };
      } catch {
        return undefined; // It ended while we looked.
      }
    }),
  );
  return found.filter((each) => each !== undefined);
}

async function processesFromPs(): Promise<Process[]> {
  const { stdout } = await promisify(execFile)("ps", ["-axww", "-o", "pid=,ucomm=,args="], { maxBuffer: 1 << 26 });
  return stdout.split("\n").flatMap((line) => {
    const match = /^\s*(\d+)\s+(\S+)\s+(.*)$/.exec(line);
    return match ? [{ pid: Number(match[1]), name: match[2] ?? "", args: match[3] ?? "" }] : [];
  });
}
