import { setTimeout as delay } from "node:timers/promises";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { type Connection, connectTo } from "../lab/connection.ts";
import { type Failpoint, OFTEN } from "../lab/failpoints.ts";
import type { FaultTest, Lab } from "../lab/lab.ts";
import { openLedger } from "../lab/ledger.ts";
import type { FaultNode } from "../lab/node.ts";
import { type Random, seededRandom } from "../lab/random.ts";

const ACK_WAIT_MS = 1500;
/**
 * Longer than JetStream waits for a worker and a hand-over for whoever has claimed it, and shorter than Postgres waits for a
 * transaction or a lock.
 */
const PAUSE_MS = 3500;
/** Every point is passed all the time; only a machine with no time for it takes long. */
const REACHED_WITHIN_MS = 60_000;

/**
 * Where what a paused process knows goes stale: between reading and writing, writing and saying so, and before an ack. In
 * turns what is passed all the time, and what only some come to.
 */
const POINTS: readonly Failpoint[] = [
  "decide:before-write",
  "claim:after-commit",
  "decide:before-commit",
  "escalate:before-write",
  "decide:after-commit",
  "hand-over:after",
  "work:before",
  "close:before-commit",
  "ack:before",
  "note:before-commit",
  "announce:before",
  "join:before-commit",
  "accept:before-write",
  "escalate:before-commit",
  "accept:before-commit",
  "occurrence:before-commit",
  "accept:after-commit",
  "close:before-write",
  "enqueue:before",
  "occurrence:before-write",
  "enqueue:after",
  "give:before-write",
];

/**
 * One of two nodes stops, as in a long pause of a virtual machine, with work in hand; JetStream gives that to the other node,
 * and then the first goes on with what it believes. Its late writes must find nothing to do, and its late acks harm nobody.
 */
export const paused: FaultTest = {
  name: "paused",
  about: "SIGSTOP of a worker beyond ack_wait at points where its knowledge goes stale, then resumed",
  async run(lab, { seed, scale }) {
    const random = seededRandom(seed);
    const site = await lab.site(["a", "b"]);
    const pausing = site.nodes[0] as FaultNode;
    await lab.shortenAckWait(ACK_WAIT_MS);
    const ledger = await openLedger(lab, site, { seed, users: Math.max(10, Math.round(200 * scale)) });
    const pauses = Math.max(2, Math.round(20 * scale));
    const points = Array.from({ length: pauses }, (_, n) => {
      const point = POINTS[(seed * pauses + n) % POINTS.length] as Failpoint;
      return { point, pass: OFTEN.test(point) ? random.int(1, 10) : 1 };
    });
    await pausing.kill();
    await pausing.start({ failAt: { by: "SIGSTOP", points } });
    const other = lab.use(connectTo(site.nodes[1]?.address ?? "", site.apiKey));
    const pausesDone = pauseAll(lab, pausing, pauses, random.fork(), other);
    await ledger.send(Math.round(10_000 * scale), pausesDone);
    // Else what it had in hand when it stopped was given to nobody, and none of this was tried.
    if ((await lab.ackWaitMs()) > ACK_WAIT_MS) throw new Error("JetStream waited for the node until it was resumed");
    return { pauses, ...(await ledger.verify()) };
  },
};

/** Resumes the node whenever it has stopped long enough. */
async function pauseAll(lab: Lab, node: FaultNode, pauses: number, random: Random, other: Connection): Promise<void> {
  for (let n = 0; n < pauses; n++) {
    const missed = new AbortController();
    const point = await Promise.race([
      node.reached(),
      delay(REACHED_WITHIN_MS, undefined, { signal: missed.signal }).catch(() => undefined),
    ]);
    missed.abort();
    if (point === undefined) throw new Error(`${node.name} did not come to its failpoint ${n + 1}`);
    await node.stopped();
    lab.say(`${node.name} stopped at ${point}`);
    // What it is about to write was changed since it read it: by the other node's decision, or by an update alone.
    if (point === "decide:before-write") await changeWaiting(lab, other);
    if (point !== "decide:before-write" || random.chance(0.5)) await delay(PAUSE_MS);
    node.resume();
  }
}

/** Gives what waits for its decision another title. Its stream must tell the title that the inbox shows. */
async function changeWaiting({ sql, say }: Lab, connection: Connection): Promise<void> {
  const waiting = await sql<{ id: string }[]>`select id from notifications where status = 1 limit 100`;
  const updates = waiting.map(({ id }) =>
    connection.call(SendService.method.updateNotification, { id, content: { title: "changed" } }).then(
      () => true,
      () => false, // It has been decided meanwhile.
    ),
  );
  say(`changed ${(await Promise.all(updates)).filter(Boolean).length} that wait`);
}
