import { setTimeout as delay } from "node:timers/promises";
import { Redis } from "ioredis";
import type { FaultTest } from "../lab/lab.ts";
import { lasting, type Scene, throughOutage, throughWays, type Ways } from "../lab/outage.ts";
import { deliversAgain } from "../lab/vigil.ts";

/** Many times what it takes, for a machine that is busy; who waits for a paused Redis takes longer. */
const MEANWHILE_MS = 3500;

const WAYS = {
  async flushed({ ground: { servers } }) {
    const redis = new Redis(servers.redis.url);
    await redis.flushall();
    await redis.script("FLUSH");
    redis.disconnect();
  },
  async stopped({ ground: { servers }, scale }) {
    await servers.redis.end("SIGTERM");
    await delay(lasting(20, scale));
    await servers.redis.start();
  },
  async slow({ ground: { network }, scale }) {
    network.redis.delay(300); // Beyond the command time-out.
    await delay(lasting(20, scale));
    await network.redis.heal();
  },
  async paused({ ground: { servers }, scale }) {
    await servers.redis.pause();
    await delay(lasting(20, scale, 2 * MEANWHILE_MS));
    await servers.redis.resume();
  },
  async reset({ ground: { network } }) {
    network.redis.cut("rst");
  },
} satisfies Ways;

/** Under this policy a notification comes through without Redis, whatever it does. */
function meanwhile(way: NonNullable<Ways[string]>): NonNullable<Ways[string]> {
  return async (scene) => {
    let over = false;
    const going = way(scene).finally(() => {
      over = true;
    });
    while (!over) await deliversAgain(scene.site, MEANWHILE_MS);
    await going;
  };
}

/** A node is ready without Redis: what happens then is a policy, one in each round. */
export const redisAway: FaultTest = {
  name: "redis-away",
  about: "Redis flushed, stopped, slow, paused, reset, under either policy for that",
  run: (lab, options) => {
    const policy = options.seed % 2 === 0 ? "open-local" : "closed";
    const settings = { POSTHORN_LIMITS_ON_REDIS_DOWN: policy };
    const going = Object.fromEntries(Object.entries(WAYS).map(([name, way]) => [name, meanwhile(way)]));
    // Without the time-out of commands nothing comes through meanwhile; without a script sent again nothing ever does.
    const through = (scene: Scene) =>
      policy === "closed"
        ? throughWays(scene, options, WAYS, ["flushed"])
        : throughWays(scene, options, going, ["paused"]);
    return throughOutage(lab, options, { settings }, async (scene) => ({ policy, ...(await through(scene)) }));
  },
};
