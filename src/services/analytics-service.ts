import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Timestamp, timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  AnalyticsService,
  type CounterSchema,
  Dimension,
  type QueryCountersRequest,
} from "#gen/posthorn/v1/analytics_service_pb.ts";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import type { Channel, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { hourOf } from "#src/analytics/hour.ts";
import { type CounterDimension, type CounterQuery, type CounterRow, sumCounters } from "#src/analytics/queries.ts";
import type { Clock } from "#src/clock.ts";
import { Fault, invalidField } from "#src/errors.ts";
import { type Service, service } from "#src/rpc/call.ts";
import type { Store } from "#src/store/store.ts";

export type AnalyticsServiceDeps = { store: Store; clock: Clock };

const MAX_ROWS = 50_000;
const HOUR_MS = 3_600_000;
const MAX_RANGE_MS = 92 * 24 * HOUR_MS;
/** What google.protobuf.Timestamp allows: years 1 to 9999. */
const MIN_SECONDS = -62_135_596_800n;
const MAX_SECONDS = 253_402_300_799n;

const DIMENSION_OF: Record<Dimension, CounterDimension | undefined> = {
  [Dimension.UNSPECIFIED]: undefined,
  [Dimension.HOUR]: "hour",
  [Dimension.TYPE]: "type",
  [Dimension.CHANNEL]: "channel",
  [Dimension.STATUS]: "status",
};

export function analyticsService({ store, clock }: AnalyticsServiceDeps): Service {
  return service(AnalyticsService, {
    async queryCounters(request, call) {
      const query = counterQuery(request, clock());
      const rows = await store.tenantDb(call.tenantId, (db) => sumCounters(db, call.tenantId, query, MAX_ROWS + 1));
      if (rows.length > MAX_ROWS) {
        throw new Fault(ErrorReason.LIMIT_OF_CALL, {
          message: "The answer has more than 50,000 rows. Ask for less time or fewer dimensions.",
          metadata: { limit: String(MAX_ROWS) },
        });
      }
      return { counters: rows.map(toCounter) };
    },
  });
}

function counterQuery(request: QueryCountersRequest, now: Date): CounterQuery {
  const start = instant("start_time", request.startTime) ?? now;
  const end = instant("end_time", request.endTime) ?? now;
  if (end < start) throw invalidField("end_time", "must not be before start_time");
  if (end.getTime() - start.getTime() > MAX_RANGE_MS) {
    throw invalidField("end_time", "must be at most 92 days after start_time");
  }
  const { types, channels, statuses } = request;
  const groupBy = new Set(request.groupBy.flatMap((each) => DIMENSION_OF[each] ?? []));
  return { from: hourOf(start), to: hourOf(end), groupBy, types, channels, statuses };
}

function instant(field: string, timestamp: Timestamp | undefined): Date | undefined {
  if (timestamp === undefined) return undefined;
  if (timestamp.seconds < MIN_SECONDS || timestamp.seconds > MAX_SECONDS) {
    throw invalidField(field, "must be in the years 1 to 9999");
  }
  return timestampDate(timestamp);
}

function toCounter(row: CounterRow): MessageInitShape<typeof CounterSchema> {
  return {
    ...(row.hour === null ? {} : { hour: timestampFromDate(row.hour) }),
    type: row.type ?? "",
    channel: (row.channel ?? 0) as Channel,
    status: (row.status ?? 0) as Status,
    count: BigInt(row.count),
  };
}
