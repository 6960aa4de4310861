import { shardOf } from "#src/pipeline/flow.ts";
import { type Beside, besideFlood } from "../beside.ts";
import type { Lab } from "../lab.ts";
import type { Job, Load } from "../load.ts";
import { loadOn, type Target } from "../load-on.ts";
import { type Outcome, outcomeOf } from "../outcome.ts";
import { onPeer, type RunningPeer } from "../peers/peer.ts";
import { socketStack } from "../peers/socket-stack.ts";
import { type Server, startServer, type Tenant } from "../posthorn.ts";
import { type Figures, ratiosOf, type Scenario } from "../scenario.ts";

const FLOOD = 100_000;
const PER_SECOND = 50;

/**
 * One tenant sends a little, first alone and then while another floods: how many times as long the little takes. As the
 * usual case the two are on different shards; what it is for tenants that happen to share one of the 16 is told as well.
 */
export const neighbour: Scenario = {
  name: "neighbour",
  about: "tenant B at 50/s while tenant A floods 100,000",
  compared: { figure: "timesAlone", better: "less" },
  goals: [{ figure: "timesAlone", better: "less", bar: 3, aim: 1.5 }],
  async run(lab) {
    const flood = lab.wishes.count ?? FLOOD;
    const { figures, faults } = await posthorn(lab, flood);
    const peers = lab.wishes.peers
      ? { "socket-stack": await onPeer(lab, socketStack, (running) => peer(lab, running, Math.ceil(flood / 4))) }
      : {};
    return { figures, peers, ratios: ratiosOf(["timesAlone", "p99Ms"], figures, peers), faults };
  },
};

function loadsOf({ wishes }: Lab, count: number): { paced: Load; flood: Load } {
  const users = Math.min(wishes.users ?? 1_000, 1_000);
  const common = { connections: 2, callers: 8, batch: 1_000, window: 0, drainMs: 240_000 };
  const measureMs = Math.round(wishes.seconds * 1000);
  return {
    flood: { ...common, kind: "flood", users, streamConnections: 2, count, warmupMs: 0, measureMs: 0 },
    paced: {
      ...common,
      kind: "paced",
      users: Math.min(users, 100),
      streamConnections: 1,
      prefix: "b",
      perSecond: wishes.rate ?? PER_SECOND,
      warmupMs: Math.min(2_000, measureMs / 2),
      measureMs,
    },
  };
}

async function posthorn(lab: Lab, count: number): Promise<Outcome> {
  await using server = await startServer(lab);
  const { child, address } = server;
  const load = loadsOf(lab, count);
  const of = (load: Load, { apiKey }: Tenant): Job => ({ ...load, protocol: "grpc", address, apiKey });
  const target: Target = { name: "server", pid: child.pid, child };
  const a = server;
  const b = await neighbourOf(server, (shard, other) => shard !== other);
  const c = await neighbourOf(server, (shard, other) => shard === other);
  const flood = of(load.flood, a);
  lab.say("neighbour: warming up");
  await loadOn(lab, { ...flood, count: Math.ceil(count / 10) }, target);
  lab.say("neighbour: B alone");
  const alone = outcomeOf(await loadOn(lab, of(load.paced, b), target));
  lab.say("neighbour: B beside A, on another shard");
  const profiled = { ...target, profile: lab.wishes.profile };
  const beside = await besideFlood(lab, { paced: untilItIsOver(of(load.paced, b)), flood }, profiled);
  lab.say("neighbour: C beside A, on the same shard");
  const same = await besideFlood(lab, { paced: untilItIsOver(of(load.paced, c)), flood }, target);
  const { figures, faults } = told(alone, beside);
  return {
    figures: {
      ...figures,
      sameShard: {
        p50Ms: same.paced.figures.p50Ms,
        p99Ms: same.paced.figures.p99Ms,
        timesAlone: (same.paced.figures.p99Ms ?? 0) / (alone.figures.p99Ms ?? Number.NaN),
      },
    },
    faults: [...faults, ...same.paced.faults, ...same.flood.faults],
  };
}

/** Another tenant whose shard stands to the first's as wanted; one in 16 shares it. */
async function neighbourOf(server: Server, wanted: (shard: number, other: number) => boolean): Promise<Tenant> {
  for (;;) {
    const tenant = await server.tenant();
    if (wanted(shardOf(tenant.tenantId), shardOf(server.tenantId))) return tenant;
  }
}

/** It ends with the flood. */
function untilItIsOver<L extends Load>(paced: L): L {
  return { ...paced, warmupMs: 0, measureMs: 240_000 };
}

/** The peer knows no tenants: both send through its one queue. */
async function peer(lab: Lab, { pid, address }: RunningPeer, count: number): Promise<Outcome> {
  const load = loadsOf(lab, count);
  const of = (load: Load): Job => ({ ...load, protocol: "socket.io", address, apiKey: "none" });
  const target: Target = { name: "socket-stack", pid };
  const alone = outcomeOf(await loadOn(lab, of(load.paced), target));
  const jobs = { paced: untilItIsOver(of(load.paced)), flood: of(load.flood) };
  return told(alone, await besideFlood(lab, jobs, target));
}

function told(alone: Outcome, { paced, flood }: Beside): Outcome {
  const { p50Ms, p99Ms }: Figures = alone.figures;
  const { rate: _, ...figures } = paced.figures;
  return {
    figures: {
      ...figures,
      alone: { p50Ms, p99Ms },
      timesAlone: (figures.p99Ms ?? 0) / (p99Ms ?? Number.NaN),
      floodPerSecond: flood.figures.rate,
    },
    faults: [...alone.faults, ...paced.faults, ...flood.faults.map((fault) => `the flood: ${fault}`)],
  };
}
