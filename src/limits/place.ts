import { type Limit, TENANT_WINDOW, USER_WINDOWS } from "./windows.ts";

/**
 * How slots are given, as pure rules over plain state. The files of slots/ are the same rules for Redis; a property
 * test holds the two together.
 *
 * Everybody stands in one queue per user, and in one per limit that users share. Its end, the frontier, is a window with
 * room, now or later, and the last turn that was given in it. Who comes is counted there and goes at once if that is now
 * and nobody waits; else gets the next turn. So a limit is not asked twice for the same notification, nobody overtakes,
 * and no window is given to more than it allows.
 */

/** A user's frontier. Of each of USER_WINDOWS. */
export type Frontier = {
  /** The window that is filled now, which may lie ahead, and how many it has. */
  index: number[];
  count: number[];
  /** The last window that was left because it was full, and how many it had. */
  leftIndex: number[];
  leftCount: number[];
  /** The last turn given, 0 for none. */
  lastMs: number;
};

/** The frontier of what users share, by the minute. Minutes beyond it have counts too, of those their users hold back. */
export type SharedFrontier = {
  limit: number;
  counts: Map<number, number>;
  /** All minutes before it were found full, or are over. */
  first: number;
  lastMs: number;
  /** The latest minute in which it was changed. */
  changedIn: number;
};

/** `limits`: of USER_WINDOWS. */
export type Asked = { limits: readonly number[]; phase: () => number; nowMs: number };

const MINUTE_MS = TENANT_WINDOW.ms;
const CLOCKS_APART_SECONDS = 60;

/** Turns are spread over this part of a window: the rest is for the way from the turn to the delivery. */
const SPREAD = { part: 4, of: 5 };

export function newFrontier(): Frontier {
  const none = () => USER_WINDOWS.map(() => 0);
  return { index: none(), count: none(), leftIndex: none(), leftCount: none(), lastMs: 0 };
}

export function copyOf({ index, count, leftIndex, leftCount, lastMs }: Frontier): Frontier {
  return { index: [...index], count: [...count], leftIndex: [...leftIndex], leftCount: [...leftCount], lastMs };
}

export function newSharedFrontier(limit: number): SharedFrontier {
  return { limit, counts: new Map(), first: 0, lastMs: 0, changedIn: 0 };
}

/**
 * Whether a user's frontier was changed by a caller whose clock is more than a minute ahead of this one's. It would keep
 * the user waiting until that time has come; so it is forgotten, and with it what waits behind it, which keeps its turns.
 * Redis, which hears of other clocks as well and has one of its own, forgets only what lies ahead of that too.
 */
export function isAhead(changedInSecond: number, nowMs: number): boolean {
  return changedInSecond - secondOf(nowMs) > CLOCKS_APART_SECONDS;
}

/** A copy for a caller to work on, who throws it away if nothing was counted. The same goes for it. */
export function openShared(shared: SharedFrontier, nowMs: number): SharedFrontier {
  if (shared.changedIn > minuteOf(nowMs) + 1) return newSharedFrontier(shared.limit);
  return { ...shared, counts: new Map(shared.counts) };
}

/** Before it is kept: without all minutes but the last, which callers may still be in. */
export function closeShared(shared: SharedFrontier, nowMs: number): void {
  const minute = minuteOf(nowMs);
  if (shared.changedIn >= minute) return;
  shared.changedIn = minute;
  for (const each of shared.counts.keys()) if (each < minute - 1) shared.counts.delete(each);
}

/**
 * Finds the first turn that a user's frontier and all shared ones have room for. Answers it with the user's frontier
 * there, and which of the shared ones put it off; nothing is counted.
 */
export function findTurn(
  user: Frontier,
  queues: readonly SharedFrontier[],
  asked: Asked,
): { atMs: number; frontier: Frontier; waitsFor: ReadonlySet<SharedFrontier> } {
  const frontier = copyOf(user);
  const waitsFor = new Set<SharedFrontier>();
  let atMs = advance(frontier, asked.nowMs, asked);
  for (let settled = false; !settled; ) {
    settled = true;
    for (const queue of queues) {
      const turn = sharedTurn(queue, atMs, asked.nowMs);
      if (turn === atMs) continue;
      atMs = advance(frontier, turn, asked);
      waitsFor.add(queue);
      settled = false;
    }
  }
  return { atMs, frontier, waitsFor };
}

/** Windows that are over begin anew. One a little ahead by a caller's clock counts on, or asking two in turn would pass. */
export function catchUp(user: Frontier, nowMs: number): void {
  USER_WINDOWS.forEach(({ ms }, w) => {
    const index = Math.floor(nowMs / ms);
    if ((user.index[w] ?? 0) >= index) return;
    user.index[w] = index;
    user.count[w] = 0;
  });
}

/**
 * Moves the frontier to the first window from `fromMs` on that has room, and answers the next turn there: `nowMs` if
 * that is asked for and nobody waits. `phase` (0 to 65,535) shifts a user's turns, so that not everybody's first turn is
 * the first instant of a window.
 */
function advance(user: Frontier, fromMs: number, { limits, phase, nowMs }: Asked): number {
  let waits = fromMs > nowMs || user.lastMs > nowMs;
  catchUp(user, fromMs);
  for (;;) {
    const full = USER_WINDOWS.findLastIndex((_, w) => (user.count[w] ?? 0) >= (limits[w] ?? 0));
    const window = USER_WINDOWS[full];
    if (window === undefined) break;
    const index = user.index[full] ?? 0;
    user.leftIndex[full] = index;
    user.leftCount[full] = user.count[full] ?? 0;
    catchUp(user, (index + 1) * window.ms);
    waits = true;
  }
  if (!waits) return nowMs;
  const [{ ms }] = USER_WINDOWS;
  const [[index = 0], [count = 0], [limit = 1]] = [user.index, user.count, limits];
  const share = (count * 65_536 + phase()) * ms * SPREAD.part;
  return Math.max(fromMs, user.lastMs, index * ms + Math.floor(share / (limit * 65_536 * SPREAD.of)));
}

/** Counts one at the turn that `advance` gave it. */
export function count(user: Frontier, atMs: number, nowMs: number): void {
  USER_WINDOWS.forEach((_, w) => {
    user.count[w] = (user.count[w] ?? 0) + 1;
  });
  if (atMs > nowMs) user.lastMs = atMs;
}

/** Counts one that goes now whatever waits. The frontier stays where it is. */
export function countAside(user: Frontier, nowMs: number): void {
  USER_WINDOWS.forEach(({ ms }, w) => {
    const index = Math.floor(nowMs / ms);
    if (user.index[w] === index) user.count[w] = (user.count[w] ?? 0) + 1;
    else if (user.leftIndex[w] === index) user.leftCount[w] = (user.leftCount[w] ?? 0) + 1;
  });
}

/** The longest of the user's windows that is full now; undefined if none is. */
export function fullWindow(user: Frontier, limits: readonly number[], nowMs: number): Limit | undefined {
  const w = USER_WINDOWS.findLastIndex(({ ms }, w) => (user.leftIndex[w] ?? 0) >= Math.floor(nowMs / ms));
  const [window, limit] = [USER_WINDOWS[w], limits[w] ?? 0];
  if (window === undefined) return undefined;
  // Windows between this one and the last that was left were filled to their limit.
  const known = user.leftIndex[w] === Math.floor(nowMs / window.ms);
  return { window, usage: known ? (user.leftCount[w] ?? 0) : limit, limit };
}

/** The next turn from `fromMs` on under a limit that users share: `fromMs` if there is room and nobody waits then. */
function sharedTurn(shared: SharedFrontier, fromMs: number, nowMs: number): number {
  const first = firstWithRoom(shared, nowMs);
  const asked = minuteOf(fromMs);
  let minute = Math.max(asked, first);
  while (usedIn(shared, minute) >= shared.limit) minute++;
  if (minute === asked && (minute !== first || fromMs >= shared.lastMs)) return fromMs;
  const share = usedIn(shared, minute) * MINUTE_MS * SPREAD.part;
  const turn = minute * MINUTE_MS + Math.floor(share / (shared.limit * SPREAD.of));
  return Math.max(fromMs, turn, minute === first ? shared.lastMs : 0);
}

/** Counts a turn. `waits`: this limit put it off, so that who comes later stands behind it. */
export function countShared(shared: SharedFrontier, atMs: number, { waits, nowMs }: { waits: boolean; nowMs: number }) {
  const minute = minuteOf(atMs);
  if (waits && minute === firstWithRoom(shared, nowMs)) shared.lastMs = Math.max(shared.lastMs, atMs);
  shared.counts.set(minute, usedIn(shared, minute) + 1);
}

export function usedIn(shared: SharedFrontier, minute: number): number {
  return shared.counts.get(minute) ?? 0;
}

/** Whether who comes now has to wait, even if their user has room. */
export function sharedIsFull(shared: SharedFrontier, nowMs: number): boolean {
  return firstWithRoom(shared, nowMs) > minuteOf(nowMs) || shared.lastMs > nowMs;
}

export function secondOf(atMs: number): number {
  return Math.floor(atMs / 1000);
}

export function minuteOf(atMs: number): number {
  return Math.floor(atMs / MINUTE_MS);
}

/** Remembered only where it was found by counts: a caller whose clock is a little behind still finds its own minute. */
function firstWithRoom(shared: SharedFrontier, nowMs: number): number {
  const start = Math.max(shared.first, minuteOf(nowMs));
  let first = start;
  while (usedIn(shared, first) >= shared.limit) first++;
  if (first > start) shared.first = first;
  return first;
}
