import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "#src/cli/run.ts";
import type { World } from "#src/cli/world.ts";

/** A command line run in this process, and what it wrote. */
export type Ran = { exitCode: number; out: string[]; err: string[] };

export type TestWorld = World & {
  written: { out: string[]; err: string[] };
  /** Runs a command line, split at spaces; words that hold spaces go into an array. */
  run(command: string | string[], signal?: AbortSignal): Promise<Ran>;
};

/** A process of its own: empty environment, a data directory that is removed by `Symbol.dispose`. */
export function testWorld(over: Partial<World> = {}): TestWorld & Disposable {
  const dataDir = mkdtempSync(join(tmpdir(), "posthorn-cli-"));
  const written = { out: [] as string[], err: [] as string[] };
  let ids = 0;
  const world: World = {
    env: {},
    out: (line) => void written.out.push(line),
    err: (line) => void written.err.push(line),
    stdin: (async function* () {})(),
    signal: new AbortController().signal,
    now: () => new Date(),
    random: () => 0,
    newId: () => `00000000-0000-4000-8000-${String(++ids).padStart(12, "0")}`,
    colour: false,
    columns: 120,
    dataDir,
    ...over,
  };
  return {
    ...world,
    written,
    async run(command, signal = world.signal) {
      const out: string[] = [];
      const err: string[] = [];
      const words = typeof command === "string" ? command.split(" ") : command;
      const exitCode = await run(words, {
        ...world,
        signal,
        out: (line) => {
          out.push(line);
          world.out(line);
        },
        err: (line) => {
          err.push(line);
          world.err(line);
        },
      });
      return { exitCode, out, err };
    },
    [Symbol.dispose]: () => rmSync(dataDir, { recursive: true, force: true }),
  };
}
