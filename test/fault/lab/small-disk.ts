import { execFile } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { open, rm, rmdir, statfs } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

/** A disk of its own, held in memory, that can be filled and emptied. */
export type SmallDisk = AsyncDisposable & {
  readonly dir: string;
  /** Leaves not one block. */
  fill(): Promise<void>;
  /** Gives back what `fill` took. */
  empty(): Promise<void>;
};

/** Blocks of zeros without end. */
function* endless(size: number): Generator<Buffer> {
  const zeros = Buffer.alloc(size);
  for (;;) yield zeros;
}

function unlessFull(error: NodeJS.ErrnoException): void {
  if (error.code !== "ENOSPC") throw error;
}

/** Mounts one, which takes root on Linux. */
export async function smallDisk(megabytes: number): Promise<SmallDisk> {
  const dir = mkdtempSync(join(tmpdir(), "posthorn-disk-"));
  try {
    await run("mount", ["-t", "tmpfs", "-o", `size=${megabytes}m,mode=0755`, "tmpfs", dir]);
  } catch (error) {
    await rmdir(dir);
    throw error;
  }
  const ballast = join(dir, "ballast");
  return {
    dir,
    async fill() {
      const { bsize } = await statfs(dir);
      const file = await open(ballast, "w");
      try {
        // Coarsely, and then to the last block; others write too.
        for (const size of [2 ** 20, bsize]) await file.appendFile(endless(size)).catch(unlessFull);
      } finally {
        await file.close();
      }
    },
    empty: () => rm(ballast, { force: true }),
    async [Symbol.asyncDispose]() {
      await run("umount", ["-l", dir]);
      await rmdir(dir);
    },
  };
}
