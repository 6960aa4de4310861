// The README's commands, typed one after the other as by somebody who has just begun, and what becomes of all others.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { startServing } from "./cli/serving.ts";
import type { Ran } from "./cli/world.ts";
import { type Block, blocks, posthornLines, README } from "./support/readme.ts";
import { testServices } from "./support/services.ts";

const services = await testServices();
const serving = await startServing(services);
afterAll(() => serving[Symbol.asyncDispose]());

/** The tutorial of typed payloads needs files, and is a test of readme.test.ts. */
const isTyped = ({ language, text }: Block) =>
  language === "sh" && /^npx posthorn /m.test(text) && !text.includes("npx buf build");
const typed = blocks.filter(isTyped);

test.for(typed.map((block) => [posthornLines(block)[0]?.slice(0, 2).join(" ") ?? "", block] as const))(
  "`posthorn %s` and what follows it work on a platform that has just been started",
  async ([, block]) => {
    const said: string[] = [];
    using tail = new Tail();
    for (const words of posthornLines(block)) {
      const [command = ""] = words;
      if (command === "tail") await tail.start();
      else {
        const { exitCode, out, err } = await serving.world.run(words);
        expect([exitCode, ...err].join("\n"), words.join(" ")).toMatch(/^0/);
        said.push(...out);
        if (tail.running && command === "send") await tail.shows(words[words.indexOf("-t") + 1] ?? "");
      }
    }
    for (const [begins, words] of SAID) if (block.text.includes(begins)) expect(said.join("\n")).toContain(words);
  },
);

/** What the README says that a user sees, of the block with these words. */
const SAID: readonly [block: string, words: string][] = [
  ["npx posthorn inbox", "Hello, Ada"],
  ["--type HABIT_REMINDER", "batched"],
  ["npx posthorn batches list --user ada", "2 of 5"],
  ["npx posthorn deadlines set", "reminds: 2"],
];

test("every other command in it is run by a test, or it is said why not", () => {
  const lines = blocks
    .filter((block) => block.language === "sh" && !isTyped(block))
    .flatMap(({ text }) => text.replaceAll("\\\n", " ").split("\n"))
    .filter((line) => /^\S/.test(line)); // What is indented goes on with a command.
  const inline = [...README.replaceAll(/^```[\s\S]*?^```$/gm, "").matchAll(/`([^`]+)`/g)]
    .map(([, code = ""]) => code)
    .filter((code) => PROGRAMS.test(code.replace(/^export \w+=\$\(/, "")));
  const left = [...lines, ...inline].filter((command) => !ELSEWHERE.some(([begins]) => command.startsWith(begins)));
  expect(left).toEqual([]);
  const unused = ELSEWHERE.filter(([begins]) => ![...lines, ...inline].some((command) => command.startsWith(begins)));
  expect(unused).toEqual([]);
  for (const [, where] of ELSEWHERE) {
    const file = /^(test|\.ci)\/[\w./-]+/.exec(where)?.[0];
    if (file !== undefined) expect(existsSync(join(import.meta.dirname, "..", file)), file).toBe(true);
  }
});

const PROGRAMS = /^(npm|npx|node|buf|mvn|pip|go|docker|posthorn) /;

/** Commands by how they begin, and where they are run, or why they are not. */
const ELSEWHERE: readonly [begins: string, where: string][] = [
  ["npm ci && npm run demo", ".ci/run"],
  ["npm ci && npm start", "test/cli/start.test.ts, but for npm, which .ci/run asks"],
  ["npm ci", ".ci/run"],
  ["npm start", "test/cli/start.test.ts"],
  ["npm run demo", ".ci/run"],
  ["npm test", ".ci/run"],
  ["npm run check", "not run: a part of npm test"],
  ["npm run test:faults", "test/fault/faults.test.ts runs short rounds of it"],
  ["npm run bench", "not run: measures for an hour, and needs a quiet machine"],
  ["npm run gen", "not run: what it writes is compared in npm test"],
  ["npm run migrate", "test/cli/start.test.ts"],
  ["npm run dev:services", "test/dev/services.test.ts"],
  ["npx node send.ts", "test/readme.test.ts"],
  ["npx node subscribe.ts", "test/readme.test.ts"],
  ["npx drizzle-kit generate", "not run: asks who adds a table what was meant"],
  ["npx posthorn serve", "test/cli/start.test.ts"],
  ["npx posthorn migrate", "test/cli/start.test.ts"],
  ["npx posthorn send", "test/cli/commands.unit.test.ts"],
  ["npx posthorn types diff", "test/cli/commands.unit.test.ts"],
  ["npx posthorn types load", "test/cli/commands.unit.test.ts"],
  ["npx posthorn types push", "test/readme.test.ts"],
  ["npx posthorn types show", "test/readme.test.ts"],
  ["npx posthorn types check", "test/readme.test.ts"],
  ["npx posthorn types codegen", "test/cli/commands.unit.test.ts"],
  ["npx posthorn types diff", "test/cli/commands.unit.test.ts"],
  ["npx buf build", "test/readme.test.ts"],
  ["buf build", "test/readme.test.ts"],
  ["buf breaking", "not run: what it says of the same is compared in test/types/payload/breaks.unit.test.ts"],
  ["npx posthorn batches close", "test/cli/commands.unit.test.ts"],
  ["npx posthorn confirm", "test/cli/commands.unit.test.ts"],
  ["npx posthorn timing", "test/cli/commands.unit.test.ts"],
  ["npx posthorn explain", "test/cli/start.test.ts"],
  ["npx posthorn what-if", "test/cli/start.test.ts"],
  ["posthorn confirm", "test/cli/commands.unit.test.ts"],
  ["posthorn batches list", "test/cli/commands.unit.test.ts"],
  ["posthorn send", "test/cli/commands.unit.test.ts"],
  ["export TOKEN=$(npx posthorn token ada)", "test/readme.test.ts"],
  ["curl -s", "test/readme.test.ts"],
  ["grpcurl -plaintext", "test/readme.test.ts, with another client"],
  ["printf ", "test/readme.test.ts"],
  ["npx buf curl", "test/readme.test.ts"],
  ["buf curl", "test/readme.test.ts"],
  ["pip install", "test/interop/python/build.sh"],
  ["python -m grpc_tools.protoc", "test/interop/python/build.sh"],
  ["go get -tool", "test/interop/go/build.sh"],
  ["buf generate", "test/interop/go/build.sh"],
  ["go mod tidy", "not run: what it adds stands in test/interop/go/go.mod"],
  ["mvn process-classes", "test/interop/java/build.sh"],
  ["docker run", "not run: there is no Docker in CI"],
  ["POSTHORN_OTLP_ENDPOINT=", "test/readme.test.ts looks at the settings"],
  ["TRACES_OTLP_ENDPOINT=", "test/readme.test.ts looks at the settings"],
];

/** `npx posthorn tail` in another terminal. */
class Tail {
  #stop = new AbortController();
  #lines: string[] = [];
  #ended: Promise<Ran> | undefined;

  get running(): boolean {
    return this.#ended !== undefined;
  }

  async start(): Promise<void> {
    const out = (line: string) => void this.#lines.push(line);
    this.#ended = serving.world.run("tail", this.#stop.signal, { out });
    await this.shows("caught up");
  }

  shows(words: string): Promise<void> {
    return expect.poll(() => this.#lines.join("\n"), { timeout: 30_000 }).toContain(words);
  }

  [Symbol.dispose](): void {
    this.#stop.abort();
  }
}
