import { BatchKind, BatchState } from "#gen/posthorn/v1/batch_service_pb.ts";
import type { BatchPlan } from "./plan.ts";
import type { OpenBatch } from "./queries.ts";

/** A batch as it stands with one more member; the empty id: it is not there yet. */
export type JoinedByOne = Omit<OpenBatch, "joined"> & {
  size: number;
  state: typeof BatchState.OPEN | typeof BatchState.FULL;
};

/**
 * The batch that one would be in if it joined now what is open, or opened what is not: what joinBatches does in SQL, for
 * one. Pure.
 */
export function joiningOne(open: OpenBatch | undefined, plan: BatchPlan, now: Date): JoinedByOne {
  if (open === undefined) {
    const { kind, flushAt, latestFlushAt, maxSize } = plan;
    return { id: "", kind, openedAt: now, flushAt, latestFlushAt, maxSize, size: 1, state: BatchState.OPEN };
  }
  const { joined, ...batch } = open;
  const [was, wanted, most] = [open.flushAt.getTime(), plan.flushAt.getTime(), open.latestFlushAt.getTime()];
  const moved = plan.latestFlushAt > plan.flushAt ? Math.min(most, Math.max(was, wanted)) : Math.min(was, wanted);
  const size = joined + 1;
  const isFull = size >= open.maxSize;
  const due = isFull && plan.kind === BatchKind.BATCH ? Math.min(moved, now.getTime()) : moved;
  return { ...batch, flushAt: new Date(due), size, state: isFull ? BatchState.FULL : BatchState.OPEN };
}
