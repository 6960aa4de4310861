import { mkdirSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";

/** A data directory that is ours alone until disposed or until this process ends, however it ends. */
export type Slot = Disposable & { dir: string };

const MOST_SLOTS = 9;

/**
 * Claims `<dataDir>/services`, or while other runs hold that, `services-2` to `services-9`: a second run in one checkout
 * gets servers and data of its own, so that neither depends on how long the other lives.
 */
export function claimSlot(dataDir: string): Slot {
  // Others may enter but not list: Postgres may have to run as another user than we do.
  mkdirSync(dataDir, { recursive: true, mode: 0o711 });
  for (let n = 1; n <= MOST_SLOTS; n++) {
    const dir = join(realpathSync(dataDir), slotName(n));
    mkdirSync(dir, { recursive: true, mode: 0o711 });
    const lock = tryLock(join(dir, "lock"));
    if (lock) return { dir, [Symbol.dispose]: () => lock.close() };
  }
  throw new Error(`${MOST_SLOTS} runs already use ${dataDir}; stop one of them`);
}

/** The directories in which servers may be running, newest claim last. */
export function slotDirs(dataDir: string): string[] {
  return Array.from({ length: MOST_SLOTS }, (_, i) => join(dataDir, slotName(i + 1)));
}

/**
 * Takes a lock that the operating system drops with the process: an exclusive transaction on an empty SQLite file, which
 * is the one portable file lock Node offers. A lock file with a pid in it would have to guess whether that pid is stale.
 */
export function tryLock(file: string): { close(): void } | undefined {
  const database = new DatabaseSync(file, { timeout: 0 });
  try {
    database.exec("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE"); // Without a second file beside it.
    return database;
  } catch (error) {
    database.close();
    if (error instanceof Error && /locked/.test(error.message)) return undefined;
    throw error;
  }
}

function slotName(n: number): string {
  return n === 1 ? "services" : `services-${n}`;
}
