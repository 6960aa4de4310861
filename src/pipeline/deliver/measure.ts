import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { channelName, reasonName, statusName } from "#src/notifications/names.ts";
import { ATTR, handingOver, type SpanShape } from "#src/telemetry/conventions.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import type { Claimed } from "./claim.ts";
import type { Stored } from "./load.ts";
import type { CameOf } from "./record.ts";

/**
 * What came of a hand-over, for metrics, logs and spans. `retry`: not now; `refused`: never; `given_up`: not once in all its
 * attempts; `unavailable`: this server has no such channel; `dropped`: it had ended or was answered; `unwanted`: its
 * recipient's rules refuse the channel by now; `given_back`: the server was asked to stop before the channel answered, and
 * leaves it to another; `held`: a limit of the channel gives it a later turn; `unknown`: the channel may have taken it, and
 * is not given it again; `cancelled`: somebody cancelled it while a server that died had it.
 */
export type HandOverOutcome =
  | "sent"
  | "retry"
  | "refused"
  | "given_up"
  | "unavailable"
  | "expired"
  | "dropped"
  | "unwanted"
  | "given_back"
  | "held"
  | "unknown"
  | "cancelled";

/** What became of it, and the same more exactly. */
export type HandedOver = CameOf & { outcome: HandOverOutcome };

/** Counts the start of hand-overs. */
export function measureClaimed(
  metrics: Pick<Metrics, "schedulerLagSeconds">,
  claimed: readonly Claimed[],
  now: Date,
): void {
  for (const { dueAt } of claimed)
    metrics.schedulerLagSeconds.observe({ kind: "hand-over" }, (now.getTime() - dueAt.getTime()) / 1000);
}

/** Counts a hand-over; the time it took, and whether it may have come twice, only where the channel was asked. */
export function measureHandOver(
  metrics: Pick<Metrics, "handOvers" | "handOverSeconds" | "handOverRepeats">,
  { channel: number, dueAt, inDoubt }: Claimed,
  outcome: HandOverOutcome,
  now: Date,
): void {
  const channel = channelName(number);
  metrics.handOvers.inc({ channel, outcome });
  if (!ASKED.has(outcome)) return;
  if (inDoubt) metrics.handOverRepeats.inc({ channel });
  metrics.handOverSeconds.observe({ channel }, Math.max(0, now.getTime() - dueAt.getTime()) / 1000);
}

const ASKED: ReadonlySet<HandOverOutcome> = new Set(["sent", "retry", "refused", "given_up"]);

/** The fields of its line in the log. `status`: of the notification, once the outcome is stored. */
export function handOverFields(claimed: Claimed, stored: Stored | undefined, handed: HandedOver) {
  const { outcome } = handed;
  const { tenantId: tenant, userId: user, notificationId: notification, channel, step, attempts } = claimed;
  const about = { tenant, user, notification, type: stored?.type, channels: [channelName(channel)], step, attempts };
  const before = stored === undefined ? undefined : statusName(stored.status);
  const isFirst = outcome === "sent" && stored?.status === Status.PROCESSING;
  const reason = reasonGiven(handed) ?? REASONS[outcome];
  return {
    ...about,
    status: isFirst ? statusName(Status.DELIVERED) : before,
    outcome,
    ...(reason === undefined ? {} : { reason: reasonName(reason) }),
  };
}

function reasonGiven(handed: HandedOver): Reason | undefined {
  if (handed.kind === "held") return handed.hold.reason;
  return handed.kind === "unwanted" || handed.kind === "expired" ? handed.reason : undefined;
}

const REASONS: Partial<Record<HandOverOutcome, Reason>> = {
  retry: Reason.CHANNEL_UNAVAILABLE,
  refused: Reason.CHANNEL_UNAVAILABLE,
  given_up: Reason.CHANNEL_UNAVAILABLE,
  unavailable: Reason.CHANNEL_UNAVAILABLE,
  expired: Reason.EXPIRED,
  unknown: Reason.OUTCOME_UNKNOWN,
  cancelled: Reason.CANCELLED,
};

export function handOverSpan({ tenantId, notificationId, channel, step, attempts }: Claimed): SpanShape {
  return handingOver(channelName(channel), notificationId, {
    [ATTR.tenant]: tenantId,
    [ATTR.notification]: notificationId,
    [ATTR.step]: step,
    [ATTR.handOverAttempt]: attempts,
  });
}

const FINE: ReadonlySet<HandOverOutcome> = new Set(["sent", "dropped", "unwanted", "given_back", "held", "cancelled"]);

/** Whether the span of it tells of a failure. */
export function hasFailed(outcome: HandOverOutcome): boolean {
  return !FINE.has(outcome);
}
