import { setTimeout as delay } from "node:timers/promises";
import type { Lab } from "../lab.ts";
import type { Load } from "../load.ts";
import { loadOn } from "../load-on.ts";
import { type Outcome, outcomeOf } from "../outcome.ts";
import { loadOnPeer, onPeer, type RunningPeer } from "../peers/peer.ts";
import { socketStack } from "../peers/socket-stack.ts";
import { newNamespace, removeQueues, startServer } from "../posthorn.ts";
import { coresBetween, cpuTime, microsecondsEach, peakRssMb, rssMb } from "../processes.ts";
import { type Recorded, recordOf } from "../record.ts";
import { ratiosOf, type Scenario } from "../scenario.ts";

const QUEUED = 1_000_000;
/** As Node sizes its heap in a container of some 300 MB: with more it takes more, and lets garbage lie for longer. */
const NODE_OPTIONS = "--max-old-space-size=160 --max-semi-space-size=16";
const LOOK_EVERY_MS = 250;
const DRAINED_WITHIN_MS = 900_000;

/**
 * So many are accepted by a process that decides nothing, and then decided by one that does nothing else: how much memory
 * that one takes meanwhile, in a container of its size, whatever waits for it, and how fast the backlog goes. Told at each
 * tenth of the time: what is resident, what the last full garbage collection left, and how many notifications it decided in
 * one go. `POSTHORN_MEMORY_THRESHOLD_MB=64 npm run bench -- backlog` shows the same when memory is short: small
 * chunks, and Sends refused, which count as faults here because the client does not come again with them.
 */
export const backlog: Scenario = {
  name: "backlog",
  about: "1,000,000 queued: memory of the worker, and how fast they go",
  compared: { figure: "rate", better: "more" },
  goals: [{ figure: "rssMb", better: "less", bar: 256, aim: 150 }],
  async run(lab) {
    const queued = lab.wishes.count ?? QUEUED;
    const { figures, faults } = await posthorn(lab, queued);
    const theirs = Math.ceil(queued / 10);
    const peers = lab.wishes.peers
      ? { "socket-stack": await onPeer(lab, socketStack, (running) => peer(lab, running, theirs)) }
      : {};
    return { figures, peers, ratios: ratiosOf(["rate", "rssMb", "cpuUsEach"], figures, peers), faults };
  },
};

function loadOf({ wishes }: Lab, count: number): Load {
  return {
    kind: "flood",
    connections: 4,
    streamConnections: 0,
    callers: 8,
    users: wishes.users ?? 10_000,
    batch: 1_000,
    window: 0,
    count,
    warmupMs: 0,
    measureMs: 0,
    drainMs: 0,
  };
}

async function posthorn(lab: Lab, queued: number): Promise<Outcome> {
  const POSTHORN_NAMESPACE = newNamespace();
  const { tenantId, ...filled } = await fill(lab, POSTHORN_NAMESPACE, queued);
  await using record = recordOf(lab.services.databaseUrl);
  const settings = { POSTHORN_NAMESPACE, POSTHORN_ROLES: "worker", NODE_OPTIONS };
  await using worker = await startServer(lab, settings, "worker");
  const own = { httpUrl: worker.httpUrl };
  const drained = await drain(lab, worker.child.pid, "worker", queued, () => record.waiting(tenantId), own);
  await worker[Symbol.asyncDispose]();
  await removeQueues(lab.services.natsUrl, POSTHORN_NAMESPACE);
  const left: Recorded = await record.settled(tenantId, { withinMs: 0, signal: lab.signal });
  return {
    figures: { ...drained, queued, acceptedPerSecond: filled.figures.acceptedPerSecond },
    faults: [
      ...filled.faults,
      ...(left.stored < queued ? [`${queued - left.stored} of ${queued} are not stored`] : []),
      ...(left.open > 0 ? [`${left.open} of ${queued} were not decided in time`] : []),
    ],
  };
}

async function fill(lab: Lab, POSTHORN_NAMESPACE: string, queued: number): Promise<Outcome & { tenantId: string }> {
  await using server = await startServer(lab, { POSTHORN_NAMESPACE, POSTHORN_ROLES: "api" }, "api");
  const { child, address, apiKey, tenantId } = server;
  const job = { ...loadOf(lab, queued), protocol: "grpc", address, apiKey } as const;
  return { ...outcomeOf(await loadOn(lab, job, { name: "api", pid: child.pid })), tenantId };
}

async function peer(lab: Lab, running: RunningPeer, queued: number): Promise<Outcome> {
  await running.rest?.();
  const { faults, figures } = await loadOnPeer(lab, socketStack, running, loadOf(lab, queued));
  await running.work?.();
  let done = false;
  const handled = running.handled?.(queued).then(() => {
    done = true;
  });
  const drained = await drain(lab, running.pid, socketStack.name, queued, async () => !done);
  await handled;
  return { figures: { ...drained, queued, acceptedPerSecond: figures.acceptedPerSecond }, faults };
}

/** Watches a process until nothing waits: how fast it went, what it cost, and how it stood at each tenth of the time. */
async function drain(
  lab: Lab,
  pid: number,
  name: string,
  count: number,
  waiting: () => Promise<boolean>,
  own?: { httpUrl: string },
) {
  const named = new Map([[pid, name]]);
  const before = cpuTime(named);
  const began = performance.now();
  const memory = [rssMb(pid) ?? 0];
  const stood: Stood[] = [];
  while ((await waiting()) && performance.now() - began < DRAINED_WITHIN_MS) {
    memory.push(rssMb(pid) ?? 0);
    if (own !== undefined) stood.push(await standing(own.httpUrl));
    await delay(LOOK_EVERY_MS, undefined, { signal: lab.signal });
  }
  const seconds = (performance.now() - began) / 1000;
  const after = cpuTime(named);
  const cpuUs = microsecondsEach(before, after, count);
  lab.say(`${name}: ${count.toLocaleString("en")} gone after ${Math.round(seconds)} s`);
  return {
    rate: count / seconds,
    // While it drains: what starting took for a moment is no part of it.
    rssMb: Math.max(...memory),
    peakMb: peakRssMb(pid),
    rssMbOverTime: tenths(memory).map(Math.round),
    ...(own === undefined
      ? {}
      : {
          liveMbOverTime: tenths(stood.map(({ liveMb }) => Math.round(liveMb))),
          chunkSizeOverTime: tenths(stood.map(({ chunkSize }) => chunkSize)),
          shortSeconds: stood.at(-1)?.shortSeconds,
        }),
    cores: coresBetween(before, after, seconds),
    cpuUs,
    cpuUsEach: Object.values(cpuUs).reduce((sum, each) => sum + each, 0),
  };
}

function tenths(values: readonly number[]): number[] {
  return Array.from({ length: 10 }, (_, n) => values[Math.floor((n * values.length) / 10)] ?? 0);
}

type Stood = { liveMb: number; chunkSize: number; shortSeconds: number };

/** As its metrics have it; all that is queued here is of one lane. */
async function standing(httpUrl: string): Promise<Stood> {
  const text = await (await fetch(`${httpUrl}/metrics`)).text();
  const of = (series: RegExp) => [...text.matchAll(series)].reduce((sum, [, value]) => sum + Number(value), 0);
  return {
    liveMb: of(/^posthorn_memory_live_bytes (\S+)$/gm) / 2 ** 20,
    chunkSize: of(/^posthorn_route_chunk_size\{lane="normal"\} (\S+)$/gm),
    shortSeconds: of(/^posthorn_memory_pressure_seconds_total\{kind="\w+"\} (\S+)$/gm),
  };
}
