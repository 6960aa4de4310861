import type { Lab } from "../lab.ts";
import type { Load } from "../load.ts";
import { loadOn } from "../load-on.ts";
import { type Outcome, outcomeOf } from "../outcome.ts";
import { simply } from "../peers/peer.ts";
import { socketStack } from "../peers/socket-stack.ts";
import { type Server, startTwo } from "../posthorn.ts";
import { type Figures, ratiosOf, type Scenario, type Skipped } from "../scenario.ts";
import { yardstick } from "../yardstick.ts";

const BATCH = 1_000;
/** Sent and not yet arrived: enough that no stage waits for work, and under a second's worth. */
const WINDOW = 16_000;

/**
 * Batches to random users while each of them has a stream open: accepted, decided, stored, and on the stream. The rate is
 * that of events on streams; the latency is that of a system kept full, window ÷ rate. Every notification must arrive, once
 * and in its user's order.
 */
export const endToEnd: Scenario = {
  name: "end-to-end",
  about: "SendBatch → decided → stored → on the user's stream, 10,000 users connected",
  compared: { figure: "rate", better: "more" },
  goals: [{ figure: "rate", better: "more", bar: 12_000, aim: 20_000 }],
  async run(lab) {
    const load = loadOf(lab);
    const { figures, faults } = await through(lab, load, {});
    const peers = lab.wishes.peers ? await peersOf(lab, load) : {};
    return { figures, peers, ratios: ratiosOf(["rate", "cpuUsEach"], figures, peers), faults };
  },
};

export function loadOf({ wishes, client }: Lab): Load {
  const users = wishes.users ?? 10_000;
  return {
    kind: "end-to-end",
    connections: 4,
    // One for each 500 streams: as devices are many, so that no connection's window is what is measured.
    streamConnections: Math.max(Math.ceil(users / 500), 1),
    callers: wishes.callers ?? 8,
    users,
    batch: BATCH,
    window: wishes.window ?? WINDOW,
    warmupMs: client.name === "go" ? 4_000 : 6_000,
    measureMs: Math.round(wishes.seconds * 1000),
    drainMs: 60_000,
  };
}

/** With these settings of the server's, and its tenant made ready. */
export async function through(
  lab: Lab,
  load: Load,
  settings: Record<string, string>,
  prepare: (server: Server) => Promise<void> = async () => undefined,
): Promise<Outcome> {
  await using server = await startTwo(lab, settings);
  await prepare(server);
  const { child, worker, address, apiKey } = server;
  const target = { name: "server", pid: child.pid, child, worker, profile: lab.wishes.profile };
  return outcomeOf(await loadOn(lab, { ...load, protocol: "grpc", address, apiKey }, target));
}

async function peersOf(lab: Lab, load: Load): Promise<Record<string, Figures | Skipped>> {
  const { services, wishes } = lab;
  const common = { warmupMs: 1_000, measureMs: Math.round(wishes.seconds * 500) };
  const rows = { url: services.databaseUrl, callers: 4, rowsPerCommit: BATCH };
  return {
    // The same load, as it has neither decisions nor order to keep.
    "socket-stack": await simply(lab, socketStack, load),
    // The raw limits of what a notification passes: a row for each, and a queue message for each, which we do not spend.
    "postgres-unnest": await yardstick(lab, "postgres-insert", { ...common, ...rows }),
    "jetstream-publish": await yardstick(lab, "jetstream-publish", {
      ...common,
      url: services.natsUrl,
      callers: 256,
      bytes: 128,
    }),
  };
}
