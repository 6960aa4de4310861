import { execFile } from "node:child_process";
import { access, constants, mkdir, readdir } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { unpackFromApt } from "./apt.ts";

const run = promisify(execFile);

export type ServerProgram = {
  program: "nats-server" | "redis-server";
  /** Its name with package managers. */
  apt: string;
  brew: string;
  /** Where `go install` gets it, when it is written in Go. */
  goModule?: string;
  /** The variable that makes it unnecessary. */
  instead: string;
};

export const NATS_SERVER: ServerProgram = {
  program: "nats-server",
  apt: "nats-server",
  brew: "nats-server",
  goModule: "github.com/nats-io/nats-server/v2@latest",
  instead: "POSTHORN_NATS_URL",
};

export const REDIS_SERVER: ServerProgram = {
  program: "redis-server",
  apt: "redis-server",
  brew: "redis",
  instead: "POSTHORN_REDIS_URL",
};

/** A server that can be run: the start of its command line, absolute. */
export type InstalledServer = { command: readonly string[] };

export type InstallOptions = {
  /** Where unpacked and built programs are kept between runs. */
  toolsDir: string;
  log: (line: string) => void;
  signal: AbortSignal;
};

/** PATH of an ordinary user lacks the first three, where Debian and others put servers. */
const USUAL_PLACES = ["/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin"];

/**
 * Finds servers on this machine, or gets them: from PATH, from what an earlier run fetched, from Debian's packages
 * (unpacked beside the checkout: needs no root, and starts no system service), from brew, or by a Go toolchain.
 *
 * @returns what gives each of those wanted.
 * @throws one line that says which command to run, when any could not be had.
 */
export async function installedServers(
  wanted: readonly ServerProgram[],
  options: InstallOptions,
): Promise<(program: ServerProgram) => InstalledServer> {
  const found = new Map<ServerProgram, InstalledServer>();
  await Promise.all(
    wanted.map(async (each) => {
      const installed = await installedServer(each, options);
      if (installed) found.set(each, installed);
    }),
  );
  const missing = wanted.filter((each) => !found.has(each));
  if (missing.length > 0) {
    const names = missing.map((each) => each.program).join(" and ");
    const instead = missing.map((each) => each.instead).join(" and ");
    throw new Error(`${names} missing; run \`${byHand(missing)}\`, or set ${instead} to what runs already`);
  }
  return (program) => {
    const installed = found.get(program);
    if (!installed) throw new Error(`${program.program} was not asked for`);
    return installed;
  };
}

async function installedServer(wanted: ServerProgram, options: InstallOptions): Promise<InstalledServer | undefined> {
  const inPath = await firstExecutable([...(process.env.PATH ?? "").split(delimiter), ...USUAL_PLACES], wanted.program);
  if (inPath) return { command: [inPath] };
  const root = join(options.toolsDir, wanted.program);
  const earlier = await unpackedServer(root, wanted.program);
  if (earlier) return earlier;
  for (const source of [viaApt, viaBrew, viaGo]) {
    const found = await source(wanted, root, options).catch((error: unknown) => {
      options.signal.throwIfAborted();
      options.log(`${wanted.program}: ${lastLine(error)}`);
      return undefined;
    });
    if (found) return found;
  }
  return undefined;
}

/** A server in an unpacked tree; libraries that came with it are put on the loader's path. */
async function unpackedServer(root: string, program: string): Promise<InstalledServer | undefined> {
  const file = await firstExecutable([join(root, "usr/bin"), join(root, "usr/sbin")], program);
  if (!file) return undefined;
  const libraries = (await Promise.all(["lib", "usr/lib"].map((dir) => multiarchDirs(join(root, dir))))).flat();
  if (libraries.length === 0) return { command: [file] };
  return { command: ["env", `LD_LIBRARY_PATH=${libraries.join(":")}`, file] };
}

async function viaApt(wanted: ServerProgram, root: string, { log, signal }: InstallOptions) {
  if (!(await onPath("apt-get")) || !(await onPath("dpkg-deb"))) return undefined;
  log(`${wanted.program} is not installed: fetching Debian's package`);
  await unpackFromApt(wanted.apt, root, signal);
  return unpackedServer(root, wanted.program);
}

async function viaBrew(wanted: ServerProgram, _root: string, { log, signal }: InstallOptions) {
  const brew = await onPath("brew");
  if (!brew) return undefined;
  log(`${wanted.program} is not installed: running brew install ${wanted.brew}`);
  await run(brew, ["install", wanted.brew], { signal, maxBuffer: 1 << 26 });
  const { stdout } = await run(brew, ["--prefix"]);
  const file = await firstExecutable([join(stdout.trim(), "bin")], wanted.program);
  return file ? { command: [file] } : undefined;
}

async function viaGo(wanted: ServerProgram, root: string, { log, signal }: InstallOptions) {
  const go = (await onPath("go")) ?? (await firstExecutable(["/usr/local/go/bin"], "go"));
  if (!go || !wanted.goModule) return undefined;
  log(`${wanted.program} is not installed: building it with Go, a minute or two`);
  const bin = join(root, "usr/bin");
  await mkdir(bin, { recursive: true });
  await run(go, ["install", wanted.goModule], { signal, env: { ...process.env, GOBIN: bin }, maxBuffer: 1 << 26 });
  return unpackedServer(root, wanted.program);
}

function byHand(missing: readonly ServerProgram[]): string {
  if (process.platform === "darwin") return `brew install ${missing.map((each) => each.brew).join(" ")}`;
  return `sudo apt-get install ${missing.map((each) => each.apt).join(" ")}`;
}

function lastLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).trim().split("\n").at(-1) ?? "";
}

function onPath(program: string): Promise<string | undefined> {
  return firstExecutable((process.env.PATH ?? "").split(delimiter), program);
}

async function firstExecutable(dirs: readonly string[], program: string): Promise<string | undefined> {
  for (const dir of dirs) {
    if (dir === "") continue;
    const file = join(dir, program);
    const usable = await access(file, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (usable) return file;
  }
  return undefined;
}

async function multiarchDirs(dir: string): Promise<string[]> {
  const entries = await readdir(dir).catch(() => []);
  return entries.filter((name) => name.includes("-linux-")).map((name) => join(dir, name));
}
