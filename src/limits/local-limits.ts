import { LRUCache } from "lru-cache";
import { type CapHours, countIn, forgetHours, hasRoom, newCapHours, overCap, usedAt } from "./cap.ts";
import { phaseOf } from "./phase.ts";
import {
  catchUp,
  closeShared,
  copyOf,
  count,
  countAside,
  countShared,
  type Frontier,
  findTurn,
  fullWindow,
  isAhead,
  minuteOf,
  newFrontier,
  newSharedFrontier,
  openShared,
  type SharedFrontier,
  secondOf,
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

/** `reserved`: what was counted lately; `second`: the latest in which anything of it was changed. */
type User = { frontier: Frontier; cap: CapHours; reserved: Map<string, Reserved>; second: number };
/** Its slot; 0 for what went at once, also by a clock that is behind. */
type Reserved = { atMs: number; second: number; byCap: boolean };
type Shared = { window: typeof TENANT_WINDOW | typeof GLOBAL_WINDOW; frontier: SharedFrontier };

/** What a chunk works on: kept only if it changes something, so that a caller that only asks leaves no trace of its clock. */
type Opened<T> = T & { changed: boolean };

const REMEMBER_SECONDS = 120;
const MAX_REMEMBERED = 512;
/** In what one of the remembered takes up, some 200 bytes: what all users may, and one of whom nothing is remembered. */
const MAX_SIZE = 500_000;
const USER_SIZE = 4;

/**
 * The limits as one process can keep them by itself, while Redis is away: the same windows and the same rules, for what
 * this process sees. Bounded by users and by what is remembered of them: those longest unseen are forgotten first.
 */
export function localLimits(config: NotificationLimitsConfig, maxUsers = 100_000, maxSize = MAX_SIZE) {
  const limits = limitsOf(config);
  const users = new LRUCache<string, User>({
    max: maxUsers,
    maxSize,
    sizeCalculation: ({ reserved }) => USER_SIZE + reserved.size,
  });
  const tenants = new LRUCache<string, Shared>({ max: 10_000 });
  let everyone: Shared = { window: GLOBAL_WINDOW, frontier: newSharedFrontier(config.globalPerMinute) };

  return (tenantId: string, wanted: readonly Wanted[], nowMs: number): Slot[] => {
    const ofTenant = tenants.get(tenantId) ?? {
      window: TENANT_WINDOW,
      frontier: newSharedFrontier(config.perTenantPerMinute),
    };
    const [tenant, all] = [open(ofTenant, nowMs), open(everyone, nowMs)];
    const queues = [tenant, all].filter(({ frontier }) => frontier.limit > 0);
    const own = new Map<string, Opened<User>>();
    const slots = wanted.map((item) => {
      const key = `${tenantId} ${item.userId}`;
      const user = own.get(key) ?? openUser(users.get(key), nowMs);
      own.set(key, user);
      return take(user, queues, item, nowMs);
    });
    for (const [key, { changed, ...user }] of own) if (changed) users.set(key, closeUser(user, nowMs));
    for (const { changed, frontier } of queues) if (changed) closeShared(frontier, nowMs);
    if (tenant.changed) tenants.set(tenantId, tenant);
    if (all.changed) everyone = all;
    return slots;
  };

  function take(user: Opened<User>, queues: readonly Opened<Shared>[], wanted: Wanted, nowMs: number): Slot {
    const tag = `${wanted.id}:${wanted.attempt}`;
    const before = user.reserved.get(tag);
    // A turn that the cap gave stands only while there is none better: what the user wants may have changed.
    const item = before?.byCap ? { ...wanted, capTurnMs: before.atMs } : wanted;
    const asking = { item, nowMs, phase: () => phaseOf(item.userId) };
    if (before?.byCap) user.changed = user.reserved.delete(tag);
    else if (before !== undefined) return slot(before.atMs, user.frontier);
    if (!hasRoom(user.cap, asking, nowMs)) return wait(nowMs);
    const shared = queues.map(({ frontier }) => frontier);
    const capUsed = item.cap === undefined ? undefined : usedAt(user.cap, nowMs);
    if (item.exempt) {
      countAside(user.frontier, nowMs);
      countInShared(nowMs, new Set());
      countIn(user.cap, asking, nowMs);
      remember(0);
      return { ...slot(nowMs, user.frontier), capUsed };
    }
    const { atMs, frontier, waitsFor } = findTurn(user.frontier, shared, { ...asking, limits });
    if (!hasRoom(user.cap, asking, atMs)) return wait(atMs);
    const counted = atMs < (item.expiresAtMs ?? Number.POSITIVE_INFINITY) || atMs <= nowMs;
    const passed = atMs <= nowMs ? { nearest: nearestTo(frontier, queues, nowMs), capUsed } : {};
    const result = { ...slot(atMs, frontier, counted), ...passed };
    if (!counted) return result;
    count(frontier, atMs, nowMs);
    countInShared(atMs, waitsFor);
    user.frontier = frontier;
    countIn(user.cap, asking, atMs);
    remember(atMs > nowMs ? atMs : 0);
    return result;

    /** The cap has no room for it when it could come otherwise. */
    function wait(couldComeMs: number): Slot {
      const { atMs, counted, taken, left } = overCap(user.cap, asking, couldComeMs);
      const limit = { window: CAP_WINDOW, usage: usedAt(user.cap, couldComeMs), limit: item.cap?.share ?? 0 };
      if (left) user.changed = true;
      if (taken) countIn(user.cap, asking, atMs);
      if (taken || (counted && before?.byCap)) remember(atMs, true);
      return { atMs, counted, limit };
    }

    function remember(atMs: number, byCap = false): void {
      user.reserved.set(tag, { atMs, second: secondOf(nowMs), byCap });
      user.changed = true;
    }

    function countInShared(atMs: number, waitsFor: ReadonlySet<SharedFrontier>): void {
      for (const queue of queues) {
        countShared(queue.frontier, atMs, { waits: waitsFor.has(queue.frontier), nowMs });
        queue.changed = true;
      }
    }

    function slot(atMs: number, frontier: Frontier, counted = true): Slot {
      if (atMs <= nowMs) return { atMs: nowMs, counted: true, limit: undefined };
      return { atMs, counted, limit: limitNow(frontier, queues, nowMs) };
    }
  }

  /** The window with the fewest left; of equals the one that lasts longest, then what users share. */
  function nearestTo(user: Frontier, queues: readonly Shared[], nowMs: number): Limit | undefined {
    const own = USER_WINDOWS.map((window, w): Limit => ({ window, usage: user.count[w] ?? 0, limit: limits[w] ?? 0 }));
    const shared = queues.map(
      ({ window, frontier }): Limit => ({ window, usage: usedIn(frontier, minuteOf(nowMs)), limit: frontier.limit }),
    );
    const left = ({ limit, usage }: Limit) => limit - usage;
    return [...own.reverse(), ...shared].reduce((a, b) => (left(b) < left(a) ? b : a));
  }

  /** What one waits for that comes now. */
  function limitNow(user: Frontier, queues: readonly Shared[], nowMs: number): Limit {
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

function open({ window, frontier }: Shared, nowMs: number): Opened<Shared> {
  return { window, frontier: openShared(frontier, nowMs), changed: false };
}

function openUser(user: User | undefined, nowMs: number): Opened<User> {
  const opened =
    user === undefined || isAhead(user.second, nowMs)
      ? { frontier: newFrontier(), cap: newCapHours(), reserved: new Map(), second: 0 }
      : {
          frontier: copyOf(user.frontier),
          cap: { ...user.cap, counts: [...user.cap.counts] },
          reserved: new Map(user.reserved),
          second: user.second,
        };
  catchUp(opened.frontier, nowMs);
  forgetHours(opened.cap, nowMs);
  forget(opened.reserved, ({ second }) => second + REMEMBER_SECONDS < secondOf(nowMs));
  return { ...opened, changed: false };
}

function closeUser(user: User, nowMs: number): User {
  forget(user.reserved, () => user.reserved.size > MAX_REMEMBERED);
  return { ...user, second: Math.max(user.second, secondOf(nowMs)) };
}

/** The oldest, as long as they are to be: what is forgotten may be counted again. */
function forget(reserved: Map<string, Reserved>, isToBe: (each: Reserved) => boolean): void {
  for (const [tag, each] of reserved) {
    if (!isToBe(each)) return;
    reserved.delete(tag);
  }
}
