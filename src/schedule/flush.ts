import type { AdaptiveSize } from "#src/pipeline/adaptive.ts";
import { type CloseDeps, closeDue } from "#src/pipeline/close/close.ts";
import type { MemoryGuard } from "#src/pipeline/memory.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";

type FlushDeps = {
  close: CloseDeps;
  memory: Pick<MemoryGuard, "pressure">;
  metrics: Pick<Metrics, "schedulerReleased">;
};

/** Closes the batches and digests whose time has come. They hold what their members say, so they wait for memory. */
export async function flush(
  { close, memory, metrics }: FlushDeps,
  now: Date,
  size: AdaptiveSize,
): Promise<{ more: boolean }> {
  if (memory.pressure() === "over") return { more: false };
  const limit = size.now();
  const began = performance.now();
  const { seen, done } = await closeDue(close, now, limit);
  size.done({ items: seen, backlog: seen === limit ? Number.POSITIVE_INFINITY : 0, tookMs: performance.now() - began });
  metrics.schedulerReleased.inc({ kind: "batch" }, done);
  // Where others have them all in hand there is nothing to hurry for.
  return { more: seen === limit && done > 0 };
}
