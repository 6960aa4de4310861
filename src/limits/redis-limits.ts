import type { Cache } from "#src/cache/redis.ts";
import { loadScript } from "#src/cache/script.ts";
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

/** Counts those of the wanted that all windows have room for; answers why not for the others, at their positions. */
export type Reserve = (tenantId: string, wanted: readonly Wanted[], nowMs: number) => Promise<(Refusal | undefined)[]>;

/**
 * Counts in Redis, for all processes together, in one round trip; with a global limit in two, because the global count
 * cannot lie with the tenant's in a cluster. Throws when Redis does not answer.
 */
export function redisLimits(cache: Cache, config: NotificationLimitsConfig): Reserve {
  const { redis, namespace } = cache;
  const reserveScript = loadScript(redis, new URL("./notification-limits.lua", import.meta.url));
  const globalScript = loadScript(redis, new URL("./global-limit.lua", import.meta.url));
  const limits = userLimits(config);
  const globalLimit = config.globalPerMinute;

  async function reserveOfTenant(tenantId: string, wanted: readonly Wanted[], nowMs: number) {
    // The tenant as hash tag: a script sees one slot of a cluster, and a chunk is of one tenant, whose limits and users'
    // limits are counted together.
    const prefix = `${namespace}:limits:{${tenantId}}`;
    const { items, userIds } = pack(wanted);
    const keys = [prefix, ...userIds.map((userId) => `${prefix}:${userId}`)];
    const answer = await reserveScript(keys, [nowMs, ...limits, config.perTenantPerMinute, items]);
    return { refusals: refusalsOf(answer as number[], wanted.length), repeated: (answer as number[])[0] ?? 0 };
  }

  async function reserveUnderGlobalLimit(tenantId: string, wanted: readonly Wanted[], nowMs: number) {
    const key = `${namespace}:limits:global:${Math.floor(nowMs / GLOBAL_WINDOW.ms)}`;
    const exempt = wanted.filter((each) => each.exempt).length;
    const asked = wanted.length - exempt;
    const [granted, counted, refused] = (await globalScript([key], [globalLimit, asked, exempt])) as Triple;
    const result: (Refusal | undefined)[] = [];
    const admitted: { item: Wanted; position: number }[] = [];
    let left = granted;
    let ahead = refused;
    for (const [position, item] of wanted.entries()) {
      result.push(undefined);
      if (item.exempt || left-- > 0) admitted.push({ item, position });
      else result[position] = shared(GLOBAL_WINDOW, counted + granted, globalLimit, ahead++);
    }
    const { refusals, repeated } = await reserveOfTenant(
      tenantId,
      admitted.map(({ item }) => item),
      nowMs,
    );
    admitted.forEach(({ position }, index) => {
      result[position] = refusals[index];
    });
    const unused = repeated + refusals.filter((refusal) => refusal !== undefined).length;
    if (unused > 0) redis.hincrby(key, "counted", -unused).catch(() => undefined); // Counted for nothing until the minute ends.
    return result;
  }

  /** As the script answers them. */
  function refusalsOf(answer: readonly number[], size: number): (Refusal | undefined)[] {
    const refusals = new Array<Refusal | undefined>(size).fill(undefined);
    for (let at = 1; at < answer.length; at += 8) {
      const [position = 0, number = 0, ...rest] = answer.slice(at, at + 8);
      const [userUsage, [tenantUsage = 0, ahead = 0]] = [rest.slice(0, 4), rest.slice(4)];
      const window = USER_WINDOWS[number - 1];
      const usage = userUsage[number - 1] ?? 0;
      refusals[position] =
        window === undefined
          ? shared(TENANT_WINDOW, tenantUsage, config.perTenantPerMinute, ahead)
          : { window, usage, limit: limits[number - 1] ?? 0, userUsage, ahead };
    }
    return refusals;
  }

  return async (tenantId, wanted, nowMs) =>
    globalLimit > 0
      ? reserveUnderGlobalLimit(tenantId, wanted, nowMs)
      : (await reserveOfTenant(tenantId, wanted, nowMs)).refusals;
}

function shared(window: Window, usage: number, limit: number, ahead: number): Refusal {
  return { window, usage, limit, userUsage: undefined, ahead };
}

type Triple = [number, number, number];
const ITEM_BYTES = 11;

/** As the script reads it. */
function pack(wanted: readonly Wanted[]): { items: Buffer; userIds: string[] } {
  const items = Buffer.alloc(wanted.length * ITEM_BYTES);
  const numbers = new Map<string, number>();
  wanted.forEach(({ id, userId, attempt, exempt }, position) => {
    let number = numbers.get(userId);
    if (number === undefined) {
      number = numbers.size + 1;
      numbers.set(userId, number);
    }
    const at = position * ITEM_BYTES;
    items.writeUInt16BE(number, at);
    items.writeUInt8(exempt ? 1 : 0, at + 2);
    // The end of a UUIDv7 is its random part.
    items.write(id.replaceAll("-", "").slice(-14), at + 3, 7, "hex");
    items.writeUInt8(attempt & 0xff, at + 10);
  });
  return { items, userIds: [...numbers.keys()] };
}
