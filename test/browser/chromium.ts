import { execFile } from "node:child_process";
import { access, constants, readdir } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { type Browser, chromium } from "playwright-core";
import { unpackFromApt } from "#src/dev/apt.ts";

const run = promisify(execFile);

/** A Chromium that starts here. */
export type Chromium = { executablePath: string; env: Record<string, string> };

/** Beside the servers that an earlier run fetched. */
const ROOT = join(import.meta.dirname, "../../.cache/servers/chromium");
const FETCH_WITHIN_MS = 300_000;
const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
const FLAGS = [
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/**
 * Chromium from PATH, from what an earlier run unpacked, or from Debian's package, which is unpacked beside the checkout
 * and not installed. Undefined where none can be had or started; why is said on standard error.
 */
export async function findChromium(): Promise<Chromium | undefined> {
  const say = (why: unknown) => {
    const [line] = (why instanceof Error ? why.message : String(why)).trim().split("\n").slice(-1);
    process.stderr.write(`chromium: ${line}\n`);
  };
  const installed = await installedChromium();
  if (installed && (await starts(installed).catch(say))) return installed;
  if ((await unpackedChromium()) === undefined) {
    process.stderr.write("chromium is not installed: fetching Debian's package\n");
    await unpackFromApt("chromium", ROOT, AbortSignal.timeout(FETCH_WITHIN_MS)).catch(say);
  }
  const unpacked = await unpackedChromium();
  return unpacked && (await starts(unpacked).catch(say)) ? unpacked : undefined;
}

/** Starts it headless with a profile of its own. `trusted` are hashes of public keys whose certificates are believed. */
export function launch({ executablePath, env }: Chromium, trusted: readonly string[] = []): Promise<Browser> {
  const trust = trusted.length > 0 ? [`--ignore-certificate-errors-spki-list=${trusted.join(",")}`] : [];
  return chromium.launch({ executablePath, env, args: [...FLAGS, ...trust], timeout: 60_000 });
}

async function starts({ executablePath, env }: Chromium): Promise<true> {
  await run(executablePath, ["--no-sandbox", "--version"], { env, timeout: 60_000 });
  return true;
}

async function installedChromium(): Promise<Chromium | undefined> {
  for (const dir of (process.env.PATH ?? "").split(delimiter).filter((each) => each !== "")) {
    for (const name of NAMES) {
      const executablePath = join(dir, name);
      if (await executable(executablePath)) return { executablePath, env: environment() };
    }
  }
  return undefined;
}

/** The program itself: the script that Debian starts it by looks for it where it would be installed. */
async function unpackedChromium(): Promise<Chromium | undefined> {
  const executablePath = join(ROOT, "usr/lib/chromium/chromium");
  if (!(await executable(executablePath))) return undefined;
  const env = environment();
  const libraries = [...(await libraryDirs(join(ROOT, "usr/lib"))), ...(await libraryDirs(join(ROOT, "lib")))];
  if (libraries.length > 0) env.LD_LIBRARY_PATH = libraries.join(":");
  // Where the system has no fonts, some came along. Text cannot be laid out without any.
  if (await readable(join(ROOT, "etc/fonts/fonts.conf"))) env.FONTCONFIG_SYSROOT = ROOT;
  return { executablePath, env };
}

/** `<dir>/<architecture>-linux-gnu`, and what is below it: some libraries have a directory for their private ones. */
async function libraryDirs(dir: string): Promise<string[]> {
  const entries = (await readdir(dir).catch(() => [])).filter((name) => name.includes("-linux-"));
  const found = entries.map(async (name) => {
    const below = await readdir(join(dir, name), { withFileTypes: true });
    return [join(dir, name), ...below.filter((each) => each.isDirectory()).map((each) => join(dir, name, each.name))];
  });
  return (await Promise.all(found)).flat();
}

function environment(): Record<string, string> {
  return Object.fromEntries(Object.entries(process.env).filter((entry): entry is [string, string] => !!entry[1]));
}

function executable(file: string): Promise<boolean> {
  return permits(file, constants.X_OK);
}

function readable(file: string): Promise<boolean> {
  return permits(file, constants.R_OK);
}

function permits(file: string, mode: number): Promise<boolean> {
  return access(file, mode).then(
    () => true,
    () => false,
  );
}
