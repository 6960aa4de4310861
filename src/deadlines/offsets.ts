import { create } from "@bufbuild/protobuf";
import { durationFromMs, durationMs } from "@bufbuild/protobuf/wkt";
import { type ReminderOffsets, ReminderOffsetsSchema } from "#gen/posthorn/v1/notification_pb.ts";

const HOUR_MS = 3_600_000;

/** When neither the deadline nor its user, tenant or type says. */
export const DEFAULT_OFFSETS_MS: readonly number[] = [24 * HOUR_MS, 2 * HOUR_MS];

/** In ms, the longest first, each once: how they are stored and compared. */
export function offsetsOf({ offsets }: ReminderOffsets): number[] {
  return [...new Set(offsets.map((offset) => Math.floor(durationMs(offset))))].sort((a, b) => b - a);
}

export function toOffsets(offsetsMs: readonly number[]): ReminderOffsets {
  return create(ReminderOffsetsSchema, { offsets: offsetsMs.map((ms) => durationFromMs(ms)) });
}
