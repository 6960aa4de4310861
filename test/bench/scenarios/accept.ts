import { join } from "node:path";
import { nodeChild } from "../child.ts";
import type { Lab } from "../lab.ts";
import type { Job, Load } from "../load.ts";
import { loadOn } from "../load-on.ts";
import { type Outcome, outcomeOf } from "../outcome.ts";
import { type Server, startTwo } from "../posthorn.ts";
import { recordOf } from "../record.ts";
import { type Figures, ratiosOf, type Scenario } from "../scenario.ts";
import { yardstick } from "../yardstick.ts";

export const CALLERS = 64;

/**
 * Callers that each send one notification after the other, over a few connections; deciding and delivering go on in the
 * same process meanwhile. Afterwards every acknowledged notification must be in Postgres and decided.
 */
export const accept: Scenario = {
  name: "accept",
  about: "unary Send, 64 callers, durable",
  compared: { figure: "rate", better: "more" },
  goals: [{ figure: "rate", better: "more", bar: 5_000, aim: 8_000 }],
  async run(lab) {
    const { wishes } = lab;
    const callers = wishes.callers ?? CALLERS;
    const { figures, faults } = await measured(lab, callers);
    const peers = wishes.peers ? await yardsticks(lab, callers) : {};
    return { figures, peers, ratios: ratiosOf(["rate"], figures, peers), faults };
  },
};

function sending(callers: number, users: number, seconds: number): Load {
  return {
    kind: "accept",
    connections: 4,
    streamConnections: 0,
    callers,
    users,
    batch: 1,
    window: 0,
    warmupMs: Math.round(Math.min(3_000, seconds * 500)),
    measureMs: Math.round(seconds * 1000),
    drainMs: 0,
  };
}

/** `prepare`: what is done with the server before it is measured. */
export async function measured(
  lab: Lab,
  callers: number,
  prepare: (server: Server) => Promise<void> = async () => undefined,
): Promise<Outcome> {
  const { wishes, services, signal } = lab;
  await using server = await startTwo(lab);
  await prepare(server);
  const { child, worker, address, apiKey, tenantId } = server;
  const load = sending(callers, wishes.users ?? 10_000, wishes.seconds);
  const target = { name: "server", pid: child.pid, child, worker, profile: wishes.profile };
  const run = await loadOn(lab, { ...load, protocol: "grpc", address, apiKey }, target);
  const { figures, faults } = outcomeOf(run);
  const ended = performance.now();
  await using record = recordOf(services.databaseUrl);
  const { stored, open } = await record.settled(tenantId, { withinMs: 60_000, signal });
  const accepted = Number(run.result.accepted);
  return {
    figures: { ...figures, accepted, decidedAfterMs: performance.now() - ended },
    faults: [
      ...faults,
      ...(stored < accepted ? [`${accepted - stored} of ${accepted} acknowledged notifications are not stored`] : []),
      ...(open > 0 ? [`${open} notifications have not been decided a minute later`] : []),
    ],
  };
}

async function yardsticks(lab: Lab, callers: number): Promise<Record<string, Figures>> {
  const { services, wishes } = lab;
  const measureMs = Math.round(wishes.seconds * 500);
  const common = { warmupMs: 1_000, measureMs };
  const url = services.databaseUrl;
  return {
    "grpc-echo": await echo(lab, callers),
    // What acceptance would be with a commit for every call, and with as few as 64 waiting callers allow.
    "postgres-row": await yardstick(lab, "postgres-insert", { ...common, url, callers, rowsPerCommit: 1 }),
    "postgres-group": await yardstick(lab, "postgres-insert", {
      ...common,
      url,
      callers: 2,
      rowsPerCommit: callers / 2,
    }),
  };
}

async function echo(lab: Lab, callers: number): Promise<Figures> {
  const script = join(import.meta.dirname, "../yardsticks/grpc-echo.ts");
  await using child = nodeChild(script, { name: "grpc-echo", say: lab.say, signal: lab.signal });
  child.send({});
  const { address } = await child.next("ready");
  const load = sending(callers, 10_000, lab.wishes.seconds / 2);
  const job: Job = { ...load, protocol: "grpc", address: String(address), apiKey: "none" };
  return outcomeOf(await loadOn(lab, job, { name: "grpc-echo", pid: child.pid })).figures;
}
