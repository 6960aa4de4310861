// A node that kills or stops itself: `node failing-node.ts '{"by":"SIGKILL","points":[{"point":"ack:before","pass":3}]}'`, with
// its configuration in its environment. The same platform as `posthorn serve`, with failpoints between it and its parts.
import { readConfig } from "#src/config.ts";
import { startPlatform } from "#src/main.ts";
import { type FailAt, failpoints } from "./failpoints.ts";

const { by, points } = JSON.parse(process.argv[2] ?? "") as FailAt;
const waiting = points.map((each) => ({ ...each }));
const between = failpoints((reached) => {
  const [next] = waiting;
  if (next === undefined || reached !== next.point || --next.pass > 0) return;
  waiting.shift();
  // Written before the signal acts: writing to a pipe does not wait.
  process.stdout.write(`${JSON.stringify({ reached })}\n`);
  process.kill(process.pid, by);
});
const platform = await startPlatform(readConfig(process.env), { between });
const end = () => void platform[Symbol.asyncDispose]().then(() => process.exit());
process.once("SIGTERM", end);
process.once("disconnect", end);
process.stdout.write(`${JSON.stringify({ server: platform.grpcUrl, httpUrl: platform.httpUrl })}\n`);
