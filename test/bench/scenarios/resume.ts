import type { Lab } from "../lab.ts";
import type { Job, Load } from "../load.ts";
import { loadOn, type Target } from "../load-on.ts";
import { type Outcome, outcomeOf } from "../outcome.ts";
import { nchan } from "../peers/nchan.ts";
import { onPeer, type Peer } from "../peers/peer.ts";
import { socketStack } from "../peers/socket-stack.ts";
import { startServer } from "../posthorn.ts";
import { recordOf } from "../record.ts";
import { type Figures, ratiosOf, type Scenario, type Skipped } from "../scenario.ts";

const MISSED = 10;
/** A process may have 20,000 files open on usual machines; beyond this, streams share connections. */
const MOST_CONNECTIONS = 15_000;

/**
 * Every client is cut, misses some notifications, and comes back at the same moment as all the others, on a connection of
 * its own: the time until the last of them has everything it missed, in order and once.
 */
export const resume: Scenario = {
  name: "resume",
  about: "10,000 clients cut and resumed with 10 missed each: until all are complete",
  compared: { figure: "completeMs", better: "less" },
  goals: [{ figure: "completeMs", better: "less", bar: 5_000, aim: 2_000 }],
  async run(lab) {
    const load = loadOf(lab);
    const { figures, faults } = await posthorn(lab, load);
    const peers: Record<string, Figures | Skipped> = {};
    if (lab.wishes.peers)
      for (const peer of [socketStack, nchan]) peers[peer.name] = await measuredPeer(lab, peer, load);
    return { figures, peers, ratios: ratiosOf(["completeMs", "p50Ms", "cpuUsEach"], figures, peers), faults };
  },
};

function loadOf({ wishes }: Lab): Load {
  const users = wishes.users ?? 10_000;
  return {
    kind: "resume",
    connections: 4,
    streamConnections: Math.min(users, MOST_CONNECTIONS),
    callers: 8,
    users,
    batch: 1_000,
    window: 0,
    count: wishes.count ?? MISSED,
    warmupMs: 0,
    measureMs: 0,
    drainMs: 120_000,
  };
}

async function posthorn(lab: Lab, load: Load): Promise<Outcome> {
  await using server = await startServer(lab);
  const { child, address, apiKey, tenantId } = server;
  await using record = recordOf(lab.services.databaseUrl);
  const target: Target = { name: "server", pid: child.pid, child, profile: lab.wishes.profile };
  return await resumed(lab, { ...load, protocol: "grpc", address, apiKey }, target, async () => {
    await record.settled(tenantId, { withinMs: 120_000, signal: lab.signal });
  });
}

function measuredPeer(lab: Lab, peer: Peer, load: Load): Promise<Figures | Skipped> {
  return onPeer(lab, peer, ({ pid, address, handled }) => {
    const job: Job = { ...load, protocol: peer.protocol, address, apiKey: "none" };
    return resumed(lab, job, { name: peer.name, pid }, () => handled?.(load.users * (1 + (load.count ?? 0))));
  });
}

/** Nobody comes back before everything that was missed is where it can be had. */
async function resumed(lab: Lab, job: Job, target: Target, stored: () => Promise<void> | undefined): Promise<Outcome> {
  const run = await loadOn(lab, job, target, async ({ event }, tell) => {
    if (event !== "accepted") return;
    await stored();
    tell("go");
  });
  const { figures, faults } = outcomeOf(run);
  const incomplete = job.users - Number(run.result.complete);
  return {
    figures: { ...figures, completeMs: figures.maxMs },
    faults: [...faults, ...(incomplete > 0 ? [`${incomplete} of ${job.users} clients never had all they missed`] : [])],
  };
}
