// A node that kills itself: `node failing-node.ts <failpoint> <pass>`, with its configuration in its environment. The same
// platform as `posthorn serve`, with failpoints between it and its parts.
import { readConfig } from "#src/config.ts";
import { startPlatform } from "#src/main.ts";
import { FAILPOINTS, type Failpoint, failpoints } from "./failpoints.ts";

const [point, pass] = process.argv.slice(2);
if (!FAILPOINTS.includes(point as Failpoint)) throw new Error(`no failpoint «${point}»`);

let left = Number(pass);
const between = failpoints((reached) => {
  if (reached === point && --left === 0) process.kill(process.pid, "SIGKILL");
});
const platform = await startPlatform(readConfig(process.env), { between });
const end = () => void platform[Symbol.asyncDispose]().then(() => process.exit());
process.once("SIGTERM", end);
process.once("disconnect", end);
process.stdout.write(`${JSON.stringify({ server: platform.grpcUrl, httpUrl: platform.httpUrl })}\n`);
