import { Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { type Beside, besideFlood } from "../beside.ts";
import type { Lab } from "../lab.ts";
import type { Load } from "../load.ts";
import { loadOn, type Target } from "../load-on.ts";
import type { Outcome } from "../outcome.ts";
import { onPeer, type RunningPeer } from "../peers/peer.ts";
import { socketStack } from "../peers/socket-stack.ts";
import { startServer } from "../posthorn.ts";
import { ratiosOf, type Scenario } from "../scenario.ts";

const WAITING = 100_000;
const PER_SECOND = 200;
/** Sent and decided before anything is measured, so that the code that decides has been compiled. */
const WARM = 5_000;

/**
 * LOW notifications are accepted while nothing decides, until so many wait. Then deciding begins, in the same process as
 * all else, and CRITICAL ones are sent, each when it is due, until the last LOW one is on its stream.
 */
export const critical: Scenario = {
  name: "critical",
  about: "CRITICAL sent while 100,000 LOW wait",
  compared: { figure: "p99Ms", better: "less" },
  goals: [{ figure: "p99Ms", better: "less", bar: 250, aim: 50 }],
  async run(lab) {
    const waiting = lab.wishes.count ?? WAITING;
    const { figures, faults } = await posthorn(lab, waiting);
    const peers = lab.wishes.peers
      ? { "socket-stack": await onPeer(lab, socketStack, (running) => peer(lab, running, Math.ceil(waiting / 4))) }
      : {};
    return { figures, peers, ratios: ratiosOf(["p50Ms", "p99Ms", "lowPerSecond"], figures, peers), faults };
  },
};

type Loads = { paced: Load; flood: Load };

function loadsOf({ wishes }: Lab, waiting: number): Loads {
  const users = wishes.users ?? 10_000;
  const common = { connections: 4, callers: 8, batch: 1_000, window: 0, warmupMs: 0, drainMs: 240_000 };
  const sent = { ...common, users, prefix: "low", streamConnections: Math.ceil(users / 500), measureMs: 0 };
  return {
    flood: { ...sent, kind: "flood", priority: Priority.LOW, count: waiting },
    paced: {
      ...common,
      kind: "paced",
      users: Math.min(users, 1_000),
      prefix: "critical",
      streamConnections: Math.ceil(Math.min(users, 1_000) / 500),
      priority: Priority.CRITICAL,
      perSecond: wishes.rate ?? PER_SECOND,
      measureMs: 240_000,
    },
  };
}

async function posthorn(lab: Lab, waiting: number): Promise<Outcome> {
  await using server = await startServer(lab, { POSTHORN_ROLES: "api,stream,scheduler" });
  const { child, address, apiKey } = server;
  const { paced, flood } = loadsOf(lab, waiting);
  const to = { protocol: "grpc", address, apiKey } as const;
  const target: Target = { name: "server", pid: child.pid, child, profile: lab.wishes.profile };
  await server.work();
  await loadOn(lab, { ...flood, ...to, prefix: "warm", count: WARM, users: 100, streamConnections: 1 }, target);
  await server.rest();
  const jobs = { paced: { ...paced, ...to }, flood: { ...flood, ...to } };
  return told(await besideFlood(lab, jobs, target, server.work), waiting);
}

async function peer(lab: Lab, { pid, address, rest, work }: RunningPeer, waiting: number): Promise<Outcome> {
  const { paced, flood } = loadsOf(lab, waiting);
  const to = { protocol: "socket.io", address, apiKey: "none" } as const;
  await rest?.();
  const jobs = { paced: { ...paced, ...to }, flood: { ...flood, ...to } };
  return told(await besideFlood(lab, jobs, { name: "socket-stack", pid }, work), waiting);
}

/** The times are those of CRITICAL; the rate at which LOW goes on beside it is told too. */
function told({ paced, flood }: Beside, waiting: number): Outcome {
  const { rate: _, ...figures } = paced.figures;
  return {
    figures: { ...figures, waiting, lowPerSecond: flood.figures.rate },
    faults: [...paced.faults, ...flood.faults.map((fault) => `LOW ${fault}`)],
  };
}
