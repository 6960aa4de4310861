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
  ...rest
}: {
  cache: Cache;
  config: NotificationLimitsConfig;
  clock: Clock;
  metrics: Metrics;
  log: Pick<Logger, "info" | "error">;
}): NotificationLimitsDeps {
  return {
    ...rest,
    clock: () => clock().getTime(),
    onAlert: (state, err) =>
      state === "recovered"
        ? log.info("the limits are kept in Redis again")
        : log.error({ err }, "Redis is away; the limits follow their policy for that"),
  };
}

/** To ask them without counting. */
export function looking(deps: NotificationLimitsDeps) {
  return { look: lookingAtLimits(deps), lookAtChannels: lookingAtChannelLimits(deps) };
}
