import { connect } from "nats";
import { ingestStream, LANES } from "#src/pipeline/flow.ts";
import { until } from "../../support/until.ts";
import { breakableGround, type Ground } from "../lab/ground.ts";
import type { FaultTest } from "../lab/lab.ts";
import { openLedger } from "../lab/ledger.ts";
import { faultNode } from "../lab/node.ts";
import { BACK_WITHIN_MS } from "../lab/outage.ts";
import { deliversAgain, keepVigil } from "../lab/vigil.ts";

/** How JetStream's store goes while it holds a backlog; one in each round. */
const WAYS = {
  async "streams deleted"({ servers, lab }: Ground) {
    const nats = await connect({ servers: servers.nats.url });
    const { streams } = await nats.jetstreamManager();
    for (const { name } of LANES) await streams.delete(ingestStream(lab.services.namespace, name));
    await nats.close();
  },
  async "files deleted while it stood"({ servers }: Ground) {
    await servers.nats.end("SIGKILL");
    await servers.nats.wipe();
    await servers.nats.start();
  },
  async "files deleted while it ran"({ servers }: Ground) {
    await servers.nats.wipe();
    await servers.nats.end("SIGKILL");
    await servers.nats.start();
  },
};
const NAMES = Object.keys(WAYS) as (keyof typeof WAYS)[];

export const jetstreamDeleted: FaultTest = {
  name: "jetstream-deleted",
  about: "JetStream's store deleted while it holds a backlog, by its API, stopped or under it",
  async run(lab, { seed, scale }) {
    const ground = await breakableGround(lab);
    const { services, sql } = ground.lab;
    const site = await ground.site(["a"], { POSTHORN_ROLES: "api,stream,scheduler" });
    const users = Math.max(20, Math.round(1000 * scale));
    const ledger = await openLedger(ground.lab, site, { seed, users, callers: 4 });
    await using vigil = await keepVigil(site.nodes);
    await ledger.send(Math.round(10_000 * scale));
    const [{ waiting = 0 } = {}] = await sql<{ waiting: number }[]>`
      select count(*)::int as waiting from notifications where status = 1`;
    if (waiting === 0) throw new Error("nothing waited: the store was not full");
    const queued = await until(
      () => messagesOn(services.natsUrl, services.namespace),
      (messages) => messages > 0,
    );

    const way = NAMES[seed % NAMES.length] as keyof typeof WAYS;
    lab.say(`${way}, with ${waiting} waiting in ${queued} messages`);
    await WAYS[way](ground);
    const began = performance.now();
    const own = { POSTHORN_ROLES: "worker", LAB_CHANNELS: site.channels ?? "" };
    const worker = ground.lab.use(await faultNode("w", services, own));
    await worker.start();
    const startedMs = performance.now() - began;
    // More comes while the reconciler is at it.
    await ledger.send(Math.round(2000 * scale));
    await deliversAgain(site, BACK_WITHIN_MS);
    const kept = await ledger.verify(90_000);
    const recoveryMs = Math.round(performance.now() - began - startedMs);
    return { way, waiting, ...(await vigil.end()), ...kept, recoveryMs };
  },
};

async function messagesOn(natsUrl: string, namespace: string): Promise<number> {
  const nats = await connect({ servers: natsUrl });
  try {
    const { streams } = await nats.jetstreamManager();
    const infos = await Promise.all(LANES.map(({ name }) => streams.info(ingestStream(namespace, name))));
    return infos.reduce((sum, { state }) => sum + state.messages, 0);
  } finally {
    await nats.close();
  }
}
