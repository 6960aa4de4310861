import { Gate } from "#gen/posthorn/v1/explain_pb.ts";
import { Reason } from "#gen/posthorn/v1/notification_pb.ts";

/** The gate that objects with a reason; undefined for reasons that no gate has. */
export function gateOf(reason: Reason): Gate | undefined {
  return GATES.get(reason);
}

const GATES: ReadonlyMap<Reason, Gate> = new Map([
  [Reason.EXPIRED, Gate.EXPIRY],
  [Reason.TYPE_DELETED, Gate.TYPE_EXISTS],
  [Reason.USER_OPTED_OUT, Gate.OPT_OUT],
  [Reason.TYPE_DISABLED, Gate.TYPE_SWITCH],
  [Reason.CATEGORY_DISABLED, Gate.TYPE_SWITCH],
  [Reason.CHANNEL_DISABLED, Gate.CHANNEL_SWITCH],
  [Reason.EMERGENCY_ONLY, Gate.CHANNEL_SWITCH],
  [Reason.CHANNEL_UNAVAILABLE, Gate.CHANNEL_AVAILABLE],
  [Reason.BELOW_MINIMUM_PRIORITY, Gate.MINIMUM_PRIORITY],
  [Reason.FILTERED, Gate.SUBSCRIPTIONS],
  [Reason.SCHEDULED, Gate.SCHEDULE],
  [Reason.QUIET_HOURS, Gate.QUIET_HOURS],
  [Reason.DO_NOT_DISTURB, Gate.DO_NOT_DISTURB],
  [Reason.WEEKEND, Gate.WEEKEND],
  [Reason.OPTIMAL_TIMING, Gate.OPTIMAL_TIMING],
  [Reason.DIGEST, Gate.DIGEST],
  [Reason.DIGEST_ONLY, Gate.DIGEST],
  [Reason.BATCHING, Gate.BATCH],
  [Reason.HOURLY_CAP, Gate.HOURLY_CAP],
  [Reason.USER_BURST_LIMIT, Gate.RATE_LIMITS],
  [Reason.USER_MINUTE_LIMIT, Gate.RATE_LIMITS],
  [Reason.USER_HOUR_LIMIT, Gate.RATE_LIMITS],
  [Reason.USER_DAY_LIMIT, Gate.RATE_LIMITS],
  [Reason.TENANT_LIMIT, Gate.RATE_LIMITS],
  [Reason.GLOBAL_LIMIT, Gate.RATE_LIMITS],
  [Reason.LIMITER_UNAVAILABLE, Gate.RATE_LIMITS],
]);
