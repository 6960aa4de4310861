import { execFile } from "node:child_process";
import { stat } from "node:fs/promises";
import { promisify } from "node:util";

const run = promisify(execFile);

/** Another user than root to run a server as. */
export type OtherUser = {
  uid: number;
  gid: number;
  /** Goes before a command line; ends in exec, so signals and pids are the server's own. */
  prefix: readonly string[];
};

/** `nobody` first: it exists everywhere, and unlike `postgres` it owns nobody's databases. */
const CANDIDATES = ["nobody", "postgres", "daemon"];

/**
 * Lets the server pass through directories that only root may enter, such as a checkout under /root. Without the secure
 * bit, access(2), which initdb asks about its own files, would ignore the capability of a process that is not root.
 */
const THROUGH_CLOSED_PARENTS = [
  "--securebits=+no_setuid_fixup",
  "--inh-caps=+dac_override",
  "--ambient-caps=+dac_override",
];

/**
 * Finds a user under whom Postgres, which refuses to be root, can run from `binary` in `dir`: the owner of `dir` when that
 * is not root, else one that exists on every system. Needs `setpriv` (util-linux, part of every glibc distribution).
 *
 * @throws with what to do instead, when no user works.
 */
export async function otherUser(binary: string, dir: string): Promise<OtherUser> {
  const owner = await stat(dir);
  const users = owner.uid === 0 ? [] : [{ uid: owner.uid, gid: owner.gid }];
  for (const name of CANDIDATES) {
    const ids = await idsOf(name);
    if (ids) users.push(ids);
  }
  for (const caps of [[], THROUGH_CLOSED_PARENTS]) {
    for (const { uid, gid } of users) {
      const prefix = ["setpriv", `--reuid=${uid}`, `--regid=${gid}`, "--clear-groups", ...caps, "--"];
      if (await reaches(prefix, binary, dir)) return { uid, gid, prefix };
    }
  }
  throw new Error(
    `Postgres does not run as root, and no other user can reach ${binary} and ${dir}. ` +
      "Run as another user, move the checkout to a directory that others may enter, or set POSTHORN_DATABASE_URL.",
  );
}

async function reaches(prefix: readonly string[], binary: string, dir: string): Promise<boolean> {
  const [program, ...args] = [...prefix, "sh", "-c", 'test -x "$1" && test -x "$2"', "sh", binary, dir];
  return run(program ?? "", args).then(
    () => true,
    () => false,
  );
}

async function idsOf(name: string): Promise<{ uid: number; gid: number } | undefined> {
  try {
    const [uid, gid] = await Promise.all([run("id", ["-u", name]), run("id", ["-g", name])]);
    return { uid: Number(uid.stdout), gid: Number(gid.stdout) };
  } catch {
    return undefined;
  }
}
