import { randomBytes } from "node:crypto";
import type { Child } from "../child.ts";
import { type Lab, loadOn, startServer, yardstick } from "../lab.ts";
import type { Job } from "../load.ts";
import { startSocketStack } from "../peers/socket-stack.ts";
import { type Figures, ratiosOf, type Scenario, type Skipped } from "../scenario.ts";

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
  goals: [{ figure: "rate", better: "more", bar: 12_000, aim: 20_000 }],
  async run(lab) {
    const job = loadOf(lab);
    const { figures, faults } = await posthorn(lab, job);
    const peers = lab.wishes.peers ? await peersOf(lab, job) : {};
    return { figures, peers, ratios: ratiosOf("rate", figures, peers), faults };
  },
};

type Load = Omit<Job, "address" | "apiKey" | "protocol">;

function loadOf({ wishes, client }: Lab): Load {
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

async function posthorn(lab: Lab, load: Load): Promise<{ figures: Figures; faults: string[] }> {
  await using server = await startServer(lab);
  const { child, address, apiKey } = server;
  const job: Job = { ...load, protocol: "grpc", address, apiKey };
  return await measured(lab, job, { name: "server", child, profile: lab.wishes.profile });
}

async function measured(
  lab: Lab,
  job: Job,
  target: { name: string; child: Child; profile?: boolean },
): Promise<{ figures: Figures; faults: string[] }> {
  const { result, cores, rssMb } = await loadOn(lab, job, target);
  const count = (name: string) => Number(result[name]);
  const { rate, p50Ms, p90Ms, p99Ms, maxMs, firstFailure } = result;
  const wrong = ["lost", "gaps", "doubles", "refused", "failed"].filter((name) => count(name) > 0);
  const why = [firstFailure, result.firstCut].filter((text) => typeof text === "string" && text !== "");
  return {
    figures: {
      rate,
      p50Ms,
      p90Ms,
      p99Ms,
      maxMs,
      ...(rssMb === undefined ? {} : { rssMb }),
      sent: count("sent"),
      arrived: count("arrived"),
      cuts: count("cuts"),
      openMs: count("openMs"),
      drainMs: count("drainMs"),
      cores,
      perSecond: result.perSecond,
    },
    faults: wrong.map((name) => [`${name}: ${count(name)} of ${count("sent")}`, ...why].join("; ")),
  };
}

async function peersOf(lab: Lab, load: Load): Promise<Record<string, Figures | Skipped>> {
  const { services, wishes } = lab;
  const common = { warmupMs: 1_000, measureMs: Math.round(wishes.seconds * 500) };
  const rows = { url: services.databaseUrl, callers: 4, rowsPerCommit: BATCH };
  return {
    "socket-stack": await socketStack(lab, load),
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

/** Socket.IO, its Redis adapter, BullMQ and a row for each: the same load, as it has neither decisions nor order to keep. */
async function socketStack(lab: Lab, load: Load): Promise<Figures | Skipped> {
  const { client, services, say, signal, wishes } = lab;
  if (!client.protocols.includes("socket.io")) return { skipped: "needs the load client in Go" };
  say("measuring socket-stack");
  let stack: Awaited<ReturnType<typeof startSocketStack>>;
  try {
    const { databaseUrl, redisUrl } = services;
    stack = await startSocketStack(
      { databaseUrl, redisUrl, prefix: `bench${randomBytes(4).toString("hex")}` },
      say,
      signal,
    );
  } catch (error) {
    signal.throwIfAborted();
    return { skipped: error instanceof Error ? error.message : String(error) };
  }
  await using child = stack.child;
  const job: Job = {
    ...load,
    protocol: "socket.io",
    address: stack.address,
    apiKey: "",
    measureMs: Math.round(wishes.seconds * 500),
  };
  const { figures, faults } = await measured(lab, job, { name: "socket-stack", child });
  return { ...figures, ...(faults.length > 0 ? { faults } : {}) };
}
