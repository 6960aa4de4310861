import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { batchesCommand } from "./commands/batches.ts";
import { confirmCommand } from "./commands/confirm.ts";
import { deadlinesCommand } from "./commands/deadlines.ts";
import { explainCommand } from "./commands/explain.ts";
import { inboxCommand } from "./commands/inbox.ts";
import { keyCommand } from "./commands/key.ts";
import { migrateCommand } from "./commands/migrate.ts";
import { schedulesCommand } from "./commands/schedules.ts";
import { sendCommand } from "./commands/send.ts";
import { serveCommand } from "./commands/serve.ts";
import { subscriptionsCommand } from "./commands/subscriptions.ts";
import { tailCommand } from "./commands/tail.ts";
import { tenantCommand } from "./commands/tenant.ts";
import { timingCommand } from "./commands/timing.ts";
import { tokenCommand } from "./commands/token.ts";
import { typesCommand } from "./commands/types.ts";
import { whatIfCommand } from "./commands/what-if.ts";
import { whoamiCommand } from "./commands/whoami.ts";
import { hostOf } from "./connection.ts";
import { failureJson, failureLines, failureOf } from "./failure.ts";
import { painter } from "./print.ts";
import { Ended, INTERRUPTED, OK, USAGE, type World } from "./world.ts";

/**
 * Runs one command line (without node and script) and returns its exit code: 0 ok, 1 refused, 2 not understood,
 * 3 unreachable. Never throws.
 */
export async function run(words: readonly string[], world: World): Promise<number> {
  const program = posthorn(world);
  try {
    await program.parseAsync(words, { from: "user" });
    return OK;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? OK : USAGE; // It has said why.
    if (error instanceof Ended) return error.exitCode;
    if (world.signal.aborted) return INTERRUPTED; // By Ctrl-C: there is nothing to tell.
    const { json, server } = program.opts<{ json?: boolean; server?: string }>();
    const failure = failureOf(error, hostOf(world, server));
    if (json) world.err(failureJson(failure));
    else for (const line of failureLines(failure)) world.err(line);
    return failure.exitCode;
  }
}

function posthorn(world: World): Command {
  const paint = painter(world);
  const program = new Command("posthorn")
    .description("Posthorn: notifications in over gRPC, out to the inbox and the live stream.")
    .version(version(), "-V, --version", "print the version")
    .option("--server <host:port>", "where Posthorn listens for gRPC; https://host:port for TLS")
    .option("--api-key <credential>", "API key; a user token or operator key works where its owner may call")
    .option("--tenant <id>", "act in this tenant, as the operator")
    .option("--json", "print one JSON object a line, and nothing else, on standard output")
    .configureOutput({
      writeOut: (text) => world.out(text.replace(/\n$/, "")),
      writeErr: (text) => world.err(text.replace(/\n$/, "")),
      getOutHelpWidth: () => world.columns,
      getErrHelpWidth: () => world.columns,
    })
    .configureHelp({
      showGlobalOptions: true,
      styleTitle: (title) => paint("bold", title),
      styleCommandText: (text) => paint("cyan", text),
      styleSubcommandText: (text) => paint("cyan", text),
    })
    .showHelpAfterError("(add --help for what there is)")
    .exitOverride()
    .addHelpText(
      "after",
      `
Server and credential come from the options, else from POSTHORN_SERVER and POSTHORN_API_KEY (POSTHORN_OPERATOR_KEY for
tenants), else from what \`npm start\` wrote into .data/posthorn.json: beside a running \`npm start\` none is needed.

Exit codes: 0 done, 1 refused, 2 command line not understood, 3 nobody answered in time.

Begin with:
  $ npm start                                 # a platform with everything it needs, in this terminal
  $ npx posthorn tail                         # the live stream of its first user, in a second one
  $ npx posthorn send ada --title "Hello"     # in a third`,
    );
  program.commandsGroup("Platform:");
  serveCommand(program, world);
  migrateCommand(program, world);
  program.commandsGroup("Notifications:");
  sendCommand(program, world);
  tailCommand(program, world);
  inboxCommand(program, world);
  explainCommand(program, world);
  whatIfCommand(program, world);
  confirmCommand(program, world);
  batchesCommand(program, world);
  subscriptionsCommand(program, world);
  timingCommand(program, world);
  program.commandsGroup("Set-up:");
  typesCommand(program, world);
  schedulesCommand(program, world);
  deadlinesCommand(program, world);
  tokenCommand(program, world);
  tenantCommand(program, world);
  keyCommand(program, world);
  whoamiCommand(program, world);
  return program;
}

function version(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}
