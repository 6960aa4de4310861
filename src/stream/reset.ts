import { Reset_Cause } from "#gen/posthorn/v1/stream_service_pb.ts";
import type { Head } from "#src/inbox/entry.ts";
import type { Cursor } from "./cursor.ts";

/** Resuming further back than this would be a list, not a replay. */
export const MAX_REPLAY = 1000;

/** Why a cursor cannot be continued; undefined when it can. */
export function whyReset(from: Cursor, head: Head | undefined): Reset_Cause | undefined {
  // The cursor of a user to whom nothing had arrived fits whatever inbox began since.
  const fresh = from.epoch === 0 && from.seq === 0;
  if (fresh && head === undefined) return undefined;
  if (head === undefined || (!fresh && (from.epoch !== head.epoch || from.seq > head.seq)))
    return Reset_Cause.NEW_EPOCH;
  if (from.seq < head.trimmedSeq) return Reset_Cause.TRIMMED;
  return head.seq - from.seq > MAX_REPLAY ? Reset_Cause.TOO_FAR_BEHIND : undefined;
}
