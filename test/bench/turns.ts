import type { CpuProfile } from "./profile.ts";

/** A stretch in which the event loop did nothing else, and in which of our functions most of it went. */
type Turn = { ms: number; inside: string };

/** Shorter ones hold nobody up. */
const LONG_MS = 5;

/**
 * The event loop's long turns, as lines for people: everything that is to happen meanwhile waits for their end, so they
 * make the latency of a busy server. By the innermost functions of ours that were at work in most of a turn.
 */
export function turnLines(profile: CpuProfile, root: string, most = 12): string[] {
  const turns = turnsOf(profile, root);
  const long = turns.filter(({ ms }) => ms >= LONG_MS).sort((a, b) => b.ms - a.ms);
  const total = sum(turns);
  const causes = [...Map.groupBy(long, ({ inside }) => inside)]
    .map(([inside, all]) => ({ inside, all, ms: sum(all) }))
    .sort((a, b) => b.ms - a.ms);
  return [
    `turns of ${LONG_MS} ms and more: ${long.length}, ${Math.round((100 * sum(long)) / total)} % of the time; the longest ${long[0]?.ms.toFixed(0) ?? 0} ms`,
    ...causes.slice(0, most).map(({ inside, all, ms }) => {
      const median = all[all.length >> 1]?.ms ?? 0;
      return `${all.length.toString().padStart(6)} of ${median.toFixed(0).padStart(3)} ms  ${Math.round((100 * ms) / total)} %  ${inside}`;
    }),
  ];
}

function turnsOf({ nodes, samples, timeDeltas }: CpuProfile, root: string): Turn[] {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const parents = new Map(nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id] as const)));
  const top = (id: number): number => {
    for (let at = id; ; ) {
      const parent = parents.get(at);
      if (parent === undefined || parents.get(parent) === undefined) return at;
      at = parent;
    }
  };
  const ours = (id: number): string => {
    for (let at: number | undefined = id; at !== undefined; at = parents.get(at)) {
      const { functionName = "", url = "", lineNumber = 0 } = byId.get(at)?.callFrame ?? {};
      if (url.includes("/src/") && !url.includes("node_modules"))
        return `${functionName || "(anonymous)"} ${url.slice(url.indexOf(root) + root.length + 1)}:${lineNumber + 1}`;
    }
    return "elsewhere";
  };
  const turns: Turn[] = [];
  let current: { top: number; us: number; inside: Map<string, number> } | undefined;
  const end = () => {
    if (current === undefined) return;
    const [most] = [...current.inside].sort((a, b) => b[1] - a[1]);
    turns.push({ ms: current.us / 1000, inside: most?.[0] ?? "" });
    current = undefined;
  };
  for (const [n, id] of samples.entries()) {
    // A sample stands for the time until the next.
    const us = Math.max(timeDeltas[n + 1] ?? 0, 0);
    const at = top(id);
    const name = byId.get(at)?.callFrame.functionName;
    if (name === "(idle)" || name === "(program)") {
      end();
      continue;
    }
    const collecting = name === "(garbage collector)";
    if (current !== undefined && !collecting && current.top !== at) end();
    current ??= { top: at, us: 0, inside: new Map() };
    current.us += us;
    const place = collecting ? "(garbage collector)" : ours(id);
    current.inside.set(place, (current.inside.get(place) ?? 0) + us);
  }
  end();
  return turns;
}

function sum(turns: readonly Turn[]): number {
  return turns.reduce((total, { ms }) => total + ms, 0);
}
