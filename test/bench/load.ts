import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import type { Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { type Child, nodeChild, startChild } from "./child.ts";
import { run } from "./run.ts";

/** What a load client is to do; the same type as `job` in client/main.go, which says what each field means. */
export type Job = {
  kind: "accept" | "end-to-end" | "paced" | "flood" | "broadcast" | "resume" | "history";
  address: string;
  apiKey: string;
  protocol: "grpc" | "socket.io" | "nchan";
  connections: number;
  streamConnections: number;
  callers: number;
  users: number;
  prefix?: string;
  batch: number;
  window: number;
  priority?: Priority;
  perSecond?: number;
  count?: number;
  hold?: boolean;
  warmupMs: number;
  measureMs: number;
  drainMs: number;
};

/** A job without what only the system under load knows. */
export type Load = Omit<Job, "address" | "apiKey" | "protocol">;

/** A program that makes load. The one in Go is light; the one in Node takes a good part of a core from the server. */
export type LoadClient = {
  readonly name: "go" | "node";
  readonly protocols: readonly Job["protocol"][];
  readonly kinds: readonly Job["kind"][];
  start(say: (line: string) => void, signal: AbortSignal): Child;
};

const HERE = import.meta.dirname;
const BUILT = join(HERE, "../../.cache/bench");

/**
 * The Go client, built unless it is there already; without a Go toolchain, or where its modules cannot be had, the one in
 * Node.
 */
export async function loadClient(
  wanted: "go" | "node" | undefined,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<LoadClient> {
  if (wanted === "node") return inNode;
  try {
    const program = await builtClient(say, signal);
    return {
      name: "go",
      protocols: ["grpc", "socket.io", "nchan"],
      kinds: ["accept", "end-to-end", "paced", "flood", "broadcast", "resume", "history"],
      start: (say, signal) => startChild({ name: "client", command: program, args: [], say, signal }),
    };
  } catch (error) {
    signal.throwIfAborted();
    if (wanted === "go") throw error;
    const reason = error instanceof Error ? error.message : String(error);
    say(`the load client is Node's, which distorts: the one in Go cannot be built (${reason})`);
    return inNode;
  }
}

const inNode: LoadClient = {
  name: "node",
  protocols: ["grpc"],
  kinds: ["accept", "end-to-end"],
  start: (say, signal) => nodeChild(join(HERE, "client-node.ts"), { name: "client", say, signal }),
};

async function builtClient(say: (line: string) => void, signal: AbortSignal): Promise<string> {
  const sources = join(HERE, "client");
  const all = await readdir(sources, { recursive: true });
  const names = all.filter((name) => /\.(go|mod|sum)$/.test(name)).sort();
  const hash = createHash("sha256");
  for (const name of names) hash.update(name).update(await readFile(join(sources, name)));
  const program = join(BUILT, `client-${hash.digest("hex").slice(0, 16)}`);
  if (existsSync(program)) return program;
  say("building the load client, once");
  await mkdir(BUILT, { recursive: true });
  const fresh = `${program}.${process.pid}`;
  // The toolchain that is there, or none: it would fetch another by itself.
  await run("go", ["build", "-trimpath", "-o", fresh, "."], {
    cwd: sources,
    env: { ...process.env, GOTOOLCHAIN: "local", GOFLAGS: "-mod=readonly", CGO_ENABLED: "0" },
    signal,
  });
  await rename(fresh, program);
  return program;
}
