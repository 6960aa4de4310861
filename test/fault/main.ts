// `npm run test:faults -- [name] [options]`: breaks Posthorn, again and again, each round with another seed, and looks
// whether every promise held. `npm test` runs a short round of each (faults.test.ts, faults-here.test.ts).
//
// Everything is real: nodes are processes, and Postgres, NATS and Redis run in .data/faults, which goes with the run. A round
// that failed prints its seed and the command that repeats it. Exit code 1 when one did.
import { join } from "node:path";
import { Command, InvalidArgumentError } from "commander";
import { startServices } from "#src/dev/services.ts";
import { makeTemplate, servicesOn } from "../support/fresh-services.ts";
import { faults } from "./faults.ts";
import { type Facts, type FaultTest, openLab } from "./lab/lab.ts";
import { tableOf } from "./table.ts";

export type Round = { name: string; seed: number; seconds: number; facts?: Facts; failure?: string };

type Options = { rounds: number; seed: number; scale: number; verbose: boolean };

const newSeed = () => Math.floor(Math.random() * 1e6) * 1000;

/** Of what was done before a round failed. */
const LAST_WORDS = 8;

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
  process.on(signal, () => {
    if (stop.signal.aborted) process.exit(130);
    stop.abort(new Error(`stopped by ${signal}`));
  });

const stopped = new Promise<never>((_, reject) => {
  stop.signal.addEventListener("abort", () => reject(stop.signal.reason));
});
stopped.catch(() => undefined);

/** A round that hangs is a failure like any other. */
function late(scale: number): Promise<never> {
  const ms = 180_000 + 600_000 * scale;
  return new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`not done after ${ms / 1000} s`)), ms).unref();
  });
}

const say = (line: string) => void process.stderr.write(`${line}\n`);
const { chosen, options } = parse(process.argv.slice(2));
const rounds = await runAll(chosen, options);
for (const line of tableOf(rounds, options.scale)) process.stdout.write(`${line}\n`);
process.exit(rounds.some(({ failure }) => failure !== undefined) || stop.signal.aborted ? 1 : 0);

async function runAll(chosen: readonly FaultTest[], { rounds, seed, scale, verbose }: Options): Promise<Round[]> {
  const done: Round[] = [];
  await using services = await startServices({
    dataDir: join(import.meta.dirname, "../../.data/faults"),
    keep: false,
    durable: false,
    log: say,
    signal: stop.signal,
  });
  const shared = { ...services, templateDatabase: await makeTemplate(services.databaseUrl) };
  for (let n = 0; n < rounds; n++) {
    for (const fault of chosen) {
      if (stop.signal.aborted) return done;
      const lacking = await fault.lacks?.();
      if (lacking !== undefined) {
        say(`skipped: ${fault.name} (${lacking})`);
        continue;
      }
      const began = performance.now();
      const round: Round = { name: fault.name, seed: seed + n, seconds: 0 };
      const said: string[] = [];
      const hear = (line: string) => {
        said.push(line);
        if (verbose) say(`  ${line}`);
      };
      try {
        await using corner = await servicesOn(shared);
        await using lab = openLab(corner, hear);
        round.facts = await Promise.race([fault.run(lab, { seed: round.seed, scale }), late(scale), stopped]);
      } catch (error) {
        round.failure = [reasonOf(error), ...said.slice(-LAST_WORDS)].join("\n  ");
      }
      round.seconds = (performance.now() - began) / 1000;
      done.push(round);
      say(
        `${fault.name} seed ${round.seed}: ${round.failure ?? JSON.stringify(round.facts)} (${round.seconds.toFixed(1)} s)`,
      );
    }
  }
  return done;
}

/** The failure itself, where its end failed as well. */
function reasonOf(error: unknown): string {
  if (error instanceof SuppressedError) return reasonOf(error.suppressed);
  return error instanceof Error ? error.message : String(error);
}

function parse(words: readonly string[]): { chosen: readonly FaultTest[]; options: Options } {
  const program = new Command("npm run test:faults --")
    .description("Breaks Posthorn in every way there is a test for, and looks whether its promises held.")
    .argument("[name]", "which fault; default: all")
    .option("--rounds <n>", "how often, each time with the next seed", positive, 1)
    .option("--seed <n>", "of the first round; default: one that is new", positive)
    .option("--scale <x>", "of what is sent and how long a fault lasts; 0.1: a tenth", positive, 1)
    .option("--verbose", "tell what is done to whom", false)
    .addHelpText("after", `\nFaults:\n${faults.map(({ name, about }) => `  ${name.padEnd(19)}${about}`).join("\n")}`)
    .parse(words, { from: "user" });
  const [name] = program.args;
  const chosen = name === undefined ? faults : faults.filter((fault) => fault.name === name);
  if (chosen.length === 0)
    program.error(`no fault «${name}»; there are: ${faults.map((each) => each.name).join(", ")}`);
  const { seed = newSeed(), ...options } = program.opts<Omit<Options, "seed"> & { seed?: number }>();
  return { chosen, options: { ...options, seed } };
}

function positive(text: string): number {
  const value = Number(text);
  if (!(value > 0)) throw new InvalidArgumentError("a number above 0 is needed");
  return value;
}
