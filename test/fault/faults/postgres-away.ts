import { setTimeout as delay } from "node:timers/promises";
import { type ServiceError, status } from "@grpc/grpc-js";
import postgres from "postgres";
import { InboxService } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { until } from "../../support/until.ts";
import { connectTo } from "../lab/connection.ts";
import type { FaultTest } from "../lab/lab.ts";
import { lasting, type Scene, throughOutage, throughWays, type Ways } from "../lab/outage.ts";
import { userName } from "../lab/sender.ts";

/** Within this a node says that it is not ready. */
const NOTICED_WITHIN_MS = 5000;

/** A call to a silent Postgres is given up after this and five seconds; the others are refused from then on. */
const STATEMENT_TIMEOUT_MS = 3000;
const GIVEN_UP_WITHIN_MS = 20_000;
const CROWD = 300;
const AT_ONCE_MS = 2000;

/** Every way in which Postgres goes, and comes back. */
const WAYS = {
  async restarted({ ground: { servers } }) {
    await servers.postgres.end("SIGQUIT"); // "Immediate": nobody is told.
    await servers.postgres.start();
  },
  async killed({ ground: { servers }, scale, vigil }) {
    await servers.postgres.end("SIGKILL");
    await vigil.ready(false, NOTICED_WITHIN_MS);
    await delay(lasting(10, scale));
    await servers.postgres.start();
  },
  /** Postgres ends all its other processes then, and recovers from its log. */
  async "killed in a transaction"({ ground: { lab } }) {
    const [row] = await until(
      () => lab.sql<{ pid: number }[]>`
        select pid from pg_stat_activity where application_name = 'posthorn' and state <> 'idle' and xact_start is not null
        and pid <> pg_backend_pid() limit 1`,
      (rows) => rows.length > 0,
    );
    if (row !== undefined) process.kill(row.pid, "SIGKILL");
  },
  async terminated({ ground: { lab } }) {
    await lab.sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'posthorn'`;
  },
  async reset({ ground: { network }, random }) {
    for (let n = 0; n < 5; n++) {
      network.postgres.cut(n % 2 === 0 ? "rst" : "fin");
      await delay(random.int(0, 100));
    }
  },
  async refusing({ ground: { network }, random, scale, vigil }) {
    await network.postgres.refuse(random.pick(["close", "not-listening"]));
    network.postgres.cut(random.pick(["rst", "fin"]));
    await vigil.ready(false, NOTICED_WITHIN_MS);
    await delay(lasting(10, scale));
    await network.postgres.heal();
  },
  /** It is there, and lets nobody in, as one that was restored without the role or the database. */
  async "saying no"({ ground: { servers, lab }, scale, vigil }) {
    const [{ name = "" } = {}] = await lab.sql<{ name: string }[]>`select current_database() as name`;
    const elsewhere = new URL("/postgres", servers.postgres.url);
    await using stack = new AsyncDisposableStack();
    const sql = stack.adopt(postgres(elsewhere.href, { max: 1 }), (client) => client.end());
    await sql.unsafe(`alter database "${name}" with allow_connections false`);
    stack.defer(() => sql.unsafe(`alter database "${name}" with allow_connections true`).then(() => undefined));
    // Who is in may stay, and here that is the lab.
    await sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'posthorn'`;
    await vigil.ready(false, NOTICED_WITHIN_MS);
    await delay(lasting(10, scale));
  },
  /** It answers everything and takes no writes, as one that has become a standby. Connections stay. */
  async "read-only"({ ground: { lab }, scale, vigil }) {
    const turn = async (how: "set default_transaction_read_only = on" | "reset default_transaction_read_only") => {
      await lab.sql.unsafe(`alter system ${how}`);
      await lab.sql`select pg_reload_conf()`;
    };
    await turn("set default_transaction_read_only = on");
    try {
      await vigil.ready(false, NOTICED_WITHIN_MS);
      await delay(lasting(10, scale));
    } finally {
      await turn("reset default_transaction_read_only");
    }
  },
  async paused(scene) {
    const { ground, scale, vigil } = scene;
    const { postgres } = ground.servers;
    await postgres.pause();
    try {
      await vigil.ready(false, NOTICED_WITHIN_MS);
      await Promise.all([refusesAtOnce(scene), delay(lasting(30, scale))]);
    } finally {
      await postgres.resume(); // Else what is to end with the round waits for it.
    }
  },
} satisfies Ways;

const settings = {
  POSTHORN_DATABASE_STATEMENT_TIMEOUT_MS: String(STATEMENT_TIMEOUT_MS),
  POSTHORN_DATABASE_LOCK_TIMEOUT_MS: String(STATEMENT_TIMEOUT_MS),
};

export const postgresAway: FaultTest = {
  name: "postgres-away",
  about: "Postgres restarted, killed, killed in a transaction, cut off, refusing, saying no, read-only, paused",
  run: (lab, options) =>
    throughOutage(lab, options, { settings }, (scene) => throughWays(scene, options, WAYS, ["paused", "read-only"])),
};

/**
 * Once the first call is given up a crowd does not wait: all are told at once that they may ask again, but for one that finds
 * out whether Postgres is back.
 */
async function refusesAtOnce({ site }: Scene): Promise<void> {
  using caller = connectTo(site.nodes[0]?.address ?? "", site.apiKey);
  const ask = async () => {
    const began = performance.now();
    const code = await caller.call(InboxService.method.getCounts, { userId: userName(0) }).then(
      () => status.OK,
      (error: ServiceError) => error.code,
    );
    return { code, ms: performance.now() - began };
  };
  const isRefused = ({ code, ms }: Awaited<ReturnType<typeof ask>>) => code === status.UNAVAILABLE && ms < AT_ONCE_MS;
  await until(ask, isRefused, GIVEN_UP_WITHIN_MS);
  const answers = await Promise.all(Array.from({ length: CROWD }, ask));
  const others = answers.filter((answer) => !isRefused(answer));
  if (others.length > 1) {
    const some = others.slice(0, 5).map(({ code, ms }) => `${code} after ${Math.round(ms)} ms`);
    throw new Error(
      `of ${CROWD} calls to a silent Postgres ${others.length} were not refused at once: ${some.join(", ")}`,
    );
  }
}
