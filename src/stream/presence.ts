import type { ChainableCommander } from "ioredis";
import type { Cache } from "#src/cache/redis.ts";
import { loadScript } from "#src/cache/script.ts";
import type { Clock } from "#src/clock.ts";

export type DeviceState = { deviceId: string; online: boolean; lastSeenAt: Date; receivedSeq: number };
export type UserPresence = { online: boolean; devices: DeviceState[]; lastSeenAt: Date | undefined };

type Place = { tenantId: string; userId: string; deviceId: string; streamId: string };

/**
 * Who is connected. A lease in Redis, never a precondition: without Redis everybody is offline and everything else works.
 *
 * One hash per user: `s:<device> <stream>` holds until when a stream's lease runs, `d:<device>` when the device was last
 * seen, `r:<device>` the last sequence it acknowledged. Instants are milliseconds.
 */
export type Presence = {
  arrive(tenantId: string, userId: string, deviceId: string, streamId: string): void;
  renew(places: readonly Place[]): void;
  leave(tenantId: string, userId: string, deviceId: string, streamId: string): void;
  received(tenantId: string, userId: string, deviceId: string, seq: number): Promise<void>;
  read(tenantId: string, userIds: readonly string[]): Promise<UserPresence[]>;
};

const REMEMBER_MS = 30 * 86_400_000;
const MAX_DEVICES = 20;

export function openPresence(cache: Cache, clock: Clock, heartbeatMs: number): Presence {
  const key = (tenantId: string, userId: string) => `${cache.namespace}:{${tenantId}}:presence:${userId}`;
  const leaseMs = 3 * heartbeatMs;
  const remember = loadScript(cache.redis, new URL("./received.lua", import.meta.url));

  function lease(pipeline: ChainableCommander, { tenantId, userId, deviceId, streamId }: Place): ChainableCommander {
    const now = clock().getTime();
    const fields = [`s:${deviceId} ${streamId}`, now + leaseMs, `d:${rememberedAs(deviceId)}`, now];
    return pipeline.hset(key(tenantId, userId), ...fields);
  }

  // Of one turn, sent together: when a proxy goes, ten thousand streams end at once.
  let gathered: ChainableCommander | undefined;
  function gather(): ChainableCommander {
    if (gathered === undefined) {
      gathered = cache.redis.pipeline();
      setImmediate(send);
    }
    return gathered;
  }
  function send(): void {
    gathered?.exec().catch(() => undefined);
    gathered = undefined;
  }

  return {
    renew(places) {
      if (places.length === 0 || !cache.up()) return;
      const pipeline = gather();
      for (const place of places) lease(pipeline, place);
    },
    arrive(tenantId, userId, deviceId, streamId) {
      if (!cache.up()) return;
      // Streams live for hours at most, so the day is put off often enough.
      lease(gather(), { tenantId, userId, deviceId, streamId }).pexpire(key(tenantId, userId), REMEMBER_MS);
    },
    leave(tenantId, userId, deviceId, streamId) {
      if (!cache.up()) return;
      gather()
        .hdel(key(tenantId, userId), `s:${deviceId} ${streamId}`)
        .hset(key(tenantId, userId), `d:${rememberedAs(deviceId)}`, clock().getTime());
    },
    async received(tenantId, userId, deviceId, seq) {
      if (!cache.up()) return;
      const args = [deviceId, seq, clock().getTime(), REMEMBER_MS];
      await remember([key(tenantId, userId)], args).catch(() => undefined);
    },
    async read(tenantId, userIds) {
      const none = userIds.map((): Record<string, string> => ({}));
      if (!cache.up()) return none.map((fields) => presenceOf(fields, clock().getTime()));
      send();
      const pipeline = cache.redis.pipeline();
      for (const userId of userIds) pipeline.hgetall(key(tenantId, userId));
      const answers = await pipeline.exec().catch(() => null);
      const now = clock().getTime();
      return userIds.map((_, index) => presenceOf((answers?.[index]?.[1] ?? {}) as Record<string, string>, now));
    },
  };
}

/** How the ids of devices begin that were made up for one stream. */
export const UNNAMED_DEVICE = "auto";

/** Devices without a name of their own are remembered together, or each of their streams would leave a field behind. */
function rememberedAs(deviceId: string): string {
  return deviceId.startsWith(`${UNNAMED_DEVICE}-`) ? UNNAMED_DEVICE : deviceId;
}

/** Reads a user's hash as of an instant. Pure. */
export function presenceOf(fields: Record<string, string>, now: number): UserPresence {
  const devices = new Map<string, DeviceState>();
  const device = (deviceId: string) => {
    const known = devices.get(deviceId) ?? { deviceId, online: false, lastSeenAt: new Date(0), receivedSeq: 0 };
    devices.set(deviceId, known);
    return known;
  };
  for (const [field, value] of Object.entries(fields)) {
    const name = field.slice(2);
    if (field.startsWith("d:")) device(name).lastSeenAt = new Date(Number(value));
    else if (field.startsWith("r:")) device(name).receivedSeq = Number(value);
    else if (field.startsWith("s:") && Number(value) > now) device(name.slice(0, name.lastIndexOf(" "))).online = true;
  }
  for (const state of devices.values()) if (state.online) state.lastSeenAt = new Date(now);
  const newest = [...devices.values()]
    .filter((state) => state.lastSeenAt.getTime() > now - REMEMBER_MS)
    .sort((a, b) => b.lastSeenAt.getTime() - a.lastSeenAt.getTime())
    .slice(0, MAX_DEVICES);
  return { online: newest.some((state) => state.online), devices: newest, lastSeenAt: newest[0]?.lastSeenAt };
}
