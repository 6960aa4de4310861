import { BatchKind, BatchState } from "#gen/posthorn/v1/batch_service_pb.ts";
import { kindOf } from "#src/batches/measure.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import type { Closing } from "./closing.ts";
import type { DueBatch } from "./queries.ts";

type Counted = Pick<Metrics, "batchesClosed" | "batchItems" | "schedulerLagSeconds">;

/** Counts what has closed, once that is committed. What stays open is none. */
export function measureClosings(metrics: Counted, closings: readonly Closing[], now: Date): void {
  for (const { batch, merged, heldUntil, refused } of closings) {
    if (heldUntil !== undefined) continue;
    const kind = kindOf(batch.kind);
    if (refused !== undefined) {
      metrics.batchesClosed.inc({ kind, reason: "cap" });
      continue;
    }
    metrics.batchesClosed.inc({ kind, reason: whyClosed(batch) });
    metrics.batchItems.observe({ kind }, merged.length);
    metrics.schedulerLagSeconds.observe({ kind: "batch" }, (now.getTime() - batch.flushAt.getTime()) / 1000);
  }
}

/** Why a batch closes: it is full, its time has come, or somebody asked for it. A full digest waits for its time. Pure. */
export function whyClosed({
  kind,
  state,
  joined,
  maxSize,
}: Pick<DueBatch, "kind" | "state" | "joined" | "maxSize">): "size" | "window" | "early" {
  if (state === BatchState.OPEN) return "window";
  if (joined < maxSize) return "early";
  return kind === BatchKind.DIGEST ? "window" : "size";
}
