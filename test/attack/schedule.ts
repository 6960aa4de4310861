import { readFileSync } from "node:fs";

/** Milliseconds that the main thread of a process and this thread were ready to run while others had the cores. */
export function waitedForCores(pid: number): number {
  return (schedstat(`/proc/${pid}/task/${pid}`)[1] ?? 0) + (schedstat("/proc/thread-self")[1] ?? 0);
}

/** Milliseconds that the main thread of a process has run. */
export function onCores(pid: number): number {
  return schedstat(`/proc/${pid}/task/${pid}`)[0] ?? 0;
}

/** Time on a core and time waiting for one; nothing where the system does not tell. */
function schedstat(of: string): number[] {
  try {
    return readFileSync(`${of}/schedstat`, "utf8")
      .split(" ")
      .map((nanoseconds) => Number(nanoseconds) / 1e6);
  } catch {
    return [];
  }
}
