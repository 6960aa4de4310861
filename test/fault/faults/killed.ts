import { setTimeout as delay } from "node:timers/promises";
import { FAILPOINTS, type FailAt } from "../lab/failpoints.ts";
import type { FaultTest } from "../lab/lab.ts";
import { openLedger } from "../lab/ledger.ts";
import type { FaultNode } from "../lab/node.ts";
import { type Random, seededRandom } from "../lab/random.ts";

/** JetStream's for this test: a killed worker's chunks come back after it. */
const ACK_WAIT_MS = 2000;

/** A node that has not come by its failpoint after this long is killed where it is. */
const MAY_MISS_MS = 4000;

/**
 * Two nodes, one of which is killed, started and killed again while callers send: half of the times at a random moment,
 * half at a failpoint that it passes for the n-th time. All failpoints come in turn over the rounds.
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
    let fell = 0;
    const killing = async () => {
      for (let n = 0; n < kills; n++) {
        const node = random.pick(site.nodes);
        const failAt = n % 2 === 0 ? undefined : chooseFailpoint(random);
        const where = failAt === undefined ? "somewhere" : `${failAt.point}, pass ${failAt.pass}`;
        if (await killOnce(node, failAt, random)) {
          fell++;
          lab.say(`killed ${node.name} at ${where}`);
        }
        await node.start();
      }
    };
    await ledger.send(Math.round(20_000 * scale), killing());
    return { kills, atFailpoints: fell, ...(await ledger.verify()) };
  },
};

function chooseFailpoint(random: Random): FailAt {
  return { point: random.pick(FAILPOINTS), pass: random.int(1, 20) };
}

/** Whether it fell where it was told to, or at once when it was told nothing. */
async function killOnce(node: FaultNode, failAt: FailAt | undefined, random: Random): Promise<boolean> {
  if (failAt === undefined) {
    await delay(random.int(0, 1500));
    await node.kill();
    return true;
  }
  await node.kill();
  await node.start({ failAt });
  const missed = delay(MAY_MISS_MS, "missed" as const);
  if ((await Promise.race([node.exited(), missed])) !== "missed") return true;
  await node.kill();
  return false;
}
