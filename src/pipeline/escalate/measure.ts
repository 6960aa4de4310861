import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import type { Command } from "#src/escalation/state.ts";
import { channelName, reasonName, statusName } from "#src/notifications/names.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import type { Moved } from "./escalate.ts";

type Counted = Pick<Metrics, "escalationSteps" | "escalationsEnded" | "schedulerLagSeconds">;

/** Counts the turns of steps, what they ended, and how late they were. */
export function measureSteps(metrics: Counted, moved: readonly Moved[], now: Date): void {
  for (const { commands, dueAt } of moved) {
    if (dueAt !== undefined)
      metrics.schedulerLagSeconds.observe({ kind: "step" }, (now.getTime() - dueAt.getTime()) / 1000);
    for (const command of commands) {
      switch (command.kind) {
        case "unanswered":
          metrics.escalationsEnded.inc({ outcome: "missing" });
          break;
        case "cancelled":
          metrics.escalationsEnded.inc({ outcome: "cancelled" });
          break;
        default:
          metrics.escalationSteps.inc({ channel: channelName(command.channel), outcome: OUTCOMES[command.kind] });
      }
    }
  }
}

const OUTCOMES = {
  handOver: "taken",
  held: "held",
  passedOn: "passed_on",
  unanswered: "missing",
  cancelled: "cancelled",
} as const satisfies Record<Command["kind"], string>;

/** At `debug`, a line for each turn: what its timeline says, too. */
export function logSteps(log: Logger, tenant: string, moved: readonly Moved[]): void {
  if (!log.isLevelEnabled("debug")) return;
  for (const { notificationId: notification, userId: user, subject, commands } of moved) {
    const about = { tenant, user, notification, type: subject.type, status: statusName(subject.status) };
    for (const command of commands) log.debug({ ...about, ...fieldsOf(command) }, "a step of an escalation");
  }
}

function fieldsOf(command: Command): object {
  const outcome = OUTCOMES[command.kind];
  switch (command.kind) {
    case "unanswered":
      return { outcome, channels: [], reason: reasonName(Reason.CONFIRMATION_MISSING) };
    case "cancelled":
      return { outcome, channels: [], reason: reasonName(command.reason) };
    case "handOver":
      return { outcome, channels: [channelName(command.channel)], step: command.step };
    default: {
      const { channel, step, reason } = command;
      return { outcome, channels: [channelName(channel)], step, reason: reasonName(reason) };
    }
  }
}
