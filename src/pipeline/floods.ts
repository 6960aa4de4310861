import type { LaneName } from "./flow.ts";

/** How much a tenant may queue on a lane before the rest waits aside. All in notifications. */
export type Share = { readonly perSecond: number; readonly burst: number; readonly most: number };

/**
 * By process, tenant and lane, so that nobody has to be asked; with several API nodes a tenant has it on each of them.
 */
export const SHARE: Share = {
  // A tenth of what a worker on two cores decides. Who sends so much all day long is no flood: its shard keeps up with it.
  perSecond: 1000,
  // Eight chunks: a worker has decided them within a quarter of a second, and no neighbour on the shard waits for more. A
  // campaign or a schedule of 100,000, due at once, has most of itself wait aside.
  burst: 2000,
  // However much it was, a minute after it has queued the last of it the tenant is back. Until then what it sends waits
  // behind its flood, mostly; after that, in front of it, as no order is promised.
  most: 60_000,
};

/** A page of a fan-out costs a worker about what so many notifications do. What it makes counts when it is queued. */
export const FANOUT_COUNTS = 100;

/** Where a tenant stands on a lane. */
export type Level = {
  /** Queued beyond the rate, as of `atMs`. */
  readonly queued: number;
  /** Waiting aside or done there, since this began; 0: it is not. */
  readonly aside: number;
  readonly atMs: number;
};

/**
 * Where it stands with so many more, which are to wait aside when `aside` has grown: once it is beyond the burst, and from
 * then on until it has run empty, so that one about the limit does not go to and fro.
 */
export function risen(level: Level | undefined, count: number, nowMs: number, share: Share): Level {
  const before = level === undefined ? 0 : leftOf(level, nowMs, share);
  const queued = before + count;
  const aside = before > 0 ? (level?.aside ?? 0) : 0;
  return {
    queued: Math.min(queued, share.most),
    aside: aside > 0 || queued > share.burst ? aside + count : 0,
    // A clock that stood still or went back has drained nothing, and does not drain it twice.
    atMs: Math.max(nowMs, level?.atMs ?? nowMs),
  };
}

function leftOf({ queued, atMs }: Level, nowMs: number, { perSecond }: Share): number {
  return Math.max(0, queued - (Math.max(0, nowMs - atMs) * perSecond) / 1000);
}

/** `aside`: as many waited aside when it ended; undefined: it begins. */
export type FloodChange = { readonly tenantId: string; readonly lane: LaneName; readonly aside: number | undefined };

export type Floods = {
  /** Counts what is about to be queued, and says whether it is to wait aside. */
  isAside(tenantId: string, lane: LaneName, count: number, nowMs: number): boolean;
};

/** Who is forgotten begins anew with a full burst, so it only has to be more than are busy in one process. */
const MAX_KEPT = 10_000;

/**
 * Which tenants flood a lane. Every call takes the same short time, and forgets who has run empty or, of too many, who has
 * been silent longest. `told` hears of each flood twice: as it begins, and, when the next call finds it so, as it has ended.
 */
export function watchFloods(share: Share, told: (change: FloodChange) => void, maxKept = MAX_KEPT): Floods {
  // Silent longest first.
  const kept = new Map<string, { tenantId: string; lane: LaneName; level: Level }>();

  /** Two at a time: one call brings at most one. */
  function forget(nowMs: number): void {
    for (let n = 0; n < 2; n++) {
      const [oldest] = kept;
      if (oldest === undefined) return;
      const [key, { tenantId, lane, level }] = oldest;
      if (kept.size <= maxKept && leftOf(level, nowMs, share) > 0) return;
      kept.delete(key);
      if (level.aside > 0) told({ tenantId, lane, aside: level.aside });
    }
  }

  return {
    isAside(tenantId, lane, count, nowMs) {
      const key = `${lane} ${tenantId}`;
      const before = kept.get(key)?.level;
      const level = risen(before, count, nowMs, share);
      kept.delete(key);
      kept.set(key, { tenantId, lane, level });
      const was = before?.aside ?? 0;
      const hasEnded = before !== undefined && was > 0 && leftOf(before, nowMs, share) === 0;
      if (hasEnded) told({ tenantId, lane, aside: was });
      if (level.aside > 0 && (was === 0 || hasEnded)) told({ tenantId, lane, aside: undefined });
      forget(nowMs);
      return level.aside > 0;
    },
  };
}
