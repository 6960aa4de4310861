import { LRUCache } from "lru-cache";
import {
  GLOBAL_WINDOW,
  type NotificationLimitsConfig,
  type Refusal,
  TENANT_WINDOW,
  USER_WINDOWS,
  userLimits,
  type Wanted,
  type Window,
} from "./windows.ts";

/** A count that begins again with each window, as notification-limits.lua keeps it. */
type Count = { index: number; count: number };
type User = { counts: Count[]; waiting: Count; reserved: Map<string, number> };
type Shared = { counted: Count; waiting: Count };

const REMEMBER_MS = 120_000;
const MAX_REMEMBERED = 128;

/**
 * The limits as one process can keep them by itself, while Redis is away: the same windows and the same rules, for what
 * this process sees. Bounded: the users longest unseen are forgotten first.
 */
export function localLimits(config: NotificationLimitsConfig, maxUsers = 100_000) {
  const limits = userLimits(config);
  const users = new LRUCache<string, User>({ max: maxUsers });
  const tenants = new LRUCache<string, Shared>({ max: 10_000 });
  const everyone = newShared();

  return (tenantId: string, wanted: readonly Wanted[], nowMs: number): (Refusal | undefined)[] => {
    const tenant = known(tenants, tenantId, newShared);
    return wanted.map((item) => {
      const user = known(users, `${tenantId} ${item.userId}`, newUser);
      const tag = `${item.id}:${item.attempt}`;
      forgetOld(user, nowMs);
      if (user.reserved.has(tag)) return undefined;
      const refusal = item.exempt ? undefined : refuse(user, tenant, nowMs);
      if (refusal !== undefined) return refusal;
      user.reserved.set(tag, nowMs);
      user.counts.forEach((count, w) => {
        add(count, USER_WINDOWS[w]?.ms ?? 1, nowMs);
      });
      add(tenant.counted, TENANT_WINDOW.ms, nowMs);
      add(everyone.counted, GLOBAL_WINDOW.ms, nowMs);
      return undefined;
    });
  };

  function refuse(user: User, tenant: Shared, nowMs: number): Refusal | undefined {
    if (config.globalPerMinute > 0) {
      const refusal = refuseShared(everyone, GLOBAL_WINDOW, config.globalPerMinute, nowMs);
      if (refusal !== undefined) return refusal;
    }
    const userUsage = user.counts.map((count, w) => used(count, USER_WINDOWS[w]?.ms ?? 1, nowMs));
    for (let w = USER_WINDOWS.length - 1; w >= 0; w--) {
      const window = USER_WINDOWS[w];
      const usage = userUsage[w] ?? 0;
      const limit = limits[w] ?? 0;
      if (window === undefined || usage < limit) continue;
      return { window, usage, limit, userUsage, ahead: add(user.waiting, TENANT_WINDOW.ms, nowMs) };
    }
    return config.perTenantPerMinute > 0
      ? refuseShared(tenant, TENANT_WINDOW, config.perTenantPerMinute, nowMs)
      : undefined;
  }
}

function refuseShared(shared: Shared, window: Window, limit: number, nowMs: number): Refusal | undefined {
  const usage = used(shared.counted, window.ms, nowMs);
  if (usage < limit) return undefined;
  return { window, usage, limit, userUsage: undefined, ahead: add(shared.waiting, window.ms, nowMs) };
}

/** What was reserved longer ago than two minutes may be counted again. */
function forgetOld({ reserved }: User, nowMs: number): void {
  for (const [tag, at] of reserved) {
    if (at + REMEMBER_MS >= nowMs && reserved.size <= MAX_REMEMBERED) return;
    reserved.delete(tag);
  }
}

/** Answers what was counted before. A window that lies ahead counts on, see the script. */
function add(count: Count, ms: number, nowMs: number): number {
  const before = used(count, ms, nowMs);
  count.index = Math.max(count.index, Math.floor(nowMs / ms));
  count.count = before + 1;
  return before;
}

function used({ index, count }: Count, ms: number, nowMs: number): number {
  return index >= Math.floor(nowMs / ms) ? count : 0;
}

function known<T extends object>(all: LRUCache<string, T>, key: string, make: () => T): T {
  const found = all.get(key);
  if (found !== undefined) return found;
  const made = make();
  all.set(key, made);
  return made;
}

function newUser(): User {
  return { counts: USER_WINDOWS.map(newCount), waiting: newCount(), reserved: new Map() };
}

function newShared(): Shared {
  return { counted: newCount(), waiting: newCount() };
}

function newCount(): Count {
  return { index: 0, count: 0 };
}
