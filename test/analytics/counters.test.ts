import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { AnalyticsService, Dimension, type QueryCountersRequestSchema } from "#gen/posthorn/v1/analytics_service_pb.ts";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Channel, Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { Call } from "#src/rpc/call.ts";
import { analyticsService } from "#src/services/analytics-service.ts";
import { invoke } from "../support/invoke.ts";
import { onPostgres } from "../support/on-postgres.ts";
import { faultOf } from "../support/rejection.ts";

const { store, sql, tenant } = await onPostgres();
const now = new Date("2025-11-20T10:40:00Z");
const service = analyticsService({ store, clock: () => now });
const { HOUR, TYPE, CHANNEL, STATUS } = Dimension;

type Row = [hour: string, type: string, channel: number, status: number, slot: number, count: number];

async function fill(tenantId: string, rows: Row[]): Promise<void> {
  await sql`insert into counters ${sql(
    rows.map(([hour, type, channel, status, slot, count]) => ({
      tenant_id: tenantId,
      hour: `2025-11-20T${hour}:00:00Z`,
      type,
      channel,
      status,
      slot,
      count,
    })),
  )}`;
}

const ROWS: Row[] = [
  ["08", "news", 0, Status.ACCEPTED, 0, 5],
  ["09", "news", 0, Status.ACCEPTED, 0, 10],
  ["09", "news", 0, Status.ACCEPTED, 1, 20],
  ["09", "news", Channel.IN_APP, Status.DELIVERED, 1, 25],
  ["09", "alerts", 0, Status.ACCEPTED, 0, 1],
  ["10", "news", Channel.IN_APP, Status.READ, 2, 3],
  ["11", "news", 0, Status.ACCEPTED, 0, 1000],
];

const at = (time: string) => timestampFromDate(new Date(`2025-11-20T${time}Z`));

async function query(call: Call, request: MessageInitShape<typeof QueryCountersRequestSchema>) {
  const { counters } = await invoke(
    service,
    AnalyticsService.method.queryCounters,
    { startTime: at("09:59:59"), ...request },
    call,
  );
  return counters.map(({ hour, type, channel, status, count }) => [
    hour === undefined ? undefined : new Date(Number(hour.seconds) * 1000).getUTCHours(),
    type,
    channel,
    status,
    Number(count),
  ]);
}

test("slots are added up, rows are those of the hours that hold start and end, in order", async () => {
  const call = tenant();
  await fill(call.tenantId, ROWS);
  await fill(tenant().tenantId, ROWS);
  expect(await query(call, { groupBy: [STATUS, CHANNEL, TYPE, HOUR] })).toEqual([
    [9, "alerts", 0, Status.ACCEPTED, 1],
    [9, "news", 0, Status.ACCEPTED, 30],
    [9, "news", Channel.IN_APP, Status.DELIVERED, 25],
    [10, "news", Channel.IN_APP, Status.READ, 3],
  ]);
  expect(await query(call, { startTime: at("08:00:00"), endTime: at("08:00:00"), groupBy: [HOUR] })).toEqual([
    [8, "", 0, 0, 5],
  ]);
});

test("what is not grouped by is summed; without dimensions there is one row, of nothing too", async () => {
  const call = tenant();
  expect(await query(call, {})).toEqual([[undefined, "", 0, 0, 0]]);
  expect(await query(call, { groupBy: [HOUR] })).toEqual([]);
  await fill(call.tenantId, ROWS);
  expect(await query(call, {})).toEqual([[undefined, "", 0, 0, 59]]);
  expect(await query(call, { groupBy: [TYPE] })).toEqual([
    [undefined, "alerts", 0, 0, 1],
    [undefined, "news", 0, 0, 58],
  ]);
  expect(await query(call, { groupBy: [CHANNEL] })).toEqual([
    [undefined, "", 0, 0, 31],
    [undefined, "", Channel.IN_APP, 0, 28],
  ]);
});

test("filters keep only what they name", async () => {
  const call = tenant();
  await fill(call.tenantId, ROWS);
  const total = async (request: Parameters<typeof query>[1]) => (await query(call, request))[0]?.[4];
  expect(await total({ types: ["alerts"] })).toBe(1);
  expect(await total({ types: ["alerts", "news"] })).toBe(59);
  expect(await total({ channels: [Channel.UNSPECIFIED] })).toBe(31);
  expect(await total({ channels: [Channel.IN_APP], statuses: [Status.READ] })).toBe(3);
  expect(await total({ types: ["nothing"] })).toBe(0);
});

test.each([
  ["ends before it starts", { endTime: at("09:59:58") }, "end_time"],
  ["is longer than 92 days", { endTime: timestampFromDate(new Date("2026-02-20T10:00:00Z")) }, "end_time"],
  ["starts outside of time", { startTime: { seconds: 10n ** 15n } }, "start_time"],
])("a range that %s is refused", async (_, request, field) => {
  expect(await faultOf(query(tenant(), request))).toEqual({ reason: ErrorReason.INVALID_REQUEST, fields: [field] });
});

test("an answer of more than 50,000 rows is refused, not cut", async () => {
  const call = tenant();
  await sql`
    insert into counters (tenant_id, hour, type, channel, status, slot, count)
    select ${call.tenantId}::uuid, '2025-11-20T09:00:00Z', 'type-' || n, 0, 1, 0, 1 from generate_series(1, 50001) as n`;
  expect((await faultOf(query(call, { groupBy: [TYPE] }))).reason).toBe(ErrorReason.LIMIT_OF_CALL);
  expect(await query(call, { groupBy: [HOUR] })).toEqual([[9, "", 0, 0, 50_001]]);
  await sql`delete from counters where tenant_id = ${call.tenantId} and type = 'type-1'`;
  expect(await query(call, { groupBy: [TYPE] })).toHaveLength(50_000);
});
