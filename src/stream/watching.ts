import type { Span } from "@opentelemetry/api";
import { LiveEvent_Kind as Kind } from "#gen/posthorn/internal/v1/live_pb.ts";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import type { Fault } from "#src/errors.ts";
import { ATTR, processing } from "#src/telemetry/conventions.ts";
import { parse } from "#src/telemetry/message-traces.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { spanIn } from "#src/telemetry/work-spans.ts";
import type { ReceivedEvent } from "./live-event.ts";

/** Begins to watch an event on its way to `streams` streams; call what it answers when it is there, at that time. */
export function watchEvent(
  metrics: Pick<Metrics, "streamSeconds">,
  event: ReceivedEvent,
  streams: number,
): (now: Date) => void {
  const span = streamSpan(event, streams);
  return (now) => {
    span?.end();
    if (event.acceptedMs === 0) return;
    metrics.streamSeconds.observe(Math.max(0, now.getTime() - event.acceptedMs) / 1000);
  };
}

/** The event of a notification on its way to the streams, in the notification's trace. */
function streamSpan(event: ReceivedEvent, streams: number): Span | undefined {
  const parent = parse(event.traceparent);
  if (parent === undefined) return undefined;
  return spanIn(parent, processing("live.user", { [ATTR.sequence]: event.sequence, [ATTR.streams]: streams }));
}

/** Why a stream ended, as a label. */
export function endingOf(fault: Fault | undefined, signal: AbortSignal): string {
  if (fault !== undefined) return ENDINGS[fault.reason] ?? "error";
  return signal.aborted ? "caller" : "reconnect";
}

const ENDINGS: Partial<Record<ErrorReason, string>> = {
  [ErrorReason.OVERLOADED]: "slow",
  [ErrorReason.CREDENTIAL_EXPIRED]: "credential",
  [ErrorReason.CREDENTIAL_INVALID]: "credential",
  [ErrorReason.SHUTTING_DOWN]: "drain",
  [ErrorReason.DEPENDENCY_UNAVAILABLE]: "dependency",
};

/** What streams are given, as a label. */
export const KIND_NAMES: Readonly<Record<number, string>> = {
  [Kind.ARRIVAL]: "notification",
  [Kind.STATUS]: "status",
  [Kind.NOTICE]: "notice",
  [Kind.ANNOUNCEMENT]: "announcement",
  [Kind.MEMBERSHIP]: "membership",
};
