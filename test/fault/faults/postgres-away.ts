import { setTimeout as delay } from "node:timers/promises";
import { until } from "../../support/until.ts";
import type { FaultTest } from "../lab/lab.ts";
import { lasting, throughOutage, throughWays, type Ways } from "../lab/outage.ts";

/** Within this a node says that it is not ready. */
const NOTICED_WITHIN_MS = 5000;

/** Every way in which Postgres goes, and comes back. */
const WAYS: Ways = {
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
  async paused({ ground: { servers }, scale, vigil }) {
    await servers.postgres.pause();
    await vigil.ready(false, NOTICED_WITHIN_MS);
    await delay(lasting(30, scale));
    await servers.postgres.resume();
  },
};

export const postgresAway: FaultTest = {
  name: "postgres-away",
  about: "Postgres restarted, killed, killed in a transaction, cut off, refusing, paused",
  run: (lab, options) => throughOutage(lab, options, {}, (scene) => throughWays(scene, options, WAYS)),
};
