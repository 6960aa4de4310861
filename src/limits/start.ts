import type { Cache } from "#src/cache/redis.ts";
import type { Clock } from "#src/clock.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { lookingAtChannelLimits } from "./channel-limits.ts";
import { lookingAtLimits, type NotificationLimitsDeps } from "./notification-limits.ts";
import type { NotificationLimitsConfig } from "./windows.ts";

/** What both the limits of notifications and those of channels are made of. */
export function limitsDeps({
  clock,
  log,
  redisClock,
  ...rest
}: {
  cache: Cache;
  config: NotificationLimitsConfig;
  clock: Clock;
  metrics: Metrics;
  log: Pick<Logger, "info" | "error">;
  redisClock?: Clock | undefined;
}): NotificationLimitsDeps {
  return {
    ...rest,
    clock: () => clock().getTime(),
    redisNow: redisClock && (() => redisClock().getTime()),
    onAlert(state, err) {
      if (state === "redis-down" || state === "clock-apart") log.error({ err }, ALERTS[state]);
      else log.info(ALERTS[state]);
    },
  };
}

const ALERTS = {
  "redis-down": "Redis is away; the limits follow their policy for that",
  recovered: "the limits are kept in Redis again",
  "clock-apart":
    "this clock is more than a minute off Redis's: limits count by that, and what is over them has no turn",
  "clock-agrees": "this clock agrees with Redis's again",
} as const;

/** To ask them without counting. */
export function looking(deps: NotificationLimitsDeps) {
  return { look: lookingAtLimits(deps), lookAtChannels: lookingAtChannelLimits(deps) };
}
