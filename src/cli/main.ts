// The process around `run`: streams, signals, exit code.
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { run } from "./run.ts";

const stop = new AbortController();
let stoppedAt = 0;
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    // The terminal and npm may both pass one Ctrl-C on; a second one, later, is meant.
    if (stop.signal.aborted && Date.now() - stoppedAt > 500) process.exit(130);
    stoppedAt ||= Date.now();
    stop.abort();
  });
}
// A command that waits for its input must not wait on.
stop.signal.addEventListener("abort", () => process.stdin.destroy());
// Started through an older Node (see posthorn.js): that process is gone, and so is the terminal.
if (process.channel) {
  process.once("disconnect", () => stop.abort());
  process.channel.unref();
}
// `posthorn tail | head`: whoever read has had enough.
process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1));

process.exitCode = await run(process.argv.slice(2), {
  env: process.env,
  out: (line) => process.stdout.write(`${line}\n`),
  err: (line) => process.stderr.write(`${line}\n`),
  stdin: process.stdin,
  signal: stop.signal,
  now: () => new Date(),
  random: Math.random,
  newId: randomUUID,
  colour: process.stdout.isTTY === true && process.stdout.hasColors() && !process.env.NO_COLOR,
  columns: process.stdout.columns ?? 100,
  dataDir: join(import.meta.dirname, "../../.data"),
});
// An open connection to the server would keep the process for minutes; what was written goes out first.
process.stdout.write("", () => process.exit());
