import { readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { connectTo } from "./connection.ts";
import type { Facts, Site } from "./lab.ts";
import type { FaultNode } from "./node.ts";

/** What is seen of the nodes from outside while their servers are done things to. */
export type Vigil = AsyncDisposable & {
  /** How long until every node says it is not ready, or is ready again. Fails after `withinMs`. */
  ready(whether: boolean, withinMs: number): Promise<number>;
  /**
   * Ends it.
   *
   * @throws when a node died, did not answer its liveness probe in time, or took or kept more memory than it should.
   */
  end(): Promise<Facts>;
};

const EVERY_MS = 100;
const LIVENESS_WITHIN_MS = 2000;
/** What a node may keep of a fault once its garbage is collected: code compiled since, caches that fill. Not a leak. */
const LIVE_GROWTH_MB = 40;
/**
 * What may be resident more, the far end of what an outage should take. Most of it is garbage that V8 has not come to: a
 * node that grew by 250 MB had up to 326 MB of heap in use, of which each full collection left 80 to 83 MB.
 */
const GROWTH_MB = 500;

/** Looks at what is alive in the nodes first, for which each of them collects its garbage. */
export async function keepVigil(nodes: readonly FaultNode[]): Promise<Vigil> {
  const aliveBefore = await Promise.all(nodes.map((node) => node.liveMb()));
  const broken: string[] = [];
  const watches = nodes.map((node) => ({
    node,
    pid: node.pid,
    ready: undefined as boolean | undefined,
    first: 0,
    peak: 0,
  }));
  const stop = new AbortController();

  async function watch(each: (typeof watches)[number]): Promise<void> {
    while (!stop.signal.aborted) {
      const { node, pid } = each;
      if (node.pid !== pid) {
        broken.push(`${node.name} has ended: ${node.lines().slice(-5).join("\n")}`);
        return;
      }
      const rss = await rssMb(pid);
      each.first ||= rss;
      each.peak = Math.max(each.peak, rss);
      const [alive, ready] = await Promise.all([
        probe(`${node.httpUrl}/healthz`, LIVENESS_WITHIN_MS),
        probe(`${node.httpUrl}/readyz`, 5000),
      ]);
      if (alive !== 200 && !stop.signal.aborted) broken.push(`${node.name} was not alive: ${alive}`);
      each.ready = ready === 200;
      await delay(EVERY_MS);
    }
  }
  const watching = watches.map(watch);

  async function finish(): Promise<void> {
    stop.abort();
    await Promise.all(watching);
  }

  async function liveMb(node: FaultNode): Promise<number> {
    try {
      return await node.liveMb();
    } catch (error) {
      broken.push(`${node.name} did not tell what is alive in it: ${error}`);
      return 0;
    }
  }

  return {
    async ready(whether, withinMs) {
      const began = performance.now();
      while (watches.some(({ ready }) => ready !== whether)) {
        if (performance.now() - began > withinMs)
          throw new Error(`after ${withinMs} ms a node still says it is ${whether ? "not " : ""}ready`);
        await delay(20);
      }
      return Math.round(performance.now() - began);
    },
    async end() {
      await finish();
      const grown = Math.max(...watches.map(({ first, peak }) => peak - first));
      if (grown > GROWTH_MB) broken.push(`a node grew by ${Math.round(grown)} MB`);
      const aliveNow = await Promise.all(nodes.map(liveMb));
      const kept = Math.max(...aliveNow.map((mb, n) => mb - (aliveBefore[n] ?? 0)));
      if (kept > LIVE_GROWTH_MB) broken.push(`a node keeps ${Math.round(kept)} MB more than it had`);
      if (broken.length > 0) throw new Error(broken.slice(0, 5).join("\n"));
      const peak = Math.max(...watches.map((each) => each.peak));
      return { keptMb: Math.round(kept), grownMb: Math.round(grown), peakMb: Math.round(peak) };
    },
    [Symbol.asyncDispose]: finish,
  };
}

/** How long from now until a notification is delivered that is sent from now on: the way through everything. */
export async function deliversAgain(site: Site, withinMs: number): Promise<number> {
  const began = performance.now();
  const [node] = site.nodes;
  using caller = connectTo(node?.address ?? "", site.apiKey);
  let last: unknown;
  for (let n = 0; performance.now() - began < withinMs; n++) {
    try {
      const { results } = await caller.call(
        SendService.method.send,
        {
          to: { userIds: ["canary"] },
          content: { title: "Again?" },
          tags: [`canary-${n}-${Math.round(began)}`],
          // Past whatever has piled up meanwhile, which is looked at in the end.
          priority: Priority.CRITICAL,
          waitForDecision: { seconds: 5n },
        },
        8000,
      );
      const ms = Math.round(performance.now() - began);
      if (results[0]?.status === Status.DELIVERED && ms <= withinMs) return ms;
      last = `status ${results[0]?.status} after ${ms} ms`;
    } catch (error) {
      last = error;
    }
    await delay(50);
  }
  const said = node?.lines().slice(-8).join("\n  ");
  throw new Error(`nothing was delivered within ${withinMs} ms: ${last}\n  ${said}`);
}

async function probe(url: string, withinMs: number): Promise<number | string> {
  try {
    return (await fetch(url, { signal: AbortSignal.timeout(withinMs) })).status;
  } catch (error) {
    return String(error);
  }
}

async function rssMb(pid: number | undefined): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024;
}
