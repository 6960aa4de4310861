import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

/** The part of V8's .cpuprofile that is read. Times in microseconds. */
export type CpuProfile = {
  nodes: {
    id: number;
    callFrame: { functionName: string; url: string; lineNumber: number };
    children?: number[];
  }[];
  samples: number[];
  timeDeltas: number[];
};

export type SelfTime = { name: string; ms: number; share: number };

/**
 * Where the time went: the time each function took itself, without what it called, and the same by package. Native
 * functions are told apart by the nearest caller outside Node. The share is of all time that was not idle.
 */
export function selfTimes(profile: CpuProfile, root: string): { functions: SelfTime[]; packages: SelfTime[] } {
  const spent = new Map<number, number>();
  for (const [i, node] of profile.samples.entries())
    spent.set(node, (spent.get(node) ?? 0) + Math.max(profile.timeDeltas[i] ?? 0, 0));
  const functions = new Map<string, number>();
  const packages = new Map<string, number>();
  const byId = new Map(profile.nodes.map((node) => [node.id, node]));
  const callers = new Map(
    profile.nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id] as const)),
  );
  const callerOf = (id: number): string => {
    for (let at = callers.get(id); at !== undefined; at = callers.get(at)) {
      const { functionName = "", url = "" } = byId.get(at)?.callFrame ?? {};
      if (url !== "" && !url.startsWith("node:")) return `  for ${functionName || "(anonymous)"}  ${fileOf(url, root)}`;
    }
    return "";
  };
  let busy = 0;
  for (const { id, callFrame } of profile.nodes) {
    const time = spent.get(id) ?? 0;
    // Taking the profile is not what was asked about.
    if (time === 0 || callFrame.functionName === "(idle)" || callFrame.url === "node:inspector") continue;
    busy += time;
    const file = fileOf(callFrame.url, root);
    const name = callFrame.functionName || "(anonymous)";
    const isNative = file === "" && !name.startsWith("(");
    add(functions, name + (file !== "" ? `  ${file}:${callFrame.lineNumber + 1}` : isNative ? callerOf(id) : ""), time);
    add(packages, packageOf(file, name), time);
  }
  return { functions: sorted(functions, busy), packages: sorted(packages, busy) };
}

/** The `most` costliest functions and packages, as lines for people. */
export function profileLines(profile: CpuProfile, root: string, most = 25): string[] {
  const { functions, packages } = selfTimes(profile, root);
  const rows = (times: SelfTime[]) =>
    times.map(({ name, ms, share }) => {
      return `${(100 * share).toFixed(1).padStart(6)} %  ${Math.round(ms).toString().padStart(6)} ms  ${name}`;
    });
  return ["by function", ...rows(functions.slice(0, most)), "by package", ...rows(packages.slice(0, 15))];
}

function fileOf(url: string, root: string): string {
  const path = url.startsWith("file:") ? fileURLToPath(url) : url;
  return path.startsWith(`${root}/`) ? path.slice(root.length + 1) : path;
}

/** The npm package, a folder of src/, Node itself, or what V8 does besides running functions. */
function packageOf(file: string, name: string): string {
  const [, inPackage] = file.match(/^.*node_modules\/((?:@[^/]+\/)?[^/]+)/) ?? [];
  if (inPackage !== undefined) return inPackage;
  if (file.startsWith("node:")) return "node";
  if (file === "") return name.startsWith("(") ? name : "native functions";
  return dirname(file).split("/").slice(0, 3).join("/");
}

function add(to: Map<string, number>, key: string, time: number): void {
  to.set(key, (to.get(key) ?? 0) + time);
}

function sorted(times: Map<string, number>, busy: number): SelfTime[] {
  return [...times]
    .sort(([, a], [, b]) => b - a)
    .map(([name, time]) => ({ name, ms: time / 1000, share: busy === 0 ? 0 : time / busy }));
}
