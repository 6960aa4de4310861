import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { madeAtMs } from "#src/ids.ts";
import { channelsOf } from "#src/notifications/channel-bits.ts";
import { channelName, reasonName, statusName } from "#src/notifications/names.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { laneOf } from "../flow.ts";
import type { Conclusion } from "./conclusion.ts";
import type { Waiting } from "./load.ts";

export type Measured = {
  waiting: readonly Waiting[];
  /** One for each of `waiting`, in their order. */
  conclusions: readonly Conclusion[];
  /** Ids whose conclusion was stored. */
  decided: ReadonlySet<string>;
};

/** When a chunk's steps were done, by `performance.now()`. */
export type Steps = { started: number; loaded: number; concluded: number; committed: number };

/**
 * At `debug`, a line for each decision: what it was about and what became of it. Above that a notification is told of
 * only when it fails, by the worker: the others are in its timeline, and would fill the log.
 */
export function logDecisions(log: Logger, tenant: string, { waiting, conclusions, decided }: Measured): void {
  if (!log.isLevelEnabled("debug")) return;
  conclusions.forEach(({ id, status, reason }, index) => {
    const row = waiting[index];
    if (row === undefined || !decided.has(id)) return;
    const { userId: user, type } = row;
    const channels = channelsOf(row.channels).map(channelName);
    const why = reason === Reason.UNSPECIFIED ? {} : { reason: reasonName(reason) };
    log.debug({ tenant, user, notification: id, type, channels, status: statusName(status), ...why }, "decided");
  });
}

/** Counts what became of a chunk, which was committed at `now`. */
export function measureChunk(metrics: Metrics, chunk: Measured, steps: Steps, now: Date): void {
  const lane = laneOf(chunk.waiting[0]?.priority ?? 0).name;
  const seconds = (from: number, to: number) => (to - from) / 1000;
  metrics.routeChunkItems.observe({ lane }, chunk.waiting.length);
  metrics.routeChunkSeconds.observe({ lane }, seconds(steps.started, steps.committed));
  metrics.routeStepSeconds.observe({ step: "load" }, seconds(steps.started, steps.loaded));
  metrics.routeStepSeconds.observe({ step: "decide" }, seconds(steps.loaded, steps.concluded));
  metrics.routeStepSeconds.observe({ step: "commit" }, seconds(steps.concluded, steps.committed));
  const counts = new Map<number, number>();
  let begun = 0;
  for (const { id, status, reason, escalation } of chunk.conclusions) {
    if (!chunk.decided.has(id)) continue;
    if (escalation !== undefined && escalation.steps.length > 0) begun++;
    const key = status * 1000 + reason;
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  for (const [key, count] of counts) {
    const [status, reason] = [Math.floor(key / 1000), key % 1000];
    // With the decision only the inbox is delivered to.
    const channel = status === Status.DELIVERED ? "in_app" : "none";
    metrics.decided.inc({ channel, status: statusName(status), lane }, count);
    if (reason !== Reason.UNSPECIFIED) metrics.verdicts.inc({ reason: reasonName(reason), lane }, count);
  }
  if (begun > 0) metrics.escalationsBegun.inc(begun);
  measureWay(metrics, chunk, lane, now);
}

/** The part of a UUIDv7 that is its millisecond. */
const TIME_LENGTH = "01234567-89ab".length;

/**
 * How long what was delivered at its first decision has been on its way. The rows come in the order of their ids, so
 * those accepted in the same millisecond follow each other and are counted at once.
 */
function measureWay(metrics: Metrics, { waiting, conclusions, decided }: Measured, lane: string, now: Date): void {
  let time = "";
  let count = 0;
  const tell = () => {
    if (count > 0) metrics.endToEndSeconds.observe({ lane }, (now.getTime() - madeAtMs(time)) / 1000, count);
    count = 0;
  };
  waiting.forEach(({ id, attempts, scheduledAt }, index) => {
    if (attempts > 0 || scheduledAt !== null || conclusions[index]?.status !== Status.DELIVERED) return;
    if (!decided.has(id)) return;
    if (time === "" || !id.startsWith(time)) {
      tell();
      time = id.slice(0, TIME_LENGTH);
    }
    count++;
  });
  tell();
}
