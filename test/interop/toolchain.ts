import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { accessSync, constants } from "node:fs";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join, relative } from "node:path";
import { promisify } from "node:util";
import { isHere, type Tool } from "#src/dev/toolchains.ts";
import { isUnreachable } from "./unreachable.ts";

const run = promisify(execFile);
const root = join(import.meta.dirname, "../..");

/** Where the programs of `npm ci` are, buf among them. */
const PATH = [join(root, "node_modules/.bin"), process.env.PATH].join(delimiter);

/** A program of a language, built here; or what this machine lacks for it. */
export type Built =
  | { readonly kind: "built"; readonly directory: string }
  | { readonly kind: "missing"; readonly what: string };

/**
 * Runs `build.sh` of `test/interop/<language>` in a copy of that directory under `.cache/interop`, unless nothing of it nor of
 * the contract has changed since it last succeeded. Its tools and what they download are pinned by the files there.
 *
 * @throws when it fails for another reason than a tool or a registry that is not to be had.
 */
export async function build(language: string, tools: readonly Tool[]): Promise<Built> {
  for (const tool of tools)
    if (!(await isHere(tool, { ...process.env, PATH }))) return { kind: "missing", what: `${tool.name} or newer` };
  const sources = join(import.meta.dirname, language);
  const directory = join(root, ".cache/interop", language);
  const stamp = join(directory, ".built");
  const current = await hashOf([sources, join(root, "proto")]);
  if ((await readFile(stamp, "utf8").catch(() => "")) === current) return { kind: "built", directory };
  await mkdir(directory, { recursive: true });
  await rm(stamp, { force: true });
  await cp(sources, directory, { recursive: true });
  try {
    // Go would ask git about a checkout that may be somebody else's.
    const env = { ...process.env, PATH, GOFLAGS: "-buildvcs=false" };
    await run("sh", ["build.sh"], { cwd: directory, env, maxBuffer: 1 << 26 });
  } catch (error) {
    const said = outputOf(error);
    if (await isUnreachable(said, () => getsWhatIsKnown(language)))
      return { kind: "missing", what: `what ${language} needs from its package registry` };
    throw new Error(`build.sh of ${language} failed:\n${said}`);
  }
  await writeFile(stamp, current);
  return { kind: "built", directory };
}

/** `go install` of one program into `.cache/interop`, unless it is there. */
export async function goInstall(program: string, module: string): Promise<string | undefined> {
  const bin = join(root, ".cache/interop/bin");
  const installed = join(bin, program);
  if (!isExecutable(installed)) {
    if (!isOnPath("go")) return undefined;
    const env = { ...process.env, GOBIN: bin, GOFLAGS: "", CGO_ENABLED: "0" };
    try {
      await run("go", ["install", module], { env, maxBuffer: 1 << 26 });
    } catch (error) {
      if (await isUnreachable(outputOf(error), () => getsWhatIsKnown("go"))) return undefined;
      throw error;
    }
  }
  return installed;
}

export function isOnPath(program: string): boolean {
  return PATH.split(delimiter).some((directory) => isExecutable(join(directory, program)));
}

/** Something of each registry that is there to stay, got past whatever this machine keeps. */
const KNOWN: Readonly<Record<string, (directory: string) => [command: string, ...args: string[]]>> = {
  python: (directory) => [
    ...([
      join(root, ".cache/interop/python/venv/bin/python"),
      "-m",
      "pip",
      "download",
      "--quiet",
      "--no-cache-dir",
      "--no-deps",
    ] as const),
    ...["--dest", directory, "six==1.16.0"],
  ],
  go: (directory) => [
    "env",
    `GOMODCACHE=${directory}`,
    "GOFLAGS=-modcacherw",
    "go",
    "mod",
    "download",
    "rsc.io/quote@v1.5.2",
  ],
  java: (directory) => [
    ...(["mvn", "--batch-mode", "--quiet", `-Dmaven.repo.local=${directory}`] as const),
    ...["dependency:get", "-Dartifact=junit:junit:4.13.2", "-Dtransitive=false"],
  ],
};

/** Whether a language's registry gives what it certainly has. */
async function getsWhatIsKnown(language: string): Promise<boolean> {
  const directory = await mkdtemp(join(tmpdir(), "posthorn-known-"));
  try {
    const [command, ...args] = KNOWN[language]?.(directory) ?? ["false"];
    await run(command, args, { cwd: directory, env: { ...process.env, PATH }, timeout: 120_000, maxBuffer: 1 << 26 });
    return true;
  } catch {
    return false;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function hashOf(directories: readonly string[]): Promise<string> {
  const hash = createHash("sha256");
  for (const directory of directories) {
    const entries = await readdir(directory, { recursive: true, withFileTypes: true });
    const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
    for (const file of files.sort()) hash.update(`${relative(root, file)}\0`).update(await readFile(file));
  }
  return hash.digest("hex");
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function outputOf(error: unknown): string {
  const { stdout = "", stderr = "" } = error as { stdout?: string; stderr?: string };
  return `${stdout}${stderr}` || String(error);
}
