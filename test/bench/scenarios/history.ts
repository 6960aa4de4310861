import postgres from "postgres";
import type { Lab } from "../lab.ts";
import type { Load } from "../load.ts";
import { loadOn } from "../load-on.ts";
import { type Outcome, outcomeOf } from "../outcome.ts";
import { loadOnPeer, onPeer, type RunningPeer } from "../peers/peer.ts";
import { socketStack } from "../peers/socket-stack.ts";
import { startServer } from "../posthorn.ts";
import { rowsOf } from "../rows.ts";
import { type Figures, ratiosOf, type Scenario } from "../scenario.ts";

const ROWS = 5_000_000;
const USERS = 1_000;
const PER_SECOND = 200;

/**
 * Pages of 50 at every depth of random inboxes, and counts, while the tables grow a hundredfold: from the first rows to the
 * last the same users, so that inboxes grow as well. Each read is due at a time of its own.
 */
export const history: Scenario = {
  name: "history",
  about: "inbox page and counts with 5,000,000 rows",
  compared: { figure: "p99Ms", better: "less" },
  goals: [
    { figure: "p99Ms", better: "less", bar: 10, aim: 3 },
    { figure: "countsP99Ms", better: "less", bar: 10, aim: 3 },
    { figure: "growth", better: "less", bar: 2, aim: 1.3 },
  ],
  async run(lab) {
    const rows = lab.wishes.rows ?? ROWS;
    const users = Math.max(Math.min(lab.wishes.users ?? USERS, Math.floor(rows / 5_000)), 1);
    const { figures, faults } = await posthorn(lab, rows, users);
    const peers = lab.wishes.peers
      ? { "socket-stack": await onPeer(lab, socketStack, (running) => peer(lab, running, rows, users)) }
      : {};
    const compared = ["p50Ms", "p99Ms", "countsP99Ms", "cpuUsEach"];
    return { figures, peers, ratios: ratiosOf(compared, figures, peers), faults };
  },
};

function loadOf({ wishes }: Lab, users: number, perUser: number): Load {
  return {
    kind: "history",
    connections: 4,
    streamConnections: 0,
    callers: 4,
    users,
    batch: 1,
    window: 0,
    count: Math.ceil(perUser / 50),
    perSecond: wishes.rate ?? PER_SECOND,
    warmupMs: Math.min(3_000, wishes.seconds * 500),
    measureMs: Math.round(wishes.seconds * 1000),
    drainMs: 0,
  };
}

async function posthorn(lab: Lab, rows: number, users: number): Promise<Outcome> {
  await using server = await startServer(lab);
  const { child, address, apiKey, tenantId } = server;
  await using table = rowsOf(lab.services.databaseUrl, tenantId, users, Math.floor(rows / users));
  const steps: Figures[] = [];
  const faults: string[] = [];
  for (const size of [rows / 100, rows / 10, rows]) {
    const perUser = Math.floor(size / users);
    lab.say(`history: growing to ${(perUser * users).toLocaleString("en")} rows`);
    await table.growTo(perUser);
    const job = { ...loadOf(lab, users, perUser), protocol: "grpc", address, apiKey } as const;
    const target = { name: "server", pid: child.pid, child, profile: lab.wishes.profile && size === rows };
    const outcome = outcomeOf(await loadOn(lab, job, target));
    steps.push({ rows: perUser * users, ...outcome.figures });
    faults.push(...outcome.faults);
  }
  const [first, last] = [steps[0] ?? {}, steps.at(-1) ?? {}];
  return {
    figures: {
      ...last,
      growth: (last.p50Ms ?? 0) / (first.p50Ms ?? Number.NaN),
      steps: steps.map(({ rows, p50Ms, p99Ms, countsP50Ms, countsP99Ms }) => {
        return { rows, p50Ms, p99Ms, countsP50Ms, countsP99Ms };
      }),
    },
    faults,
  };
}

/** The peer with as many rows: pages by offset, unread counted. */
async function peer(lab: Lab, running: RunningPeer, rows: number, users: number): Promise<Outcome> {
  const sql = postgres(lab.services.databaseUrl, { max: 1, onnotice: () => undefined });
  const perUser = Math.floor(rows / users);
  lab.say(`socket-stack: ${(perUser * users).toLocaleString("en")} rows`);
  try {
    await sql`
      insert into bench_peer.notifications (user_id, title, body, data, read_at)
      select 'u' || u, 'Your order', 'The order has been shipped and is on its way to you.',
        '{"order":"12345","status":"shipped"}', case when seq % 10 = 0 then null else now() end
      from generate_series(1, ${perUser}::int) seq cross join generate_series(0, ${users - 1}::int) u`;
    await sql`vacuum (analyze) bench_peer.notifications`;
  } finally {
    await sql.end({ timeout: 2 });
  }
  const load = loadOf(lab, users, perUser);
  return await loadOnPeer(lab, socketStack, running, { ...load, measureMs: load.measureMs / 2 });
}
