import { CAP_WINDOW, USER_WINDOWS, type Wanted } from "./windows.ts";

/**
 * A user's hourly cap, as pure rules over plain state: how many are counted in each hour from one on. It is asked before
 * the other windows, and a notification is counted in the hour in which these let it come. What finds no room there is
 * refused, for the digest, and counted nowhere; or it is given a turn in the next hour that has room, is counted in that
 * hour, and asks the other windows when its turn comes. So those who wait for the cap keep nobody waiting who finds room.
 *
 * Unlike the other windows it is no queue: who is worth more finds room in an hour that is full for others.
 */
export type CapHours = { first: number; counts: number[] };

/** The notification that asks, and when. */
type Asking = { item: Pick<Wanted, "cap" | "capTurnMs" | "expiresAtMs">; nowMs: number; phase: () => number };

/** How far ahead turns are given, and counted: a week. */
const HORIZON = 168;
const MAX_COUNT = 65_535;
/** What `heldHours` says where nothing is counted yet. */
const NOT_HELD = 65_535;

/** The turns of an hour are at its beginning, spread over as much as those of the shortest window are. */
const SPREAD_MS = (USER_WINDOWS[0].ms * 4) / 5;

export function newCapHours(): CapHours {
  return { first: 0, counts: [] };
}

/** Hours that are over are forgotten. One that lies a little ahead by a caller's clock counts on. */
export function forgetHours(hours: CapHours, nowMs: number): void {
  const over = hourOf(nowMs) - hours.first;
  if (over <= 0) return;
  hours.counts.splice(0, over);
  hours.first += over;
}

/** Whether it may come then. One that has its turn in that hour is counted there. */
export function hasRoom(hours: CapHours, { item, nowMs }: Asking, atMs: number): boolean {
  const { cap } = item;
  if (cap === undefined || cap.over === "pass" || heldIn(item, nowMs) === hourOf(atMs)) return true;
  return usedAt(hours, atMs) < cap.share;
}

/** Counts it in the hour of `atMs`, and no more in that of the turn it had. */
export function countIn(hours: CapHours, { item, nowMs }: Asking, atMs: number): void {
  const hour = hourOf(atMs);
  if (heldIn(item, nowMs) === hour && item.cap !== undefined) return;
  leave(hours, { item, nowMs });
  const { first, counts } = hours;
  const at = Math.max(hour - first, 0);
  if (item.cap === undefined || at >= HORIZON) return;
  while (counts.length <= at) counts.push(0);
  counts[at] = Math.min((counts[at] ?? 0) + 1, MAX_COUNT);
}

/** Counts it no more in the hour of the turn it had, if it was. */
function leave({ first, counts }: CapHours, { item, nowMs }: Pick<Asking, "item" | "nowMs">): boolean {
  const held = heldIn(item, nowMs);
  const before = held === undefined ? 0 : (counts[held - first] ?? 0);
  if (held === undefined || before === 0) return false;
  counts[held - first] = before - 1;
  return true;
}

/**
 * What becomes of one that could come at `atMs`, but for the cap. `taken`: it is to be counted there; `counted`: it is or
 * will be. Else it is refused; would expire before; or its turn is too far ahead to be given. One that had a turn keeps it,
 * but for what is refused: that has `left` it.
 */
export function overCap(
  hours: CapHours,
  { item, nowMs, phase }: Asking,
  atMs: number,
): { atMs: number; counted: boolean; taken: boolean; left?: boolean } {
  const { cap, capTurnMs = 0, expiresAtMs = Number.POSITIVE_INFINITY } = item;
  if (cap === undefined || cap.over === "digest") {
    return { atMs, counted: false, taken: false, left: leave(hours, { item, nowMs }) };
  }
  if ((heldIn(item, nowMs) ?? 0) > hourOf(nowMs)) return { atMs: capTurnMs, counted: true, taken: false };
  let hour = Math.max(hourOf(atMs), hours.first);
  while (usedAt(hours, hour * CAP_WINDOW.ms) >= cap.share) hour++;
  const place = (usedAt(hours, hour * CAP_WINDOW.ms) * 65_536 + phase()) * SPREAD_MS;
  const turnMs = hour * CAP_WINDOW.ms + Math.floor(place / (cap.share * 65_536));
  const taken = hour - hours.first < HORIZON && turnMs < expiresAtMs;
  return { atMs: turnMs, counted: taken, taken };
}

export function usedAt({ first, counts }: CapHours, atMs: number): number {
  return counts[Math.max(hourOf(atMs) - first, 0)] ?? 0;
}

/** In how many hours the turn is that the cap gave it before, 0 for this hour; NOT_HELD when it has none, or had. */
export function heldHours({ capTurnMs }: Pick<Wanted, "capTurnMs">, nowMs: number): number {
  const hours = capTurnMs === undefined ? -1 : hourOf(capTurnMs) - hourOf(nowMs);
  return hours >= 0 && hours < NOT_HELD ? hours : NOT_HELD;
}

/** The hour of that turn. */
function heldIn(item: Pick<Wanted, "capTurnMs">, nowMs: number): number | undefined {
  const hours = heldHours(item, nowMs);
  return hours === NOT_HELD ? undefined : hourOf(nowMs) + hours;
}

function hourOf(atMs: number): number {
  return Math.floor(atMs / CAP_WINDOW.ms);
}
