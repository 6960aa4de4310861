// The fuzz as a command, on a platform and servers of its own:
//
//     npx node test/attack/fuzz/main.ts --seed 7 --runs 5000
//
// Ends with 1 when something was found; what it prints repeats it.
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { startServices } from "#src/dev/services.ts";
import { startPosthorn } from "../posthorn-process.ts";
import { fuzz, WITH_CHANNELS } from "./fuzz.ts";

const { values } = parseArgs({
  options: { seed: { type: "string" }, runs: { type: "string" }, minutes: { type: "string" } },
});
const seed = Number(values.seed ?? process.env.POSTHORN_FUZZ_SEED ?? Math.floor(Math.random() * 2 ** 31));
const runs = Number(values.runs ?? process.env.POSTHORN_FUZZ_RUNS ?? 1000);
const withinMs = values.minutes === undefined ? {} : { withinMs: Number(values.minutes) * 60_000 };

await using services = await startServices({
  dataDir: mkdtempSync(join(tmpdir(), "posthorn-fuzz-")),
  keep: false,
  durable: false,
  log: (line) => console.error(line),
});
await using posthorn = await startPosthorn({ ...services, namespace: "fuzz" }, {}, WITH_CHANNELS);
console.log(`seed ${seed}, ${runs} sequences`);
const before = await posthorn.residentMb();
const report = await fuzz(posthorn, { seed, runs, ...withinMs });
console.log(JSON.stringify({ ...report, residentMb: [before, await posthorn.residentMb()] }, null, 2));
const faults = posthorn.said().filter((line) => /"level":"(error|fatal)"/.test(line) || !line.startsWith("{"));
if (faults.length > 0) console.log(`the process said:\n${[...new Set(faults)].slice(0, 20).join("\n")}`);
console.log(`${report.calls} calls, ${report.findings.length} findings; repeat with --seed ${seed} --runs ${runs}`);
process.exitCode = report.findings.length > 0 || posthorn.exited() ? 1 : 0;
