import type { Lab } from "../lab.ts";
import type { Load } from "../load.ts";
import { loadOn } from "../load-on.ts";
import { outcomeOf } from "../outcome.ts";
import { nchan } from "../peers/nchan.ts";
import { simply } from "../peers/peer.ts";
import { socketStack } from "../peers/socket-stack.ts";
import { startTwo } from "../posthorn.ts";
import { type Figures, ratiosOf, type Scenario, type Skipped } from "../scenario.ts";
import { yardstick } from "../yardstick.ts";

const PER_SECOND = 1_000;

/**
 * One Send after the other, each when it is due, to random users who all have a stream open: from when it was due until it
 * is on the stream. A system that stalls is sent to all the same, so what waits meanwhile counts with the time it waited.
 */
export const latency: Scenario = {
  name: "latency",
  about: "1,000/s to random users of 10,000 open streams: send → on stream",
  compared: { figure: "p99Ms", better: "less" },
  goals: [{ figure: "p99Ms", better: "less", bar: 50, aim: 15 }],
  async run(lab) {
    const load = loadOf(lab);
    await using server = await startTwo(lab);
    const { child, worker, address, apiKey } = server;
    const target = { name: "server", pid: child.pid, child, worker, profile: lab.wishes.profile };
    const run = await loadOn(lab, { ...load, protocol: "grpc", address, apiKey }, target);
    const { figures, faults } = outcomeOf(run);
    await server[Symbol.asyncDispose]();
    const peers = lab.wishes.peers ? await peersOf(lab, load) : {};
    return { figures, peers, ratios: ratiosOf(["p50Ms", "p99Ms", "cpuUsEach"], figures, peers), faults };
  },
};

function loadOf({ wishes }: Lab): Load {
  const users = wishes.users ?? 10_000;
  return {
    kind: "paced",
    connections: 4,
    streamConnections: Math.ceil(users / 500),
    callers: 64,
    users,
    batch: 1,
    window: 0,
    perSecond: wishes.rate ?? PER_SECOND,
    warmupMs: Math.min(5_000, wishes.seconds * 500),
    measureMs: Math.round(wishes.seconds * 1000),
    drainMs: 30_000,
  };
}

async function peersOf(lab: Lab, load: Load): Promise<Record<string, Figures | Skipped>> {
  const url = lab.services.databaseUrl;
  return {
    "socket-stack": await simply(lab, socketStack, load),
    // Neither rows nor decisions: the time that any fan-out takes.
    nchan: await simply(lab, nchan, load),
    // What a commit takes when nothing else goes on, of which ours pays two.
    "postgres-commit": await yardstick(lab, "postgres-insert", {
      url,
      callers: 1,
      rowsPerCommit: 1,
      warmupMs: 500,
      measureMs: Math.round(lab.wishes.seconds * 200),
    }),
  };
}
