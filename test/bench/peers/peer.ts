import type { Lab } from "../lab.ts";
import type { Job, Load } from "../load.ts";
import { loadOn, type Target, type Watch } from "../load-on.ts";
import { type Outcome, outcomeOf } from "../outcome.ts";
import type { Figures, Skipped } from "../scenario.ts";

/** Another system that can be put under the same load. */
export type Peer = {
  readonly name: string;
  readonly protocol: Job["protocol"];
  /** @throws when it cannot be had here. */
  start(lab: Lab): Promise<RunningPeer>;
};

export type RunningPeer = AsyncDisposable & {
  readonly pid: number;
  readonly address: string;
  /** Where it is Node: collects garbage before its memory is looked at. */
  settle?(): Promise<void>;
  /** Begins and ends handling what waits, where that can be left waiting. */
  work?(): Promise<void>;
  rest?(): Promise<void>;
  /** Resolves when so many notifications have been handled. */
  handled?(count: number): Promise<void>;
};

/** Puts a load on a running peer. */
export function loadOnPeer(lab: Lab, peer: Peer, running: RunningPeer, load: Load, watch?: Watch): Promise<Outcome> {
  const { pid, address } = running;
  const job: Job = { ...load, protocol: peer.protocol, address, apiKey: "none" };
  const target: Target = { name: peer.name, pid };
  return loadOn(lab, job, target, watch).then(outcomeOf);
}

/** Starts a peer and measures it; what cannot be had, or breaks under the load, is skipped by name, with the reason. */
export async function onPeer(
  lab: Lab,
  peer: Peer,
  measure: (running: RunningPeer) => Promise<Outcome>,
): Promise<Figures | Skipped> {
  const { client, say, signal } = lab;
  if (!client.protocols.includes(peer.protocol)) return { skipped: "needs the load client in Go" };
  say(`measuring ${peer.name}`);
  try {
    await using running = await peer.start(lab);
    const { figures, faults } = await measure(running);
    return { ...figures, ...(faults.length > 0 ? { faults } : {}) };
  } catch (error) {
    signal.throwIfAborted();
    return { skipped: error instanceof Error ? error.message : String(error) };
  }
}

/** The same load, for half the time. */
export function simply(lab: Lab, peer: Peer, load: Load): Promise<Figures | Skipped> {
  const half = { ...load, measureMs: Math.round(load.measureMs / 2) };
  return onPeer(lab, peer, (running) => loadOnPeer(lab, peer, running, half));
}
