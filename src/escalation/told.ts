import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Reason, TimelineEntrySchema, VerdictKind } from "#gen/posthorn/v1/notification_pb.ts";
import type { Command } from "./state.ts";

export type Told = { channel: number; reason: Reason; detail: Uint8Array | undefined };

/**
 * What the timeline says of what became of a step: `detail` is an encoded TimelineEntry. Undefined: nothing, because that
 * one was handed over is told by who does it. Pure.
 */
export function toldOf(command: Command): Told | undefined {
  switch (command.kind) {
    case "handOver":
      return undefined;
    case "unanswered":
      return { channel: 0, reason: Reason.CONFIRMATION_MISSING, detail: undefined };
    case "cancelled":
      return { channel: 0, reason: command.reason, detail: undefined };
    case "held":
    case "passedOn": {
      const { channel, reason, step } = command;
      const held = command.kind === "held";
      const verdict = {
        channel,
        reason,
        kind: held ? VerdictKind.HOLD : VerdictKind.SUPPRESS,
        ...(held ? { until: timestampFromDate(command.until) } : {}),
      };
      const detail = toBinary(TimelineEntrySchema, create(TimelineEntrySchema, { step, verdicts: [verdict] }));
      return { channel, reason, detail };
    }
    default:
      return command satisfies never;
  }
}
