import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";

export const README = readFileSync(join(import.meta.dirname, "../../README.md"), "utf8");

export type Block = { language: string; text: string };

/** The README's fenced blocks, in their order. */
export const blocks: readonly Block[] = [...README.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].map(
  ([, language = "", text = ""]) => ({ language, text }),
);

/**
 * The `npx posthorn …` lines of a block as words, without "posthorn", as the shell of who copies them would split them.
 * Everything else in the block has to be something that does nothing.
 */
export function posthornLines({ text }: Block): string[][] {
  const script = `set -eu\nnpx() { printf '%s\\0' "$@"; printf '\\n'; }\n${text}`;
  const { status, stdout, stderr } = spawnSync("bash", ["-c", script], { encoding: "utf8" });
  if (status !== 0) throw new Error(`no lines of a shell: ${stderr}\n${text}`);
  return stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const [program, ...words] = line.split("\0").slice(0, -1);
      if (program !== "posthorn") throw new Error(`npx ${program} is not posthorn`);
      return words;
    });
}
