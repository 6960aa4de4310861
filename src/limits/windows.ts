import { Reason } from "#gen/posthorn/v1/notification_pb.ts";

/** Settings of the notification limits (`config.notificationLimits`). */
export type NotificationLimitsConfig = {
  perUser: { burst: number; perMinute: number; perHour: number; perDay: number };
  /** 0: no limit. */
  perTenantPerMinute: number;
  /** 0: no limit. */
  globalPerMinute: number;
  backoffMultiplier: number;
  maxBackoffMs: number;
  onRedisDown: "open-local" | "closed";
};

const MINUTE_MS = 60_000;

/** A user's windows, from the shortest; each begins where a shorter one does. Aligned to the clock, days to UTC. */
export const USER_WINDOWS = [
  { name: "user_burst", ms: 10_000, reason: Reason.USER_BURST_LIMIT },
  { name: "user_minute", ms: MINUTE_MS, reason: Reason.USER_MINUTE_LIMIT },
  { name: "user_hour", ms: 60 * MINUTE_MS, reason: Reason.USER_HOUR_LIMIT },
  { name: "user_day", ms: 24 * 60 * MINUTE_MS, reason: Reason.USER_DAY_LIMIT },
] as const;
export const TENANT_WINDOW = { name: "tenant", ms: MINUTE_MS, reason: Reason.TENANT_LIMIT } as const;
export const GLOBAL_WINDOW = { name: "global", ms: MINUTE_MS, reason: Reason.GLOBAL_LIMIT } as const;

export type Window = (typeof USER_WINDOWS)[number] | typeof TENANT_WINDOW | typeof GLOBAL_WINDOW;

/** How many each of USER_WINDOWS allows. */
export function userLimits({ perUser }: NotificationLimitsConfig): readonly number[] {
  return [perUser.burst, perUser.perMinute, perUser.perHour, perUser.perDay];
}

/** A notification that wants to be counted. */
export type Wanted = {
  /** A UUID. */
  id: string;
  userId: string;
  /** Decisions before this one. The same attempt, asked again within two minutes, is not counted again. */
  attempt: number;
  /** CRITICAL, or sent past the limits: counted, never refused. */
  exempt: boolean;
};

/** Why one was not counted. Of several full windows the one that lasts longest. */
export type Refusal = {
  window: Window;
  /** What was counted in that window before. */
  usage: number;
  limit: number;
  /** A user's window: what was counted in each of USER_WINDOWS. Undefined for windows that users share. */
  userUsage: readonly number[] | undefined;
  /** How many of the same owner (user, tenant, all) were refused before it in this minute: the queue it stands in. */
  ahead: number;
};

export function windowEnd({ ms }: { ms: number }, nowMs: number): number {
  return (Math.floor(nowMs / ms) + 1) * ms;
}
