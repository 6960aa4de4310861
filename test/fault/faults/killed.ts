import { setTimeout as delay } from "node:timers/promises";
import { FAILPOINTS, type Failpoint } from "../lab/failpoints.ts";
import type { FaultTest, Lab } from "../lab/lab.ts";
import { openLedger } from "../lab/ledger.ts";
import type { FaultNode } from "../lab/node.ts";
import { type Random, seededRandom } from "../lab/random.ts";

/** JetStream's for this test: a killed worker's chunks come back after it. */
const ACK_WAIT_MS = 2000;
/** A node that has not come to its failpoint after this long is killed where it is: nobody has sent to the topic. */
const MAY_MISS_MS = { often: 30_000, seldom: 8000 };
/** In a short round, where little is sent. */
const MAY_MISS_SOON_MS = { often: 5000, seldom: 2000 };
/** Below this so few lives end at failpoints that one node is sent to those it surely comes to, and waited for. */
const SHORT_BELOW_SCALE = 0.05;
/** Passed once a Send, or a chunk. */
const OFTEN = /^(accept|decide|enqueue|work|ack|announce):/;
const OFTEN_PASSED = FAILPOINTS.filter((point) => OFTEN.test(point));

/**
 * Two nodes, each of which is killed and started again, whatever the other is doing, while callers send: in one life at a
 * random moment, in the next at a failpoint that it passes for the n-th time. The failpoints take turns over lives and seeds.
 */
export const killed: FaultTest = {
  name: "killed",
  about: "SIGKILL of either of two nodes, at random moments and around every commit, publish and ack",
  async run(lab, { seed, scale }) {
    const random = seededRandom(seed);
    const site = await lab.site(["a", "b"]);
    await lab.shortenAckWait(ACK_WAIT_MS);
    const ledger = await openLedger(lab, site, { seed, users: Math.max(20, Math.round(1000 * scale)) });
    const kills = Math.max(2, Math.round(20 * scale));
    let turn = seed * kills;
    const lives = Promise.all(
      site.nodes.map((node, n) => {
        const isShort = scale < SHORT_BELOW_SCALE;
        const points = isShort && n === 0 ? OFTEN_PASSED : FAILPOINTS;
        const next = () => points[turn++ % points.length] as Failpoint;
        return liveAndDie(lab, node, kills, random.fork(), next, isShort && n > 0 ? MAY_MISS_SOON_MS : MAY_MISS_MS);
      }),
    );
    await ledger.send(Math.round(20_000 * scale), lives);
    const atFailpoints = (await lives).reduce((sum, fell) => sum + fell, 0);
    if (atFailpoints === 0)
      throw new Error("no node fell at its failpoint: all were killed at random moments, which is not this test");
    return { kills: kills * site.nodes.length, atFailpoints, ...(await ledger.verify()) };
  },
};

/** Ends with the node running, and returns how often it fell at its failpoint. */
async function liveAndDie(
  lab: Lab,
  node: FaultNode,
  kills: number,
  random: Random,
  next: () => Failpoint,
  mayMissMs: typeof MAY_MISS_MS,
): Promise<number> {
  let fell = 0;
  let patience = 0;
  for (let n = 0; n < kills; n++) {
    if (n % 2 === 0) {
      await delay(random.int(0, 1500));
      lab.say(`killing ${node.name}`);
      await node.kill();
      const point = next();
      const pass = OFTEN.test(point) ? random.int(1, 20) : random.int(1, 2);
      patience = OFTEN.test(point) ? mayMissMs.often : mayMissMs.seldom;
      const last = n === kills - 1;
      await node.start(last ? {} : { failAt: { by: "SIGKILL", points: [{ point, pass }] } });
      lab.say(`${node.name} is back${last ? "" : ` and falls at ${point}, pass ${pass}`}`);
    } else {
      const missed = await Promise.race([node.exited().then(() => false), delay(patience, true)]);
      lab.say(`${node.name} ${missed ? "missed its failpoint" : "fell"}`);
      if (!missed) fell++;
      await node.kill();
      await node.start();
    }
  }
  return fell;
}
