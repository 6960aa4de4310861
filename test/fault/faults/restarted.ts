import { Redis } from "ioredis";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import type { TestServices } from "../../support/fresh-services.ts";
import { until } from "../../support/until.ts";
import { connectTo } from "../lab/connection.ts";
import { nodeHere } from "../lab/here.ts";
import type { FaultTest, Lab } from "../lab/lab.ts";
import { PromisesBroken } from "../lab/ledger.ts";
import { type MonitoredNats, startMonitoredNats } from "../lab/monitored-nats.ts";
import { openReaders } from "../lab/readers.ts";

/**
 * The same process starts a whole platform, uses it and stops it, again and again: nothing of it may stay, here or on the
 * servers.
 */
export const restarted: FaultTest = {
  name: "restarted",
  about: "started, used and stopped 200 times in one process: no handle, listener or connection is left",
  alone: true,
  async run(lab, { seed, scale }) {
    const times = Math.max(10, Math.round(200 * scale));
    const nats = lab.use(await startMonitoredNats(lab.say));
    const own: Own = { lab, nats, services: { ...lab.services, natsUrl: nats.url } };
    // What the first one leaves is there for good: modules, and what they hold. So are the lab's own connections.
    await lifeOfOne(own, seed);
    await Promise.all(Array.from({ length: lab.sql.options.max }, () => lab.sql`select pg_sleep(0.05)`));
    const before = await held(own);
    const stops: number[] = [];
    for (let n = 0; n < times; n++) stops.push(await lifeOfOne(own, seed + n));
    const grown = (now: Held) =>
      Object.entries(now).filter(([kind, count]) => count > (before[kind] ?? 0) + (kind === "Timeout" ? 2 : 0));
    const left = await until(
      () => held(own),
      (now) => grown(now).length === 0,
    ).then(
      () => [],
      async () => grown(await held(own)),
    );
    if (left.length > 0)
      throw new PromisesBroken(left.map(([kind, count]) => `${count} ${kind} are left, ${before[kind] ?? 0} before`));
    return { times, stopMs: Math.round(Math.max(...stops)) };
  },
};

/** The lab, with a NATS that can be asked who is there. */
type Own = { lab: Lab; nats: MonitoredNats; services: TestServices };

/** How nodes call themselves there. */
const CLIENT = "posthorn";

/** Starts, sends, reads and stops; returns how long the stop took. */
async function lifeOfOne({ services, nats }: Own, seed: number): Promise<number> {
  await using stack = new AsyncDisposableStack();
  const node = await nodeHere("again", services);
  let stopMs = 0;
  stack.defer(async () => {
    const began = performance.now();
    await node[Symbol.asyncDispose]();
    stopMs = performance.now() - began;
  });
  const site = { nodes: [node], ...(await node.bootstrap()) };
  const readers = stack.use(await openReaders(site, 3, seed));
  const client = stack.use(connectTo(node.address, site.apiKey));
  await client.call(SendService.method.send, { to: { userIds: ["user-0"] }, content: { title: "Again" } });
  await until(
    async () => readers.seen.get("user-0")?.length,
    (count) => count === 1,
  );
  const before = await nats.held(CLIENT);
  if (before.connections === 0 || before.subscriptions === 0)
    throw new Error(`a node that runs has ${JSON.stringify(before)} at NATS: nothing would be seen there`);
  await stack.disposeAsync();
  return stopMs;
}

type Held = Record<string, number>;

/** What keeps this process alive, who listens to it, and its connections as the servers count them. */
async function held({ services, nats, lab: { sql } }: Own): Promise<Held> {
  const counts: Held = {};
  for (const kind of process.getActiveResourcesInfo()) counts[kind] = (counts[kind] ?? 0) + 1;
  for (const event of process.eventNames()) counts[`listeners of ${String(event)}`] = process.listenerCount(event);
  const [postgres] = await sql<[{ n: number }]>`
    select count(*)::int as n from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
      and application_name = 'posthorn'`;
  const redis = new Redis(services.redisUrl);
  try {
    const clients = String(await redis.client("LIST")).split("\n");
    const ours = clients.filter((line) => line.includes(` name=${services.namespace} `));
    const atNats = await nats.held(CLIENT);
    return {
      ...counts,
      "connections to Postgres": postgres.n,
      "connections to Redis": ours.length,
      "connections to NATS": atNats.connections,
      "subscriptions at NATS": atNats.subscriptions,
    };
  } finally {
    await redis.quit();
  }
}
