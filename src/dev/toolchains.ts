// `node src/dev/toolchains.ts`, for .ci/run: what clients in other languages are built with, and what reads the alert rules.
// Installs what this machine lacks, where it may: as root, with apt. One line names each that tests then go without; it
// never fails.
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { fetchPromtool } from "./promtool.ts";

const run = promisify(execFile);

/** A command that says its version, the least that will do, as people say it and as a number, and its Debian package. */
export type Tool = {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly version: RegExp;
  readonly atLeast: number;
  readonly apt: string;
  /** How apt tells the same number of what it would install, where that may be too old. */
  readonly candidate?: RegExp;
};

/** Go fetches the release that a go.mod asks for by itself from 1.21 on. */
export const GO: Tool = {
  ...{ name: "Go 1.21", command: "go", args: ["version"], version: /go1\.(\d+)/, atLeast: 21 },
  ...{ apt: "golang-go", candidate: /^Inst golang-go \((?:\d+:)?1\.(\d+)/m },
};
export const JDK: Tool = {
  ...{ name: "a JDK 17", command: "javac", args: ["-version"], version: /javac (\d+)/, atLeast: 17 },
  ...{ apt: "default-jdk-headless", candidate: /^Inst default-jdk-headless \((?:\d+:)?1\.(\d+)/m },
};
export const MAVEN: Tool = {
  ...{ name: "Maven 3", command: "mvn", args: ["--version"], version: /Apache Maven (\d+)/, atLeast: 3, apt: "maven" },
};
export const PYTHON: Tool = {
  ...{ name: "Python 3.10", command: "python3", args: ["--version"], version: /Python 3\.(\d+)/, atLeast: 10 },
  ...{ apt: "python3", candidate: /^Inst python3 \(3\.(\d+)/m },
};
export const VENV: Tool = {
  ...{ name: "Python's venv", command: "python3", args: ["-c", "import ensurepip, venv; print('venv 1')"] },
  ...{ version: /venv (\d)/, atLeast: 1, apt: "python3-venv" },
};
export const OPENSSL: Tool = {
  ...{ name: "OpenSSL", command: "openssl", args: ["version"], version: /SSL (\d+)/, atLeast: 1, apt: "openssl" },
};
export const CURL: Tool = {
  ...{ name: "curl", command: "curl", args: ["--version"], version: /curl (\d+)/, atLeast: 7, apt: "curl" },
};

const TOOLS = [GO, JDK, MAVEN, PYTHON, VENV, OPENSSL, CURL];

/** Looking for packages and fetching them; then unpacking them, which is better not cut short. */
const FETCH_MS = 180_000;
const INSTALL_MS = 180_000;

/** Whether a tool is here, and new enough. Total. */
export async function isHere(tool: Tool, env: NodeJS.ProcessEnv = process.env): Promise<boolean> {
  try {
    const { stdout, stderr } = await run(tool.command, tool.args, { env });
    return isEnough(tool.version.exec(stdout + stderr), tool);
  } catch {
    return false;
  }
}

function isEnough(found: RegExpExecArray | null, { atLeast }: Tool): boolean {
  return found !== null && Number(found[1]) >= atLeast;
}

/** What the installing needs; `apt` runs apt-get and answers what it printed. */
export type Machine = {
  isRoot: boolean;
  isHere(tool: Tool): Promise<boolean>;
  apt(args: readonly string[], withinMs: number): Promise<string>;
  log(line: string): void;
};

/** Installs what is missing of the tools; answers those that still are. */
export async function provide(tools: readonly Tool[], { isRoot, isHere, apt, log }: Machine): Promise<Tool[]> {
  const without: Tool[] = [];
  const give = (tool: Tool, why: string) => {
    without.push(tool);
    log(`goes without ${tool.name}: ${why}`);
  };
  const missing: Tool[] = [];
  for (const tool of tools) if (!(await isHere(tool))) missing.push(tool);
  if (missing.length === 0) return [];
  if (!isRoot) {
    for (const tool of missing) give(tool, `not installed, and only root may (apt-get install ${tool.apt})`);
    return without;
  }
  const until = performance.now() + FETCH_MS;
  const left = () => Math.max(1, Math.ceil(until - performance.now()));
  const wanted: Tool[] = [];
  // Where the lists are old or a source of them is broken, the others may serve.
  await apt(["-qq", "update"], left()).catch(() => undefined);
  for (const tool of missing) {
    const plan = await apt(["-qq", "--simulate", "--no-install-recommends", "install", tool.apt], left()).catch(
      (error: unknown) => error,
    );
    if (typeof plan !== "string") give(tool, `apt-get cannot install ${tool.apt}: ${lastLine(plan)}`);
    else if (tool.candidate !== undefined && !isEnough(tool.candidate.exec(plan), tool))
      give(tool, `${tool.apt} of apt-get is older`);
    else wanted.push(tool);
  }
  if (wanted.length === 0) return without;
  const install = ["-qq", "-y", "--no-install-recommends", "install", ...wanted.map((tool) => tool.apt)];
  const failed = await apt(["--download-only", ...install], left())
    .then(() => apt(install, INSTALL_MS))
    .then(
      () => undefined,
      (error: unknown) => lastLine(error),
    );
  for (const tool of wanted) {
    if (await isHere(tool)) log(`installed ${tool.name}`);
    else give(tool, failed ?? `${tool.apt} does not bring it`);
  }
  return without;
}

function lastLine(error: unknown): string {
  const { stderr = "" } = error as { stderr?: string };
  const text = stderr.trim() || (error instanceof Error ? error.message : String(error));
  return text.trim().split("\n").at(-1) ?? "";
}

async function aptGet(args: readonly string[], withinMs: number): Promise<string> {
  const env = { ...process.env, LC_ALL: "C", DEBIAN_FRONTEND: "noninteractive" };
  const all = ["-o", "DPkg::Lock::Timeout=60", ...args];
  const { stdout } = await run("apt-get", all, { env, timeout: withinMs, maxBuffer: 1 << 26 });
  return stdout;
}

if (import.meta.main) {
  const isRoot = process.getuid?.() === 0;
  const log = (line: string) => console.log(line);
  await provide(TOOLS, { isRoot, isHere: (tool) => isHere(tool), apt: aptGet, log });
  await fetchPromtool(log, AbortSignal.timeout(FETCH_MS));
}
