import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Fault } from "#src/errors.ts";
import type { MemoryGuard } from "../memory.ts";

export type GroupOptions = {
  /** While a tenant's submissions keep coming, a group begins so long after the one before, unless it is full. */
  windowMs: number;
  /** A group closes at this weight. */
  maxWeight: number;
  /** Groups of one tenant being committed at once while no other has any; beside others it is one of each. */
  concurrency: number;
  /** Submissions waiting beyond this weight are refused, all tenants together. */
  maxWaitingWeight: number;
  /** Who has no more waiting than this is not refused for what others have, up to as much again in all. */
  littleWeight: number;
  /** While it is over, no more may wait than the groups of one tenant hold. */
  memory?: Pick<MemoryGuard, "pressure" | "holder">;
};

/** Called once: with what the commit made of the item, or with why there is nothing. */
export type Settle<O> = (result: { outcome: O } | { error: unknown }) => void;

type Waiting<I, O> = { item: I; claims: readonly string[]; isUrgent: boolean; settle: Settle<O> };

type Tenant<I, O> = {
  waiting: Waiting<I, O>[];
  weight: number;
  committing: number;
  /** Of the commits under way. */
  hurry: AbortController;
  /** By the commits under way. */
  claimed: Set<string>;
  /** What waited when it was last looked at claims what is being committed: it is not looked at for every new item. */
  blocked: boolean;
  /** When the last group began, by the monotonic clock. */
  beganAtMs: number;
  /** Towards the next group. */
  timer: NodeJS.Timeout | undefined;
};

/**
 * Group commit: concurrent submissions of a tenant share one transaction. A lone submission is committed at once; while
 * more keep coming, the next group gathers until `windowMs` after the last one began or until it is full. So a stream of
 * single Sends costs as many commits, messages and decisions as there are windows: some ten milliseconds each, which are
 * regained many times over in what does not have to wait for a processor. Within a tenant groups begin in the order of
 * submission. Two items that claim the same key never share a group, nor are they committed at the same time:
 * the later one waits until the earlier one is stored.
 *
 * Items that are urgent are never refused for want of memory: they are few. `commit` is told, by the signal, when one waits
 * for the end of what it was given.
 *
 * Tells by a callback, because items come by the thousand and a promise for each would cost more than the item.
 */
export function groupCommit<I, O>(
  commit: (tenantId: string, items: readonly I[], hurry: AbortSignal) => Promise<readonly O[]>,
  weigh: (item: I) => number,
  claims: (item: I) => readonly string[],
  options: GroupOptions,
): (tenantId: string, item: I, settle: Settle<O>, isUrgent?: boolean) => void {
  const tenants = new Map<string, Tenant<I, O>>();
  let totalWeight = 0;
  const isMuch = () => totalWeight >= options.maxWeight * options.concurrency;
  options.memory?.holder(isMuch);

  /** What keeps memory is what waits here, so it is refused; what finds little waiting is as well stored as sent away. */
  function isTooMuch(weight: number, own: number, isUrgent: boolean): boolean {
    const isLittle = own + weight <= options.littleWeight;
    if (totalWeight + weight > options.maxWaitingWeight * (isLittle ? 2 : 1)) return true;
    return !isUrgent && isMuch() && options.memory?.pressure() === "over";
  }

  function take({ waiting, claimed: underWay }: Tenant<I, O>): {
    group: Waiting<I, O>[];
    rest: Waiting<I, O>[];
    weight: number;
  } {
    const group: Waiting<I, O>[] = [];
    const rest: Waiting<I, O>[] = [];
    const claimed = new Set(underWay);
    let weight = 0;
    for (const entry of waiting) {
      const keys = entry.claims;
      const full = weight > 0 && weight + weigh(entry.item) > options.maxWeight;
      if (full || keys.some((key) => claimed.has(key))) {
        rest.push(entry);
        // Also what was passed over claims its keys, or a later item would overtake it.
        for (const key of keys) claimed.add(key);
        if (full) {
          rest.push(...waiting.slice(waiting.indexOf(entry) + 1));
          break;
        }
        continue;
      }
      for (const key of keys) claimed.add(key);
      weight += weigh(entry.item);
      group.push(entry);
    }
    return { group, rest, weight };
  }

  /** How long until the next group is to begin. */
  function leftMs({ weight, blocked, beganAtMs }: Tenant<I, O>): number {
    if (blocked) return options.windowMs;
    if (weight >= options.maxWeight) return 0;
    return Math.max(0, beganAtMs + options.windowMs - performance.now());
  }

  async function flush(tenantId: string): Promise<void> {
    const tenant = tenants.get(tenantId);
    if (tenant === undefined) return;
    clearTimeout(tenant.timer);
    tenant.timer = undefined;
    const most = tenants.size > 1 ? 1 : options.concurrency;
    // Where not, the end of a commit under way comes back here.
    if (tenant.waiting.length === 0 || tenant.committing >= most) return;
    const { group, rest, weight } = take(tenant);
    tenant.blocked = group.length === 0;
    if (tenant.blocked) return;
    tenant.waiting = rest;
    tenant.weight -= weight;
    tenant.committing++;
    tenant.beganAtMs = performance.now();
    const keys = group.flatMap((entry) => entry.claims);
    for (const key of keys) tenant.claimed.add(key);
    try {
      const outcome = commit(
        tenantId,
        group.map((entry) => entry.item),
        rest.some((entry) => entry.isUrgent) ? AbortSignal.abort() : tenant.hurry.signal,
      );
      // What found no place gathers others anew; it need not wait for the end of this commit.
      if (rest.length > 0) tenant.timer = setTimeout(flush, leftMs(tenant), tenantId);
      const outcomes = await outcome;
      group.forEach((entry, index) => {
        entry.settle({ outcome: outcomes[index] as O });
      });
    } catch (error) {
      for (const entry of group) entry.settle({ error });
    } finally {
      totalWeight -= weight;
      tenant.committing--;
      tenant.blocked = false;
      for (const key of keys) tenant.claimed.delete(key);
      const left = leftMs(tenant);
      if (tenant.waiting.length > 0 && left === 0) void flush(tenantId);
      else if (tenant.waiting.length > 0) tenant.timer ??= setTimeout(flush, left, tenantId);
      else if (tenant.committing === 0) tenants.delete(tenantId);
    }
  }

  return (tenantId, item, settle, isUrgent = false) => {
    const weight = weigh(item);
    let tenant = tenants.get(tenantId);
    if (isTooMuch(weight, tenant?.weight ?? 0, isUrgent)) {
      settle({ error: new Fault(ErrorReason.OVERLOADED) });
      return;
    }
    if (tenant === undefined) {
      tenant = {
        waiting: [],
        weight: 0,
        committing: 0,
        hurry: new AbortController(),
        claimed: new Set(),
        blocked: false,
        beganAtMs: Number.NEGATIVE_INFINITY,
        timer: undefined,
      };
      tenants.set(tenantId, tenant);
    }
    totalWeight += weight;
    tenant.weight += weight;
    tenant.waiting.push({ item, claims: claims(item), isUrgent, settle });
    if (isUrgent && tenant.committing > 0) {
      tenant.hurry.abort();
      tenant.hurry = new AbortController();
    }
    if (tenant.weight >= options.maxWeight && !tenant.blocked) void flush(tenantId);
    // A turn later at the earliest, so that requests read from one packet share a group.
    else tenant.timer ??= setTimeout(flush, leftMs(tenant), tenantId);
  };
}
