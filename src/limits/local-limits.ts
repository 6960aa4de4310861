import { LRUCache } from "lru-cache";
import { type CapHours, countIn, forgetHours, hasRoom, newCapHours, overCap, usedAt } from "./cap.ts";
import { phaseOf } from "./phase.ts";
import {
  catchUp,
  count,
  countAside,
  countShared,
  type Frontier,
  findTurn,
  fullWindow,
  minuteOf,
  newFrontier,
  newSharedFrontier,
  type SharedFrontier,
  sharedIsFull,
  usedIn,
} from "./place.ts";
import {
  CAP_WINDOW,
  GLOBAL_WINDOW,
  type Limit,
  limitsOf,
  type NotificationLimitsConfig,
  type Slot,
  TENANT_WINDOW,
  USER_WINDOWS,
  type Wanted,
} from "./windows.ts";

/** `reserved`: what was counted lately, and its slot; 0 for what went at once, also by a clock that is behind. */
type User = { frontier: Frontier; cap: CapHours; reserved: Map<string, Reserved> };
type Reserved = { atMs: number; when: number; byCap: boolean };
type Queue = { window: typeof TENANT_WINDOW | typeof GLOBAL_WINDOW; frontier: SharedFrontier };

const REMEMBER_MS = 120_000;
const MAX_REMEMBERED = 512;

/**
 * The limits as one process can keep them by itself, while Redis is away: the same windows and the same rules, for what
 * this process sees. Bounded: the users longest unseen are forgotten first.
 */
export function localLimits(config: NotificationLimitsConfig, maxUsers = 100_000) {
  const limits = limitsOf(config);
  const users = new LRUCache<string, User>({ max: maxUsers });
  const tenants = new LRUCache<string, Queue>({ max: 10_000 });
  const everyone: Queue = { window: GLOBAL_WINDOW, frontier: newSharedFrontier(config.globalPerMinute) };

  return (tenantId: string, wanted: readonly Wanted[], nowMs: number): Slot[] => {
    const tenant = known(tenants, tenantId, () => {
      return { window: TENANT_WINDOW, frontier: newSharedFrontier(config.perTenantPerMinute) };
    });
    const queues = [tenant, everyone].filter(({ frontier }) => frontier.limit > 0);
    for (const { frontier } of queues) forgetMinutes(frontier, nowMs);
    return wanted.map((item) => {
      const user = known(users, `${tenantId} ${item.userId}`, newUser);
      catchUp(user.frontier, nowMs);
      forgetHours(user.cap, nowMs);
      forgetOld(user, nowMs);
      return take(user, queues, item, nowMs);
    });
  };

  function take(user: User, queues: readonly Queue[], wanted: Wanted, nowMs: number): Slot {
    const tag = `${wanted.id}:${wanted.attempt}`;
    const before = user.reserved.get(tag);
    // A turn that the cap gave stands only while there is none better: what the user wants may have changed.
    const item = before?.byCap ? { ...wanted, capTurnMs: before.atMs } : wanted;
    const asking = { item, nowMs, phase: () => phaseOf(item.userId) };
    if (before?.byCap) user.reserved.delete(tag);
    else if (before !== undefined) return slot(before.atMs, user.frontier);
    if (!hasRoom(user.cap, asking, nowMs)) return wait(nowMs);
    const shared = queues.map(({ frontier }) => frontier);
    if (item.exempt) {
      countAside(user.frontier, nowMs);
      for (const frontier of shared) countShared(frontier, nowMs, { waits: false, nowMs });
      countIn(user.cap, asking, nowMs);
      user.reserved.set(tag, { atMs: 0, when: nowMs, byCap: false });
      return slot(nowMs, user.frontier);
    }
    const { atMs, frontier, waitsFor } = findTurn(user.frontier, shared, { ...asking, limits });
    if (!hasRoom(user.cap, asking, atMs)) return wait(atMs);
    const counted = atMs < (item.expiresAtMs ?? Number.POSITIVE_INFINITY) || atMs <= nowMs;
    const result = slot(atMs, frontier, counted);
    if (!counted) return result;
    count(frontier, atMs, nowMs);
    for (const each of shared) countShared(each, atMs, { waits: waitsFor.has(each), nowMs });
    user.frontier = frontier;
    countIn(user.cap, asking, atMs);
    user.reserved.set(tag, { atMs: atMs > nowMs ? atMs : 0, when: nowMs, byCap: false });
    return result;

    /** The cap has no room for it when it could come otherwise. */
    function wait(couldComeMs: number): Slot {
      const { atMs, counted, taken } = overCap(user.cap, asking, couldComeMs);
      const limit = { window: CAP_WINDOW, usage: usedAt(user.cap, couldComeMs), limit: item.cap?.share ?? 0 };
      if (taken) countIn(user.cap, asking, atMs);
      if (taken || (counted && before?.byCap)) user.reserved.set(tag, { atMs, when: nowMs, byCap: true });
      return { atMs, counted, limit };
    }

    function slot(atMs: number, frontier: Frontier, counted = true): Slot {
      if (atMs <= nowMs) return { atMs: nowMs, counted: true, limit: undefined };
      return { atMs, counted, limit: limitNow(frontier, queues, nowMs) };
    }
  }

  /** What one waits for that comes now. */
  function limitNow(user: Frontier, queues: readonly Queue[], nowMs: number): Limit {
    const full = fullWindow(user, limits, nowMs);
    if (full !== undefined) return full;
    for (const { window, frontier } of queues) {
      if (!sharedIsFull(frontier, nowMs)) continue;
      return { window, usage: usedIn(frontier, minuteOf(nowMs)), limit: frontier.limit };
    }
    const [window] = USER_WINDOWS;
    const open = user.index[0] === Math.floor(nowMs / window.ms);
    return { window, usage: open ? (user.count[0] ?? 0) : 0, limit: limits[0] ?? 0 };
  }
}

function newUser(): User {
  return { frontier: newFrontier(), cap: newCapHours(), reserved: new Map() };
}

/** What was reserved longer ago than two minutes may be counted again. */
function forgetOld({ reserved }: User, nowMs: number): void {
  for (const [tag, { when }] of reserved) {
    if (when + REMEMBER_MS >= nowMs && reserved.size <= MAX_REMEMBERED) return;
    reserved.delete(tag);
  }
}

/** All but the last minute, which callers may still be in. */
function forgetMinutes({ counts }: SharedFrontier, nowMs: number): void {
  const last = minuteOf(nowMs) - 1;
  for (const minute of counts.keys()) if (minute < last) counts.delete(minute);
}

function known<T extends object>(all: LRUCache<string, T>, key: string, make: () => T): T {
  const found = all.get(key);
  if (found !== undefined) return found;
  const made = make();
  all.set(key, made);
  return made;
}
