import { LRUCache } from "lru-cache";
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
type User = { frontier: Frontier; reserved: Map<string, { atMs: number; when: number }> };
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
      const user = known(users, `${tenantId} ${item.userId}`, () => ({ frontier: newFrontier(), reserved: new Map() }));
      catchUp(user.frontier, nowMs);
      forgetOld(user, nowMs);
      return take(user, queues, item, nowMs);
    });
  };

  function take(user: User, queues: readonly Queue[], item: Wanted, nowMs: number): Slot {
    const tag = `${item.id}:${item.attempt}`;
    const before = user.reserved.get(tag);
    if (before !== undefined) return slot(before.atMs, user.frontier);
    const shared = queues.map(({ frontier }) => frontier);
    if (item.exempt) {
      countAside(user.frontier, nowMs);
      for (const frontier of shared) countShared(frontier, nowMs, { waits: false, nowMs });
      user.reserved.set(tag, { atMs: 0, when: nowMs });
      return slot(nowMs, user.frontier);
    }
    const asked = { limits, phase: () => phaseOf(item.userId), nowMs };
    const { atMs, frontier, waitsFor } = findTurn(user.frontier, shared, asked);
    const counted = atMs < (item.expiresAtMs ?? Number.POSITIVE_INFINITY) || atMs <= nowMs;
    const result = slot(atMs, frontier, counted);
    if (!counted) return result;
    count(frontier, atMs, nowMs);
    for (const each of shared) countShared(each, atMs, { waits: waitsFor.has(each), nowMs });
    user.frontier = frontier;
    user.reserved.set(tag, { atMs: atMs > nowMs ? atMs : 0, when: nowMs });
    return result;

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
