import { Reason } from "#gen/posthorn/v1/notification_pb.ts";

/** What happens to a limit while Redis is away: each process counts by itself, or all wait. */
export type OnRedisDown = "open-local" | "closed";

/** Settings of the notification limits (`config.notificationLimits`). */
export type NotificationLimitsConfig = {
  perUser: { burst: number; perMinute: number; perHour: number; perDay: number };
  /** 0: no limit. */
  perTenantPerMinute: number;
  /** 0: no limit. */
  globalPerMinute: number;
  backoffMultiplier: number;
  maxBackoffMs: number;
  onRedisDown: { user: OnRedisDown; tenant: OnRedisDown; global: OnRedisDown };
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
/** The user's own cap (cap.ts). */
export const CAP_WINDOW = { name: "user_cap", ms: 60 * MINUTE_MS, reason: Reason.HOURLY_CAP } as const;

export type Window = (typeof USER_WINDOWS)[number] | typeof TENANT_WINDOW | typeof GLOBAL_WINDOW | typeof CAP_WINDOW;

/** By the numbers that the script gives them, from 1. */
export const WINDOWS: readonly Window[] = [...USER_WINDOWS, TENANT_WINDOW, GLOBAL_WINDOW, CAP_WINDOW];

/** How many each of WINDOWS allows, but for the cap: that is the user's. */
export function limitsOf({ perUser, perTenantPerMinute, globalPerMinute }: NotificationLimitsConfig): number[] {
  return [perUser.burst, perUser.perMinute, perUser.perHour, perUser.perDay, perTenantPerMinute, globalPerMinute];
}

/** A notification that wants to be counted. */
export type Wanted = {
  /** A UUID. */
  id: string;
  userId: string;
  /** Decisions before this one. The same attempt, asked again within two minutes, is not counted again. */
  attempt: number;
  /** CRITICAL, or sent past the limits: counted, never refused, but for the cap. */
  exempt: boolean;
  /** The user's hourly cap; undefined: none. */
  cap?: Cap | undefined;
  /** The turn that the cap gave it before; it is counted in that hour. */
  capTurnMs?: number | undefined;
  /** It is not given a slot from then on: what cannot go in time must not keep others waiting. */
  expiresAtMs?: number | undefined;
};

/**
 * `share`: how much of `perHour` it and those before it may use. `over`: what becomes of it beyond that: it is
 * refused, for the digest; it is given a turn in another hour; or it goes all the same, and is counted.
 */
export type Cap = { perHour: number; share: number; over: "digest" | "wait" | "pass" };

/** The limit that one waits for. Of several full windows the one that lasts longest. */
export type Limit = {
  window: Window;
  /** What counts in that window as it is now. */
  usage: number;
  limit: number;
};

/** When one may go. */
export type Slot = {
  /** Now or before: at once. Later: its turn, behind all that were given theirs before. */
  atMs: number;
  /**
   * It is counted there. Else nothing is: it would expire before, and there is nothing to come back for; or the cap has
   * refused it, and `atMs` is in the hour that is full; or the cap's next hour with room is too far ahead.
   */
  counted: boolean;
  /** Undefined when it may go at once. */
  limit: Limit | undefined;
  /**
   * Where it goes at once: of the windows that were asked the one with the fewest left, and what the hour of its user's
   * cap has, both without it. Undefined where these were not asked, or it was counted before.
   */
  nearest?: Limit | undefined;
  capUsed?: number | undefined;
};

export function windowEnd({ ms }: { ms: number }, nowMs: number): number {
  return (Math.floor(nowMs / ms) + 1) * ms;
}
