import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "#src/cli/run.ts";
import type { World } from "#src/cli/world.ts";

/** A command line run in this process, and what it wrote. */
export type Ran = { exitCode: number; out: string[]; err: string[] };

export type TestWorld = World &
  Disposable & {
    /** Runs a command line, split at spaces; words that hold spaces go into an array. */
    run(command: string | string[], signal?: AbortSignal, over?: Partial<World>): Promise<Ran>;
  };

/** A process of its own: empty environment, a data directory that is removed by `Symbol.dispose`. */
export function testWorld(over: Partial<World> = {}): TestWorld {
  const dataDir = mkdtempSync(join(tmpdir(), "posthorn-cli-"));
  let ids = 0;
  const world: World = {
    env: {},
    out: () => undefined,
    err: () => undefined,
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
    async run(command, signal = world.signal, over = {}) {
      const out: string[] = [];
      const err: string[] = [];
      const words = typeof command === "string" ? command.split(" ") : command;
      const exitCode = await run(words, {
        ...world,
        ...over,
        signal,
        out: (line) => {
          out.push(line);
          (over.out ?? world.out)(line);
        },
        err: (line) => {
          err.push(line);
          (over.err ?? world.err)(line);
        },
      });
      return { exitCode, out, err };
    },
    [Symbol.dispose]: () => rmSync(dataDir, { recursive: true, force: true }),
  };
}
