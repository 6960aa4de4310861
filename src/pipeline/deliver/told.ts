import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  RateLimitStatusSchema,
  Reason,
  TimelineEntrySchema,
  VerdictKind,
  VerdictSchema,
} from "#gen/posthorn/v1/notification_pb.ts";
import type { Claimed } from "./claim.ts";
import type { CameOf, Result } from "./record.ts";

type Told = CameOf & Pick<Result, "cancelledBy">;

/** What is kept of it on the timeline. */
export function detailOf(result: Told & { claimed: Pick<Claimed, "step" | "channel"> }): Uint8Array {
  const { step, channel } = result.claimed;
  const reason = reasonOf(result);
  if (result.kind === "held") {
    const { until, stood } = result.hold;
    const entry = create(TimelineEntrySchema, { step });
    entry.verdicts = [
      create(VerdictSchema, { channel, kind: VerdictKind.HOLD, reason, until: timestampFromDate(until) }),
    ];
    if (stood !== undefined) {
      const { usage, limit, resetAt } = stood;
      entry.rateLimit = create(RateLimitStatusSchema, {
        window: reason,
        usage,
        limit,
        resetTime: timestampFromDate(resetAt),
      });
    }
    return toBinary(TimelineEntrySchema, entry);
  }
  const verdict = { channel, kind: VERDICTS[result.kind] ?? VerdictKind.SUPPRESS, reason };
  return toBinary(TimelineEntrySchema, create(TimelineEntrySchema, { step, verdicts: [verdict] }));
}

const VERDICTS: { [kind in CameOf["kind"]]?: VerdictKind } = {
  sent: VerdictKind.DELIVER,
  unknown: VerdictKind.UNKNOWN,
};

export function reasonOf(result: Told): Reason {
  if (result.kind === "sent") return Reason.UNSPECIFIED;
  if (result.kind === "unknown") return Reason.OUTCOME_UNKNOWN;
  if (result.kind === "cancelled") return result.cancelledBy?.reason ?? Reason.CANCELLED;
  if (result.kind === "unwanted") return result.reason;
  if (result.kind === "held") return result.hold.reason;
  return result.kind === "expired" ? (result.reason ?? Reason.EXPIRED) : Reason.CHANNEL_UNAVAILABLE;
}
