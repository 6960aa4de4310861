import { BatchKind } from "#gen/posthorn/v1/batch_service_pb.ts";
import type { BatchPlan } from "./plan.ts";
import type { OpenBatch } from "./queries.ts";

/**
 * The batch that one would be in, and when that is due, if it joined now what is open, or opened what is not (an empty id):
 * what joinBatches does in SQL, for one. Pure.
 */
export function joiningOne(
  open: OpenBatch | undefined,
  { kind, flushAt, latestFlushAt }: BatchPlan,
  now: Date,
): { id: string; flushAt: Date } {
  if (open === undefined) return { id: "", flushAt };
  const [was, wanted, most] = [open.flushAt.getTime(), flushAt.getTime(), open.latestFlushAt.getTime()];
  const moved = latestFlushAt > flushAt ? Math.min(most, Math.max(was, wanted)) : Math.min(was, wanted);
  const isFull = open.joined + 1 >= open.maxSize;
  const due = isFull && kind === BatchKind.BATCH ? Math.min(moved, now.getTime()) : moved;
  return { id: open.id, flushAt: new Date(due) };
}
