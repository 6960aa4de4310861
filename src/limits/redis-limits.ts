import type { Cache } from "#src/cache/redis.ts";
import { loadScript } from "#src/cache/script.ts";
import { heldHours } from "./cap.ts";
import { phaseOf } from "./phase.ts";
import {
  CAP_WINDOW,
  type Cap,
  type Limit,
  limitsOf,
  type NotificationLimitsConfig,
  type Slot,
  type Wanted,
  WINDOWS,
} from "./windows.ts";

/** Finds each of the wanted a slot in all windows that it needs, and counts it there; answers them in their order. */
export type TakeSlots = (tenantId: string, wanted: readonly Wanted[], nowMs: number) => Promise<Slot[]>;

type Options = {
  looking?: boolean;
  /** Instead of Redis's clock, for tests: their clocks are their own. */
  redisNow?: ((nowMs: number) => number) | undefined;
  /** Told with each answer by how many ms this process's clock is ahead of Redis's, if that is over a minute; else 0. */
  onClock?: (aheadMs: number) => void;
};

/** Its parts, each of which knows those before it. */
const SCRIPT = ["asked", "user-value", "user-turns", "cap", "shared-turns", "answers", "take"] as const;

/**
 * Counts in Redis, for all processes together, in one round trip; `looking`: counts nothing. A caller whose clock is more
 * than a minute off Redis's is counted by that, and what has no room is given no turn: it comes back within
 * `maxBackoffMs`. Throws when Redis does not answer.
 */
export function redisLimits(
  { redis, namespace }: Pick<Cache, "redis" | "namespace">,
  config: NotificationLimitsConfig,
  { looking = false, redisNow, onClock }: Options = {},
): TakeSlots {
  const takeSlots = loadScript(redis, ...SCRIPT.map((name) => new URL(`./slots/${name}.lua`, import.meta.url)));
  const limits = limitsOf(config);
  const all = config.globalPerMinute > 0;
  const look = looking ? "look" : "";

  return async (tenantId, wanted, nowMs) => {
    // A script sees one slot of a cluster, chosen by the hash tag: a tenant's, whose limits and users' limits are counted
    // together. With a global limit everything is counted together with that.
    const prefix = all ? `${namespace}:places:{all}:${tenantId}` : `${namespace}:places:{${tenantId}}`;
    const { items, userIds } = pack(wanted, nowMs);
    const shared = all ? [prefix, `${namespace}:places:{all}`] : [prefix];
    const keys = [...shared, ...userIds.map((userId) => `${prefix}:${userId}`)];
    const given = redisNow === undefined ? [] : [redisNow(nowMs)];
    const answer = (await takeSlots(keys, [nowMs, ...limits, items, look, ...given])) as number[];
    const limitOf = (number: number, usage: number, cap: Cap | undefined): Limit | undefined => {
      const window = WINDOWS[number - 1];
      const many = window === CAP_WINDOW ? cap?.share : limits[number - 1];
      return window && { window, usage, limit: many ?? 0 };
    };
    let at = 0;
    const next = () => answer[at++] ?? 0;
    const slots = wanted.map(({ cap, capTurnMs = 0 }): Slot => {
      const first = next();
      if (first < 0) {
        const told = -1 - first;
        const [window, rest] = [told % WINDOW_NUMBERS, Math.floor(told / WINDOW_NUMBERS)];
        const [capped, usage] = [rest % CAP_NUMBERS, Math.floor(rest / CAP_NUMBERS)];
        const capUsed = capped === 0 ? undefined : capped - 1;
        return { atMs: nowMs, counted: true, limit: undefined, nearest: limitOf(window, usage, cap), capUsed };
      }
      const limit = limitOf(next(), next(), cap);
      return { atMs: first === 0 ? capTurnMs : first, counted: next() === 1, limit };
    });
    const redisMs = answer[at];
    onClock?.(redisMs === undefined ? 0 : nowMs - redisMs);
    if (redisMs === undefined) return slots;
    return slots.map((slot, index) =>
      slot.limit === undefined || slot.counted
        ? slot
        : comesBack(slot, wanted[index]?.userId ?? "", { nowMs, redisMs }),
    );
  };

  /** Where the clocks are apart: it asks again, by its own, when its turn would be by Redis's, or well before. */
  function comesBack(slot: Slot, userId: string, { nowMs, redisMs }: { nowMs: number; redisMs: number }): Slot {
    const atMostMs = (config.maxBackoffMs * (1 + phaseOf(userId) / 65_536)) / 2;
    return { ...slot, atMs: nowMs + Math.ceil(Math.min(Math.max(slot.atMs - redisMs, 0), atMostMs)) };
  }
}

/** How the script puts together what it tells of one that goes at once. */
const WINDOW_NUMBERS = 8;
const CAP_NUMBERS = 65_537;
const ITEM_BYTES = 19;
/** What the script calls them. */
const OVER = { digest: 1, wait: 2, pass: 3 } as const;
const MAX_DELTA = 0xffff_ffff;

/** As the script reads it. */
function pack(wanted: readonly Wanted[], nowMs: number): { items: Buffer; userIds: string[] } {
  const items = Buffer.alloc(wanted.length * ITEM_BYTES);
  const numbers = new Map<string, number>();
  wanted.forEach((each, position) => {
    const { id, userId, attempt, exempt, cap, expiresAtMs } = each;
    let number = numbers.get(userId);
    if (number === undefined) {
      number = numbers.size + 1;
      numbers.set(userId, number);
    }
    const at = position * ITEM_BYTES;
    items.writeUInt16BE(number, at);
    items.writeUInt8(exempt ? 1 : 0, at + 2);
    items.writeUInt8(cap === undefined ? 0 : OVER[cap.over], at + 3);
    items.writeUInt8(cap?.share ?? 0, at + 4);
    // The end of a UUIDv7 is its random part.
    items.write(id.replaceAll("-", "").slice(-14), at + 5, 7, "hex");
    items.writeUInt8(attempt & 0xff, at + 12);
    // What expires later than in 49 days may be given a slot in vain.
    if (expiresAtMs !== undefined && expiresAtMs - nowMs <= MAX_DELTA)
      items.writeUInt32BE(Math.max(expiresAtMs - nowMs, 1), at + 13);
    items.writeUInt16BE(heldHours(each, nowMs), at + 17);
  });
  return { items, userIds: [...numbers.keys()] };
}
