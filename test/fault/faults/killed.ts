import { setTimeout as delay } from "node:timers/promises";
import { FAILPOINTS, type Failpoint, OFTEN } from "../lab/failpoints.ts";
import type { FaultTest, Lab } from "../lab/lab.ts";
import { openLedger } from "../lab/ledger.ts";
import type { FaultNode } from "../lab/node.ts";
import { type Random, seededRandom } from "../lab/random.ts";

/** JetStream's for this test: a killed worker's chunks come back after it. */
const ACK_WAIT_MS = 2000;
/**
 * A node that has not come to its failpoint after so many milliseconds is killed where it is: nobody has sent anything that
 * leads there.
 */
const MAY_MISS = { often: 30_000, seldom: 8000 };
/** In a short round, where little is sent. */
const MAY_MISS_SOON = { often: 5000, seldom: 2000 };
/** It falls at one of so many passes of its failpoint. */
const PASSES = { often: 20, seldom: 2 };
const PASSES_SOON = { often: 5, seldom: 1 };
/** Below this so few lives end at failpoints that one node is sent to those it surely comes to, and waited for. */
const SHORT_BELOW_SCALE = 0.05;
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
        const patience = isShort && n > 0 ? MAY_MISS_SOON : MAY_MISS;
        const passes = isShort ? PASSES_SOON : PASSES;
        return liveAndDie(lab, node, { kills, random: random.fork(), next, patience, passes });
      }),
    );
    await ledger.send(Math.round(20_000 * scale), lives);
    const atFailpoints = (await lives).reduce((sum, fell) => sum + fell, 0);
    if (atFailpoints === 0)
      throw new Error("no node fell at its failpoint: all were killed at random moments, which is not this test");
    return { kills: kills * site.nodes.length, atFailpoints, ...(await ledger.verify()) };
  },
};

type Life = {
  kills: number;
  random: Random;
  next: () => Failpoint;
  /** In milliseconds. */
  patience: typeof MAY_MISS;
  passes: typeof PASSES;
};

/** Ends with the node running, and returns how often it fell at its failpoint. */
async function liveAndDie(lab: Lab, node: FaultNode, { kills, random, next, patience, passes }: Life): Promise<number> {
  let fell = 0;
  let mayMissMs = 0;
  for (let n = 0; n < kills; n++) {
    if (n % 2 === 0) {
      await delay(random.int(0, 1500));
      lab.say(`killing ${node.name}`);
      await node.kill();
      const point = next();
      const often = OFTEN.test(point) ? "often" : "seldom";
      const pass = random.int(1, passes[often]);
      mayMissMs = patience[often];
      const last = n === kills - 1;
      await node.start(last ? {} : { failAt: { by: "SIGKILL", points: [{ point, pass }] } });
      lab.say(`${node.name} is back${last ? "" : ` and falls at ${point}, pass ${pass}`}`);
    } else {
      const missed = await Promise.race([node.exited().then(() => false), delay(mayMissMs, true)]);
      lab.say(`${node.name} ${missed ? "missed its failpoint" : "fell"}`);
      if (!missed) fell++;
      await node.kill();
      await node.start();
    }
  }
  return fell;
}
