import { setTimeout as delay } from "node:timers/promises";
import type { Lab } from "../lab.ts";
import type { Job, Load } from "../load.ts";
import { loadOn, type Target } from "../load-on.ts";
import { type Outcome, outcomeOf } from "../outcome.ts";
import { grpcStreams } from "../peers/grpc-streams.ts";
import { nchan } from "../peers/nchan.ts";
import { onPeer, type Peer } from "../peers/peer.ts";
import { socketStack } from "../peers/socket-stack.ts";
import { startServer } from "../posthorn.ts";
import { rssMb } from "../processes.ts";
import { type Figures, isSkipped, ratiosOf, type Scenario, type Skipped } from "../scenario.ts";

const BROADCASTS = 20;
/** As behind a proxy that gathers devices. */
const SHARED = 500;
/** A process may have 20,000 files open on usual machines; beyond this, streams share connections. */
const MOST_CONNECTIONS = 15_000;
/** Until what opening left behind is gone. */
const SETTLE_MS = 2_000;

/**
 * Memory of each open stream, and messages to all of them, one after the other. Every stream has a connection of its own,
 * as a device has; what it is when 500 share a connection, as behind a proxy, is told as well.
 */
export const streams: Scenario = {
  name: "streams",
  about: "10,000 open streams, a connection each: memory of one; a message to all",
  compared: { figure: "p99Ms", better: "less" },
  goals: [
    { figure: "streamKb", better: "less", bar: 45, aim: 30 },
    { figure: "timesSocketIo", better: "less", bar: 1.3, aim: 0.8 },
  ],
  async run(lab) {
    const users = lab.wishes.users ?? 10_000;
    const connections = Math.min(users, MOST_CONNECTIONS);
    const own = await posthorn(lab, loadOf(lab, users, connections));
    const shared = await posthorn(lab, loadOf(lab, users, Math.ceil(users / SHARED)));
    const peers = lab.wishes.peers ? await peersOf(lab, loadOf(lab, users, connections)) : {};
    const socket = peers["socket-stack"];
    const theirs = socket === undefined || isSkipped(socket) ? undefined : socket.p99Ms;
    const { p50Ms, p99Ms, streamKb } = shared.figures;
    const figures = {
      ...own.figures,
      ...(theirs ? { timesSocketIo: (own.figures.p99Ms ?? 0) / theirs } : {}),
      shared: { p50Ms, p99Ms, streamKb },
    };
    return {
      figures,
      peers,
      ratios: ratiosOf(["p99Ms", "streamKb", "cpuUsEach"], figures, peers),
      faults: [...own.faults, ...shared.faults],
    };
  },
};

function loadOf({ wishes }: Lab, users: number, streamConnections: number): Load {
  return {
    kind: "broadcast",
    connections: 1,
    streamConnections,
    callers: 1,
    users,
    batch: 1,
    window: 0,
    count: wishes.count ?? BROADCASTS,
    hold: true,
    warmupMs: 0,
    measureMs: 0,
    drainMs: 20_000,
  };
}

async function posthorn(lab: Lab, load: Load): Promise<Outcome> {
  await using server = await startServer(lab);
  const { child, address, apiKey } = server;
  const target: Target = { name: "server", pid: child.pid, child, profile: lab.wishes.profile };
  return await weighed(lab, { ...load, protocol: "grpc", address, apiKey }, target, server.settle);
}

async function peersOf(lab: Lab, load: Load): Promise<Record<string, Figures | Skipped>> {
  const found: Record<string, Figures | Skipped> = {};
  const measured: readonly Peer[] = [socketStack, nchan, grpcStreams];
  for (const peer of measured) {
    found[peer.name] = await onPeer(lab, peer, ({ pid, address, settle }) => {
      const job: Job = { ...load, protocol: peer.protocol, address, apiKey: "none" };
      return weighed(lab, job, { name: peer.name, pid }, settle);
    });
  }
  return found;
}

/** Runs the load, and looks at the memory of the process before its first stream and when all are open and quiet. */
async function weighed(lab: Lab, job: Job, target: Target, settle?: () => Promise<void>): Promise<Outcome> {
  const resting = async () => {
    await delay(SETTLE_MS, undefined, { signal: lab.signal });
    await settle?.();
    return rssMb(target.pid);
  };
  const before = await resting();
  let after: number | undefined;
  const run = await loadOn(lab, job, target, async ({ event }, tell) => {
    if (event !== "open") return;
    after = await resting();
    tell("go");
  });
  const { figures, faults } = outcomeOf(run);
  const { rate: _, ...rest } = figures;
  const each = before === undefined || after === undefined ? {} : { streamKb: ((after - before) * 1024) / job.users };
  return { figures: { ...rest, ...each }, faults };
}
