// A node that kills or stops itself: `node failing-node.ts '{"by":"SIGKILL","points":[{"point":"ack:before","pass":3}]}'`, with
// its configuration in its environment. The same platform as `posthorn serve`, with failpoints between it and its parts; and
// with the lab's channels where LAB_CHANNELS names their folder, which never answer where LAB_CHANNELS_HANG is set.
// Any message from its parent is answered with the bytes that are alive in it, once all garbage is collected.
import { setTimeout as delay } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { readConfig } from "#src/config.ts";
import { startPlatform } from "#src/main.ts";
import { labChannels } from "./channels.ts";
import { type FailAt, failpoints } from "./failpoints.ts";

/** V8 frees buffers on a thread of its own after a collection. */
const SWEPT_MS = 100;

const { by, points } = JSON.parse(process.argv[2] ?? "") as FailAt;
const { LAB_CHANNELS, LAB_CHANNELS_HANG } = process.env;
const channels = LAB_CHANNELS ? labChannels(LAB_CHANNELS, { hang: LAB_CHANNELS_HANG !== undefined }) : undefined;
const waiting = points.map((each) => ({ ...each }));
const between = failpoints((reached) => {
  const [next] = waiting;
  if (next === undefined || reached !== next.point || --next.pass > 0) return;
  waiting.shift();
  // Written before the signal acts: writing to a pipe does not wait.
  process.stdout.write(`${JSON.stringify({ reached })}\n`);
  process.kill(process.pid, by);
}, channels);
const platform = await startPlatform(readConfig(process.env), { between });
const end = () => void platform[Symbol.asyncDispose]().then(() => process.exit());
process.once("SIGTERM", end);
process.once("disconnect", end);
process.on("message", async () => process.send?.(await liveBytes()));
process.stdout.write(`${JSON.stringify({ server: platform.grpcUrl, httpUrl: platform.httpUrl })}\n`);

/** Heap and buffers. What a finalizer or a turn of the event loop lets go of is gone with the collection after. */
async function liveBytes(): Promise<number> {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  setFlagsFromString("--no-expose-gc");
  for (let round = 0; round < 3; round++) {
    collect();
    await delay(SWEPT_MS);
  }
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}
