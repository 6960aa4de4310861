import { setTimeout as delay } from "node:timers/promises";
import type { FaultTest } from "../lab/lab.ts";
import { lasting, throughOutage, throughWays, type Ways } from "../lab/outage.ts";
import { type SmallDisk, smallDisk } from "../lab/small-disk.ts";

const POSTGRES_MB = 256;
const NATS_MB = 64;

export const diskFull: FaultTest = {
  name: "disk-full",
  about: "no space left for Postgres, or for JetStream",
  async lacks() {
    await using disk = await smallDisk(1).catch(() => undefined);
    return disk === undefined ? "mount: no disk of our own can be had here" : undefined;
  },
  async run(lab, options) {
    const postgres = lab.use(await smallDisk(POSTGRES_MB));
    const nats = lab.use(await smallDisk(NATS_MB));
    const servers = { dirs: { postgres: `${postgres.dir}/postgres`, nats: `${nats.dir}/nats` } };
    return throughOutage(lab, options, { servers }, (scene) => throughWays(scene, options, ways(postgres, nats)));
  },
};

/**
 * Both servers give up when they cannot write their logs: Postgres ends, NATS switches JetStream off. Whoever keeps them
 * running starts them again, here as everywhere; Posthorn needs no starting.
 */
function ways(postgres: SmallDisk, nats: SmallDisk): Ways {
  return {
    async "full for Postgres"({ ground: { servers }, scale }) {
      await postgres.fill();
      await delay(lasting(20, scale, 3000));
      await postgres.empty();
      if (!(await servers.postgres.running())) await servers.postgres.start();
    },
    async "full for JetStream"({ ground: { servers }, scale }) {
      await nats.fill();
      await delay(lasting(20, scale, 3000));
      await nats.empty();
      await servers.nats.end("SIGKILL"); // It may not come to an end by itself.
      await servers.nats.start();
    },
  };
}
