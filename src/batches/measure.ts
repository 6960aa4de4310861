import { BatchKind } from "#gen/posthorn/v1/batch_service_pb.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import type { Dissolved } from "./dissolve.ts";

/** Counts batches whose members go as themselves, once that is committed. */
export function measureDissolved(metrics: Pick<Metrics, "batchesClosed">, dissolved: Dissolved): void {
  for (const kind of dissolved) metrics.batchesClosed.inc({ kind: kindOf(kind), reason: "dissolved" });
}

export function kindOf(kind: BatchKind): "digest" | "batch" {
  return kind === BatchKind.DIGEST ? "digest" : "batch";
}
