// `npm run bench -- [scenario] [options]`: how fast it is, beside what else does the same, on this machine and in this run.
//
// Everything is real: Postgres, NATS and Redis start as in production (Postgres waits for the disk), in .data/bench, which
// goes with the run; Posthorn runs with all its roles as a process of its own; the load comes from a program in Go, built
// once into .cache/bench (from Node, and said so, where there is no Go). Peers run afterwards on the same servers: a whole
// stack one would build instead (peers/, its packages installed on demand into .cache/bench), and the raw limits of the parts
// (yardsticks/). What cannot be had here is skipped by name.
//
// Numbers of two machines, or of two hours on a shared one, cannot be compared: look at the ratios. Nothing else should run.
// `cores kept busy` tells what the machine's cores went to; --profile what the server's did (its measured time only, by
// function and by package). Settings can be tried: POSTHORN_ROUTE_CONCURRENCY_PER_LANE=4 npm run bench -- end-to-end.
// POSTHORN_DATABASE_URL, …_NATS_URL and …_REDIS_URL name servers to use instead.
//
// Without a scenario all of them run, and at the end a table has them all. With --json, standard output is one object:
// {scenario, rate, p50Ms, p99Ms, rssMb, …, bars, faults, peers: {name: {same}}, ratios, machine}, or {scenarios: [those]} of
// all; `npm run --silent` leaves out npm's own lines. The last of each scenario stays in .results/bench, from where
// --readme puts a table and a picture of them into the README.
//
// Exit code: 0, also when a bar is not reached; 1 when a notification was lost, doubled, out of order or refused, when
// something did not start, or when time was up; 2 when the command line is not understood.
//
// A new scenario: a file in scenarios/ that exports a Scenario, and its line in scenarios.ts. A new kind of load: a file in
// client/ (Go), its case in main.go, and its fields in load.ts.
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Command, CommanderError, InvalidArgumentError } from "commander";
import { benchServices, type Lab, RESULTS, type Wishes } from "./lab.ts";
import { loadClient } from "./load.ts";
import { lastResults, writeReadme } from "./readme.ts";
import { jsonOf, linesOf, machineOf } from "./report.ts";
import type { Scenario } from "./scenario.ts";
import { onRequest, scenarios } from "./scenarios.ts";
import { summaryLines } from "./summary.ts";

type Options = Wishes & { json: boolean; readme: boolean; client?: "go" | "node"; timeout: number };

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
  process.on(signal, () => {
    if (stop.signal.aborted) process.exit(130);
    stop.abort(new Error(`stopped by ${signal}`));
  });

process.exitCode = await bench(process.argv.slice(2)).catch((error: unknown) => {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  say(error instanceof Error ? error.message : String(error));
  return stop.signal.aborted && process.exitCode === undefined ? 130 : 1;
});
process.exit();

async function bench(words: readonly string[]): Promise<number> {
  const { chosen, options } = parse(words);
  const names = scenarios.map(({ name }) => name);
  if (options.readme) {
    for (const file of await writeReadme(names)) say(`written: ${file}`);
    return 0;
  }
  const client = await loadClient(options.client, say, stop.signal);
  const all = chosen.length > 1;
  const found: object[] = [];
  let code = 0;
  for (const scenario of chosen) {
    const result = await runOne(scenario, options, client);
    if (result === undefined || result.faults.length > 0) code = 1;
    if (result !== undefined) found.push(result.json);
    if (!options.json) for (const line of result?.lines ?? []) process.stdout.write(`${line}\n`);
  }
  if (options.json && found.length > 0)
    process.stdout.write(`${JSON.stringify(all ? { scenarios: found } : found[0])}\n`);
  if (!options.json && all) for (const line of ["", ...summaryLines(await lastResults(names))]) console.log(line);
  return code;
}

type Reported = { json: object; lines: readonly string[]; faults: readonly string[] };

/** Runs one scenario on servers of its own and keeps what it found; undefined when it could not be run to its end. */
async function runOne(scenario: Scenario, options: Options, client: Lab["client"]): Promise<Reported | undefined> {
  const late = AbortSignal.timeout(options.timeout * 1000);
  const signal = AbortSignal.any([stop.signal, late]);
  say(`${scenario.name}: starting Postgres, NATS and Redis`);
  try {
    await using services = await benchServices(say, signal);
    const lab: Lab = { scenario: scenario.name, wishes: options, services, client, say, signal };
    const finding = await scenario.run(lab);
    const report = {
      ...finding,
      scenario: scenario.name,
      client: client.name,
      seconds: options.seconds,
      adjusted: adjustedBy(options),
      date: new Date().toISOString(),
      machine: machineOf(services.versions),
    };
    const json = jsonOf(scenario, report);
    await mkdir(RESULTS, { recursive: true });
    await writeFile(join(RESULTS, `${scenario.name}.json`), `${JSON.stringify(json)}\n`);
    for (const fault of finding.faults) say(`${scenario.name}: FAULT: ${fault}`);
    return { json, lines: linesOf(scenario, report), faults: finding.faults };
  } catch (error) {
    if (stop.signal.aborted) throw error;
    const reason = late.aborted
      ? `not done after ${options.timeout} s`
      : error instanceof Error
        ? error.message
        : error;
    say(`${scenario.name}: ${reason}`);
    return undefined;
  }
}

/** The numbers of a scenario's own that the command line has changed. */
function adjustedBy({ users, callers, window, rate, count, rows }: Options): Record<string, number> {
  const changed = Object.entries({ users, callers, window, rate, count, rows });
  return Object.fromEntries(changed.flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])));
}

function parse(words: readonly string[]): { chosen: readonly Scenario[]; options: Options } {
  const program = new Command("npm run bench --")
    .description("Measures Posthorn beside its peers, on real servers of its own.")
    .argument("[scenario]", "which one; default: all but growth, tracing, rules and typed")
    .option("--json", "print one object and nothing else on standard output", false)
    .option("--readme", "measure nothing: put the last results of all into the README", false)
    .option("--seconds <n>", "how long each system is measured; peers for half of it", positive, 10)
    .option("--users <n>", "users, each with a stream where the scenario has streams", positive)
    .option("--callers <n>", "calls under way at the same time", positive)
    .option("--window <n>", "end-to-end: notifications sent and not arrived", positive)
    .option("--rate <n>", "latency, history: sends or reads a second", positive)
    .option("--count <n>", "critical, neighbour, backlog: how many wait; streams: broadcasts; resume: missed", positive)
    .option("--rows <n>", "history: rows at the end", positive)
    .option("--no-peers", "only Posthorn")
    .option("--profile", "tell where the processor time of the server, and of its worker, went", false)
    .option("--client <language>", "go or node; default: go where it can be built", language)
    .option("--timeout <seconds>", "give a scenario up after", positive, 1_800)
    .addHelpText(
      "after",
      `\nScenarios:\n${[...scenarios, ...onRequest].map(({ name, about }) => `  ${name.padEnd(12)}${about}`).join("\n")}`,
    )
    .exitOverride()
    .parse(words, { from: "user" });
  const [name] = program.args;
  const known = [...scenarios, ...onRequest];
  const chosen = name === undefined ? scenarios : known.filter((scenario) => scenario.name === name);
  if (chosen.length === 0)
    program.error(`no scenario «${name}»; there are: ${known.map((scenario) => scenario.name).join(", ")}`);
  return { chosen, options: program.opts<Options>() };
}

function positive(text: string): number {
  const value = Number(text);
  if (!(value > 0)) throw new InvalidArgumentError("a number above 0 is needed");
  return value;
}

function language(text: string): "go" | "node" {
  if (text !== "go" && text !== "node") throw new InvalidArgumentError("go or node");
  return text;
}

function say(line: string): void {
  process.stderr.write(`${line}\n`);
}
