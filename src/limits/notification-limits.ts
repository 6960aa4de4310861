import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { circuit } from "#src/cache/circuit.ts";
import type { Cache } from "#src/cache/redis.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { jitter, sharedSlot, userSlot } from "./hold-until.ts";
import { localLimits } from "./local-limits.ts";
import { redisLimits } from "./redis-limits.ts";
import { type NotificationLimitsConfig, type Refusal, userLimits, type Wanted, windowEnd } from "./windows.ts";

/** `until`: when to try again; `resetAt`: when the window ends that was full. */
export type Reservation =
  | { allowed: true }
  | { allowed: false; reason: Reason; until: Date; usage: number; limit: number; resetAt: Date };

export type NotificationLimitsDeps = {
  cache: Cache;
  config: NotificationLimitsConfig;
  /** At least 0, less than 1. */
  random: () => number;
  /** Ms from any start, for the pause after a failure. */
  clock: () => number;
  metrics: Pick<Metrics, "limiterDecisions" | "limiterFallback" | "redisSeconds">;
  /** Told when Redis stops and starts to answer. */
  onAlert: (state: "redis-down" | "recovered", error?: unknown) => void;
};

/**
 * How many notifications users, tenants and all together get (per ten seconds, minute, hour, day). What is over waits:
 * nothing is lost.
 *
 * `reserve` answers for each of the wanted, in their order. Each is counted in every window or in none, exactly once
 * however often the same attempt is asked for within two minutes, and never beyond a limit however many processes ask at
 * once; exempt ones are counted and never refused. `now` decides which windows are open. It takes one round trip to
 * Redis (two with a global limit) and never fails: within 100 ms without an answer, and at once while Redis is known to
 * be away, the policy applies — "open-local": this process counts by itself; "closed": all but the exempt wait 5 s
 * (LIMITER_UNAVAILABLE).
 */
export type NotificationLimits = {
  reserve(tenantId: string, wanted: readonly Wanted[], now: Date): Promise<readonly Reservation[]>;
};

const ALLOWED: Reservation = { allowed: true };
const CLOSED_HOLD_MS = 5000;

export function notificationLimits(deps: NotificationLimitsDeps): NotificationLimits {
  const { cache, config, random, clock, metrics } = deps;
  const inRedis = redisLimits(cache, config);
  const inProcess = localLimits(config);
  const limits = userLimits(config);
  const redis = circuit({
    up: () => cache.up(),
    clock,
    onChange: (state, error) => deps.onAlert(state === "failed" ? "redis-down" : "recovered", error),
  });

  function held(refusal: Refusal, attempt: number, nowMs: number): Reservation {
    const { window, usage, limit, userUsage, ahead } = refusal;
    const slot =
      userUsage === undefined ? sharedSlot(window.ms, limit, ahead, nowMs) : userSlot(userUsage, limits, ahead, nowMs);
    const until = new Date(slot + jitter(attempt, config, random()));
    return { allowed: false, reason: window.reason, until, usage, limit, resetAt: new Date(windowEnd(window, nowMs)) };
  }

  function waits(attempt: number, nowMs: number): Reservation {
    const until = new Date(nowMs + CLOSED_HOLD_MS + jitter(attempt, config, random()));
    return { allowed: false, reason: Reason.LIMITER_UNAVAILABLE, until, usage: 0, limit: 0, resetAt: until };
  }

  function count(reservations: readonly Reservation[], refusals: readonly (Refusal | undefined)[], fallback: boolean) {
    const counter = fallback ? metrics.limiterFallback : metrics.limiterDecisions;
    const held = new Map<string, number>();
    reservations.forEach(({ allowed }, index) => {
      const limit = allowed ? "none" : (refusals[index]?.window.name ?? "unavailable");
      held.set(limit, (held.get(limit) ?? 0) + 1);
    });
    for (const [limit, n] of held) counter.inc({ limit, decision: limit === "none" ? "allowed" : "held" }, n);
  }

  return {
    async reserve(tenantId, wanted, now) {
      if (wanted.length === 0) return [];
      const nowMs = now.getTime();
      const started = performance.now();
      const counted = await redis.attempt(() => inRedis(tenantId, wanted, nowMs));
      if (counted !== undefined) metrics.redisSeconds.observe((performance.now() - started) / 1000);
      const closed = counted === undefined && config.onRedisDown === "closed";
      const refusals = counted ?? (closed ? [] : inProcess(tenantId, wanted, nowMs));
      const reservations = wanted.map(({ attempt, exempt }, index) => {
        if (closed) return exempt ? ALLOWED : waits(attempt, nowMs);
        const refusal = refusals[index];
        return refusal === undefined ? ALLOWED : held(refusal, attempt, nowMs);
      });
      count(reservations, refusals, counted === undefined);
      return reservations;
    },
  };
}
