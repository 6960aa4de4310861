import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

/**
 * Fetches a package and those of its dependencies that the system lacks, and unpacks them into `root`, which appears
 * complete or not at all. Nothing is installed: no root needed, no service started, nothing to remove but the directory.
 *
 * The system's package lists are used where they serve; else, as in a fresh container that has none, a private copy is
 * fetched for the purpose.
 *
 * @throws when apt cannot find or fetch the package.
 */
export async function unpackFromApt(name: string, root: string, signal: AbortSignal): Promise<void> {
  await mkdir(dirname(root), { recursive: true });
  const work = await mkdtemp(join(dirname(root), `${name}-`));
  try {
    const apt = aptIn(work, signal);
    await fetch(apt, name).catch(async () => {
      signal.throwIfAborted();
      const lists = join(work, "lists");
      await mkdir(join(lists, "partial"), { recursive: true });
      const withLists = (args: string[]) => apt(["-o", `Dir::State::lists=${lists}`, ...args]);
      await withLists(["update"]).catch(() => signal.throwIfAborted()); // A broken extra source need not matter.
      await fetch(withLists, name);
    });
    const tree = join(work, "tree");
    for (const file of await readdir(work)) {
      if (file.endsWith(".deb")) await run("dpkg-deb", ["-x", join(work, file), tree], { signal });
    }
    await rm(root, { recursive: true, force: true });
    await rename(tree, root).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOTEMPTY" && error.code !== "EEXIST") throw error; // Another run was quicker.
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

type Apt = (args: string[]) => Promise<string>;

/** Downloads into the current directory what installing the package would add to this system. */
async function fetch(apt: Apt, name: string): Promise<void> {
  const plan = await apt(["--simulate", "--no-install-recommends", "install", name]);
  const packages = [...plan.matchAll(/^Inst (\S+)/gm)].map((match) => match[1] ?? "");
  if (packages.length === 0) throw new Error(`apt-get has nothing to install for ${name}`);
  await apt(["download", ...packages]);
}

function aptIn(work: string, signal: AbortSignal): Apt {
  const own = ["-q", "-o", "Debug::NoLocking=1", "-o", `Dir::Cache=${join(work, "cache")}`];
  // As root, apt would fetch as a user who may not be able to enter this directory.
  if (process.getuid?.() === 0) own.push("-o", "APT::Sandbox::User=root");
  return async (args) => {
    await mkdir(join(work, "cache/archives/partial"), { recursive: true });
    const env = { ...process.env, LC_ALL: "C", DEBIAN_FRONTEND: "noninteractive" };
    const { stdout } = await run("apt-get", [...own, ...args], { cwd: work, env, signal, maxBuffer: 1 << 26 });
    return stdout;
  };
}
