import { type CloseDeps, closeDue } from "#src/pipeline/close/close.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";

/** Closes the batches and digests whose time has come. */
export async function flush(
  { close, metrics }: { close: CloseDeps; metrics: Pick<Metrics, "schedulerReleased"> },
  now: Date,
  limit: number,
): Promise<{ more: boolean }> {
  const { seen, closed } = await closeDue(close, now, limit);
  metrics.schedulerReleased.inc({ kind: "batch" }, closed);
  // Where others have them all in hand there is nothing to hurry for.
  return { more: seen === limit && closed > 0 };
}
