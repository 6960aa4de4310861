import { execFile, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { cp, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { promisify } from "node:util";

const capture = promisify(execFile);

/** What a check amounts to. A check other than the test run counts as one test. */
export type Result = { passed: number; failed: number; skipped: string[] };

const PASSED: Result = { passed: 1, failed: 0, skipped: [] };
const FAILED: Result = { passed: 0, failed: 1, skipped: [] };

/** What `npm run gen` writes into proto/. */
const ADOPTED = ["proto/buf", "proto/grpc"];
const GENERATED = ["gen", ...ADOPTED];

/** A program that passes by exiting with 0; its output is shown as it comes. */
export async function program(root: string, name: string, args: readonly string[]): Promise<Result> {
  return (await exitCode(root, name, args)) === 0 ? PASSED : FAILED;
}

/** Runs a program that `npm ci` installed. Resolves with its exit code, or 127 where it cannot be run. */
export function exitCode(root: string, name: string, args: readonly string[]): Promise<number> {
  return new Promise((resolve) => {
    const child = spawn(join(root, "node_modules/.bin", name), args, { cwd: root, stdio: "inherit" });
    child.once("error", (error) => {
      console.error(error.message);
      resolve(127);
    });
    child.once("exit", (code) => resolve(code ?? 1));
  });
}

/** Generating again must change nothing: else somebody changed the contract, or gen/, and not the other. */
export async function generatedIsCurrent(root: string): Promise<Result> {
  const generated = async () =>
    new Map((await Promise.all(GENERATED.map((dir) => hashes(root, dir)))).flatMap((one) => [...one]));
  const before = await generated();
  if ((await exitCode(root, "node", ["src/dev/gen.ts"])) !== 0) return FAILED;
  const after = await generated();
  const changed = [...new Set([...before.keys(), ...after.keys()])].filter(
    (file) => before.get(file) !== after.get(file),
  );
  for (const file of changed) console.error(`${file} was not what \`npm run gen\` makes; it is now: commit it`);
  return changed.length === 0 ? PASSED : FAILED;
}

/**
 * The contract must not break clients of its previous state: of HEAD where proto/ has uncommitted changes, else of the commit
 * before the last one that touched it. A commit that breaks it on purpose says so with a `Contract-Break: <why>` line.
 */
export async function contractKept(root: string): Promise<Result> {
  const skip = (why: string): Result => ({ passed: 0, failed: 0, skipped: [`contract keeps its promises (${why})`] });
  const git = async (...args: string[]) =>
    (await capture("git", args, { cwd: root, maxBuffer: 1 << 26 })).stdout.trim();
  let base = "HEAD";
  try {
    if ((await git("--no-optional-locks", "status", "--porcelain", "--", "proto")) === "") {
      const last = await git("log", "-1", "--format=%H", "--", "proto");
      if (/^Contract-Break: \S/m.test(await git("log", "-1", "--format=%B", last)))
        return skip("the last commit breaks it on purpose");
      base = `${last}~1`;
    }
    await git("rev-parse", "--verify", `${base}:proto`);
  } catch {
    return skip("git knows no earlier contract");
  }
  const previous = await mkdtemp(join(tmpdir(), "posthorn-contract-"));
  try {
    const archive = join(previous, "contract.tar");
    await git("archive", "--output", archive, base, "proto");
    await capture("tar", ["-xf", archive, "-C", previous]);
    for (const same of ["buf.yaml", ...ADOPTED]) await cp(join(root, same), join(previous, same), { recursive: true });
    return await program(root, "buf", ["breaking", "--against", previous]);
  } finally {
    await rm(previous, { recursive: true, force: true });
  }
}

async function hashes(root: string, dir: string): Promise<Map<string, string>> {
  const entries = await readdir(join(root, dir), { recursive: true, withFileTypes: true }).catch(() => []);
  const found = new Map<string, string>();
  for (const entry of entries) {
    if (!entry.isFile()) continue;
    const file = join(entry.parentPath, entry.name);
    found.set(
      relative(root, file),
      createHash("sha256")
        .update(await readFile(file))
        .digest("hex"),
    );
  }
  return found;
}
