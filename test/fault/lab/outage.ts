import { breakableGround, type Ground } from "./ground.ts";
import type { Facts, FaultOptions, Lab, Site } from "./lab.ts";
import { type Ledger, openLedger } from "./ledger.ts";
import type { Settings } from "./node.ts";
import { type Random, seededRandom } from "./random.ts";
import type { ServersOptions } from "./servers.ts";
import { deliversAgain, keepVigil, type Vigil } from "./vigil.ts";

/** What an outage happens to: a node with its servers, callers that send and streams that are open all the while. */
export type Scene = { ground: Ground; site: Site; ledger: Ledger; vigil: Vigil; random: Random; scale: number };

/** How long after an outage a notification may take to come through. */
export const BACK_WITHIN_MS = 60_000;

/**
 * Does something to the servers of a node while notifications are sent, and holds it to every promise: callers are told
 * what they may repeat, what was acknowledged comes to its end, no stream loses anything, the node lives and says the
 * truth of itself, and all is well again by itself.
 */
export async function throughOutage(
  lab: Lab,
  { seed, scale }: FaultOptions,
  { settings = {}, servers = {} }: { settings?: Settings; servers?: ServersOptions },
  strike: (scene: Scene) => Promise<Facts>,
): Promise<Facts> {
  const ground = await breakableGround(lab, servers);
  const site = await ground.site(["a"], settings);
  if (isShort(scale)) await ground.lab.shortenAckWait(2000);
  const users = Math.max(20, Math.round(500 * scale));
  // Few callers: the outage is what is waited for, and not what piles up behind it.
  const ledger = await openLedger(ground.lab, site, { seed, users, callers: 3 });
  await using vigil = await keepVigil(site.nodes);
  const scene = { ground, site, ledger, vigil, random: seededRandom(seed), scale };
  let facts: Facts = {};
  const outage = async () => {
    await deliversAgain(site, BACK_WITHIN_MS);
    facts = await strike(scene);
  };
  await ledger.send(Math.round(10_000 * scale), outage());
  const kept = await ledger.verify(90_000);
  return { ...facts, ...(await vigil.end()), ...kept };
}

/** A round of `npm test`. */
function isShort(scale: number): boolean {
  return scale < 0.05;
}

/** So long it lasts: these seconds at scale 1, and long enough to be noticed. */
export function lasting(seconds: number, scale: number, atLeastMs = 1500): number {
  return Math.max(atLeastMs, seconds * 1000 * scale);
}

export type Ways = Readonly<Record<string, (scene: Scene) => Promise<unknown>>>;

/**
 * Goes through the ways in which something goes and comes back, and measures after each how long it takes until the node
 * says it is ready and a notification comes through. A short round takes the ways that prove a guard, those that fail
 * without it where the others pass, for else most runs of `npm test` would not miss it. Of the others it takes as many as
 * make two in all, but one at least, and the next seed other ones.
 */
export async function throughWays<W extends Ways>(
  scene: Scene,
  { seed, scale }: FaultOptions,
  ways: W,
  guarding: readonly (keyof W)[] = [],
): Promise<Facts> {
  const names = Object.keys(ways);
  const turned = [...names.slice(seed % names.length), ...names.slice(0, seed % names.length)];
  const others = turned.filter((name) => !guarding.includes(name));
  const left = new Set(isShort(scale) ? others.slice(Math.max(1, 2 - guarding.length)) : []);
  const facts: Record<string, number> = {};
  for (const name of turned.filter((name) => !left.has(name))) {
    scene.ground.lab.say(`it is ${name}`);
    await ways[name]?.(scene);
    const began = performance.now();
    await scene.vigil.ready(true, BACK_WITHIN_MS);
    await deliversAgain(scene.site, BACK_WITHIN_MS);
    facts[`${name} backMs`] = Math.round(performance.now() - began);
  }
  return facts;
}
