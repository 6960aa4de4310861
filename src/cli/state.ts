import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** What a development server tells the commands of the same checkout, so that they need no options. */
export type LocalState = {
  /** gRPC, host:port. */
  server: string;
  httpUrl: string;
  tenantId: string;
  apiKey: string;
  operatorKey: string;
  /** The user that commands act for when none is named. */
  userId: string;
  userToken: string;
};

export function stateFile(dataDir: string): string {
  return join(dataDir, "posthorn.json");
}

/** What was written last; undefined when nothing was, or it cannot be used. */
export function readState(dataDir: string): LocalState | undefined {
  try {
    const state = JSON.parse(readFileSync(stateFile(dataDir), "utf8")) as LocalState;
    return typeof state.server === "string" && typeof state.apiKey === "string" ? state : undefined;
  } catch {
    return undefined;
  }
}

/** Replaces it whole, so that a reader never sees half; it holds credentials and is for this user only. */
export function writeState(dataDir: string, state: LocalState): void {
  mkdirSync(dataDir, { recursive: true, mode: 0o711 });
  const file = stateFile(dataDir);
  const next = `${file}.${process.pid}`;
  writeFileSync(next, `${JSON.stringify(state, null, 2)}\n`, { mode: 0o600 });
  renameSync(next, file);
}
