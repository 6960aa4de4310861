import { readdirSync, readFileSync } from "node:fs";

/** Seconds of processor time, by what it went to. */
export type CpuTime = ReadonlyMap<string, number>;

const TICKS_PER_SECOND = 100; // USER_HZ, which Linux keeps at 100 towards programs.

/**
 * The processor time of this process and all below it until now: those in `named` (pid → name) under their name, others
 * under that of their program. Empty where there is no /proc.
 */
export function cpuTime(named: ReadonlyMap<number, string>): CpuTime {
  const processes = new Map<number, { parent: number; program: string; seconds: number }>();
  for (const pid of pids()) {
    const stat = read(`/proc/${pid}/stat`);
    const [, program, rest] = stat?.match(/\((.*)\) (.*)/s) ?? [];
    if (program === undefined || rest === undefined) continue; // It has ended meanwhile.
    const fields = rest.split(" ");
    const [parent, user, system] = [fields[1], fields[11], fields[12]].map(Number);
    processes.set(pid, { parent: parent ?? 0, program, seconds: ((user ?? 0) + (system ?? 0)) / TICKS_PER_SECOND });
  }
  const isOurs = (pid: number): boolean => {
    if (pid === process.pid) return true;
    const parent = processes.get(pid)?.parent ?? 0;
    return parent > 1 && isOurs(parent);
  };
  const total = new Map<string, number>();
  for (const [pid, { program, seconds }] of processes) {
    if (!isOurs(pid)) continue;
    const name = pid === process.pid ? "bench" : (named.get(pid) ?? program);
    total.set(name, (total.get(name) ?? 0) + seconds);
  }
  const machine = machineSeconds();
  if (machine === undefined) return total;
  total.set(ELSEWHERE, machine.busy - [...total.values()].reduce((sum, each) => sum + each, 0));
  return total.set(STOLEN, machine.stolen);
}

/** What other programs took, and what the host gave to other machines: a run beside much of it tells little. */
export const ELSEWHERE = "elsewhere";
export const STOLEN = "stolen";

/** The time all cores together were not idle, and would have liked not to be, since the machine started. */
function machineSeconds(): { busy: number; stolen: number } | undefined {
  const [user, nice, system, , , irq, softirq, steal] =
    read("/proc/stat")
      ?.match(/^cpu +(.*)$/m)?.[1]
      ?.split(" ")
      .map(Number) ?? [];
  if (user === undefined) return undefined;
  const ticks = [user, nice, system, irq, softirq].reduce<number>((sum, each) => sum + (each ?? 0), 0);
  return { busy: ticks / TICKS_PER_SECOND, stolen: (steal ?? 0) / TICKS_PER_SECOND };
}

/** Cores that each kept busy between two readings, the busiest first; what took next to nothing is left out. */
export function coresBetween(before: CpuTime, after: CpuTime, seconds: number): Record<string, number> {
  const cores = [...after].map(([name, time]) => [name, (time - (before.get(name) ?? 0)) / seconds] as const);
  return Object.fromEntries(
    cores
      .filter(([, value]) => value >= 0.01)
      .sort(([, a], [, b]) => b - a)
      .map(([name, value]) => [name, Math.round(value * 100) / 100]),
  );
}

/**
 * Microseconds of processor time that each part of the system took for one of `count`: what stays the same when a machine
 * is slower, or busy with something else. The load client, this process and what is not ours are left out.
 */
export function microsecondsEach(before: CpuTime, after: CpuTime, count: number): Record<string, number> {
  const each = [...after].map(([name, time]) => [name, ((time - (before.get(name) ?? 0)) * 1e6) / count] as const);
  return Object.fromEntries(
    each
      .filter(([name, value]) => !APART.has(name) && value >= 0.1)
      .sort(([, a], [, b]) => b - a)
      .map(([name, value]) => [name, Math.round(value * 10) / 10]),
  );
}

const APART: ReadonlySet<string> = new Set(["client", "bench", ELSEWHERE, STOLEN]);

/** The most memory a process has had resident, in MiB; undefined where there is no /proc. */
export const peakRssMb = (pid: number) => memory(pid, "VmHWM");

/** The memory a process has resident now, in MiB; undefined where there is no /proc. */
export const rssMb = (pid: number) => memory(pid, "VmRSS");

function memory(pid: number, field: string): number | undefined {
  const kib = read(`/proc/${pid}/status`)?.match(new RegExp(`^${field}:\\s+(\\d+) kB$`, "m"))?.[1];
  return kib === undefined ? undefined : Number(kib) / 1024;
}

function pids(): number[] {
  try {
    return readdirSync("/proc").map(Number).filter(Number.isInteger);
  } catch {
    return [];
  }
}

function read(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}
