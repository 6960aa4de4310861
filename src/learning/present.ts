import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  type GetLearntTimingResponse,
  GetLearntTimingResponseSchema,
} from "#gen/posthorn/v1/preferences_service_pb.ts";
import { countedAt, goodHours, isGood, type Looks, sum } from "./looks.ts";

/** What a user's looks say, for them to see. Pure. */
export function toLearntTiming(looks: Looks, now: Date): GetLearntTimingResponse {
  const counted = countedAt(looks, now);
  const good = goodHours(looks, now);
  return create(GetLearntTimingResponseSchema, {
    hours: Array.from({ length: 24 }, (_, hour) => ({
      hour,
      weekdayLooks: counted[hour] ?? 0,
      weekendLooks: counted[24 + hour] ?? 0,
      goodOnWeekdays: good !== undefined && isGood(good, hour),
      goodOnWeekends: good !== undefined && isGood(good, 24 + hour),
    })),
    looks: sum(counted),
    enough: good !== undefined,
    firstTime: timestampFromDate(looks.since),
    lastTime: timestampFromDate(looks.lastHour),
  });
}
