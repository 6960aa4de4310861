import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Child, Message } from "./child.ts";
import { type Lab, RESULTS, ROOT } from "./lab.ts";
import type { Job } from "./load.ts";
import { coresBetween, cpuTime, microsecondsEach, peakRssMb } from "./processes.ts";
import { type CpuProfile, profileLines } from "./profile.ts";
import type { Command } from "./server.ts";
import { turnLines } from "./turns.ts";

/** What a load client reports, with its numbers under the names that it gives them. */
export type LoadResult = Record<string, unknown> & {
  rate: number;
  p50Ms: number;
  p90Ms: number;
  p99Ms: number;
  maxMs: number;
  failed: number;
  firstFailure: string;
};

export type LoadRun = {
  result: LoadResult;
  /** Cores each program kept busy while measured. */
  cores: Record<string, number>;
  /** Microseconds of processor time each took for one of what was counted. */
  cpuUs: Record<string, number>;
  /** Most memory of the system under load, of all its processes. */
  rssMb: number | undefined;
};

/** The process that is under load; of ours, it can be asked for a profile. */
export type Target = { name: string; pid: number; child?: Child; worker?: Child | undefined; profile?: boolean };

/** Hears every event of the load client, and may tell it to go on, to end measuring, or to close its streams. */
export type Watch = (event: Message, tell: (word: "go" | "stop" | "leave") => void) => Promise<void> | undefined;

/**
 * Puts the load of `job` on a process and tells how it went. With `profile`, what the process did while it was measured,
 * and its worker where that is another, is kept as `.results/bench/<scenario>-<name>.cpuprofile` and summed up on standard
 * error.
 *
 * @throws also when `watch` does.
 */
export async function loadOn(lab: Lab, job: Job, target: Target, watch: Watch = () => undefined): Promise<LoadRun> {
  const { say, signal } = lab;
  const { name } = target;
  await using client = lab.client.start(say, signal);
  const trouble = Promise.withResolvers<never>();
  trouble.promise.catch(() => undefined); // It may come when nobody waits any more.
  const hear = (message: Message) => {
    const { event, count, streams, ms } = message as Message & { count?: number; streams?: number; ms?: number };
    if (event === "second") say(`${name}: ${count?.toLocaleString("en")}/s`);
    if (event === "open" && streams) say(`${name}: ${streams.toLocaleString("en")} streams open after ${ms ?? "?"} ms`);
    if (event === "accepted") say(`${name}: ${count?.toLocaleString("en")} accepted`);
    watch(message, (word) => client.send({ do: word }))?.catch(trouble.reject);
  };
  const next = async (event: string) => {
    const message = await Promise.race([client.next(event, hear), trouble.promise]);
    hear(message);
    return message;
  };
  client.send(job);
  await next("measuring");
  const named = new Map([
    [target.pid, name],
    ...(target.worker === undefined ? [] : [[target.worker.pid, "worker"] as const]),
    [client.pid, "client"],
  ]);
  const before = cpuTime(named);
  const began = performance.now();
  const profiled = target.profile ? { [name]: target.child, worker: target.worker } : {};
  for (const child of Object.values(profiled)) child?.send({ do: "profile" } satisfies Command);
  const { count } = await next("measured");
  const after = cpuTime(named);
  const seconds = (performance.now() - began) / 1000;
  for (const [who, child] of Object.entries(profiled)) if (child) await keepProfile(lab, who, child);
  const { event: _, ...result } = await next("result");
  return {
    result: result as LoadResult,
    cores: coresBetween(before, after, seconds),
    cpuUs: Number(count) > 0 ? microsecondsEach(before, after, Number(count)) : {},
    rssMb: together(peakRssMb(target.pid), target.worker && peakRssMb(target.worker.pid)),
  };
}

function together(one: number | undefined, other = 0): number | undefined {
  return one === undefined ? undefined : one + other;
}

async function keepProfile({ scenario, say }: Lab, who: string, child: Child): Promise<void> {
  await mkdir(RESULTS, { recursive: true });
  const file = join(RESULTS, `${scenario}-${who}.cpuprofile`);
  child.send({ do: "keep", file } satisfies Command);
  await child.next("keep");
  const profile = JSON.parse(await readFile(file, "utf8")) as CpuProfile;
  for (const line of [...profileLines(profile, ROOT), ...turnLines(profile, ROOT)]) say(line);
  say(`the whole profile of ${who}: ${file}`);
}
