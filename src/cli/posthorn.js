#!/usr/bin/env node
// Starts the CLI under Node 24, which the pinned npm package `node` brings when this machine's own is older. Plain
// JavaScript, because an older Node has to be able to read it.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import module from "node:module";
import { fileURLToPath } from "node:url";

const OLDEST = 24;

if (Number(process.versions.node.split(".")[0]) >= OLDEST) {
  // What TypeScript becomes is kept, in the system's folder for such, so that a command answers at once.
  module.enableCompileCache?.();
  await import("../store/resolve-drizzle.ts");
  await import("./main.ts");
} else {
  const pinned = fileURLToPath(new URL("../../node_modules/.bin/node", import.meta.url));
  if (existsSync(pinned)) {
    handOver(pinned);
  } else {
    console.error(
      `Posthorn needs Node ${OLDEST} or newer; this is ${process.version}. \`npm ci\` brings the right one.`,
    );
    process.exitCode = 1;
  }
}

/** @param {string} node */
function handOver(node) {
  // The channel tells the child when this process is killed, so that nothing runs on without a terminal.
  const child = spawn(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], {
    stdio: ["inherit", "inherit", "inherit", "ipc"],
  });
  for (const signal of ["SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  // The terminal sends Ctrl-C to the child as well; it decides when to end.
  process.on("SIGINT", () => undefined);
  child.on("error", (error) => {
    console.error(`${node} cannot be started: ${error.message}. Run \`npm ci\` again.`);
    process.exitCode = 1;
  });
  child.on("exit", (code, signal) => {
    process.exit(signal === null ? (code ?? 1) : 1);
  });
}
