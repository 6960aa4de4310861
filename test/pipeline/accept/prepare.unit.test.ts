import { create, type JsonObject, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Channel, ContentSchema, Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { SendRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import type { Fault } from "#src/errors.ts";
import { channelBits, channelsOf } from "#src/notifications/channel-bits.ts";
import { instantOfLocal } from "#src/notifications/local-time.ts";
import { checkData } from "#src/pipeline/accept/check-data.ts";
import { firstStatus, prepare, type TypeDefaults } from "#src/pipeline/accept/prepare.ts";

const now = new Date("2026-03-01T12:00:00Z");
const DAY = 86_400_000;
const TYPE: TypeDefaults = {
  key: "general",
  category: "news",
  defaultPriority: Priority.HIGH,
  defaultChannels: [Channel.IN_APP],
  defaultTtlMs: null,
  deprecation: null,
  group: false,
};
const CONTENT = create(ContentSchema, { title: "Hi" });
const at = (ms: number) => timestampFromDate(new Date(now.getTime() + ms));

function draft(request: MessageInitShape<typeof SendRequestSchema>, type: TypeDefaults | undefined = TYPE) {
  const full = create(SendRequestSchema, { content: CONTENT, ...request });
  return prepare(full, type, now, 300_000);
}

/** The field that the request is refused for. */
function refused(request: MessageInitShape<typeof SendRequestSchema>): string | undefined {
  try {
    draft(request);
  } catch (error) {
    return (error as Fault).fields[0]?.field;
  }
  return undefined;
}

describe("defaults", () => {
  test("come from the type where the request says nothing", () => {
    expect(draft({})).toMatchObject({
      type: "general",
      category: "news",
      priority: Priority.HIGH,
      channels: 2,
      local: undefined,
    });
    expect(draft({ priority: Priority.LOW }).priority).toBe(Priority.LOW);
  });
  test("an unknown type is not found", () => {
    expect(() => prepare(create(SendRequestSchema, { content: { title: "Hi" } }), undefined, now, 1)).toThrow(
      "no such type",
    );
  });
  test("a dedup key counts for the default window unless the request says otherwise", () => {
    expect(draft({}).dedup).toBeUndefined();
    expect(draft({ dedupKey: "k" }).dedup).toEqual({ key: "k", windowMs: 300_000 });
    expect(draft({ dedupKey: "k", dedupWindow: { seconds: 7n } }).dedup).toEqual({ key: "k", windowMs: 7000 });
  });
});

describe("when it is due and when it expires", () => {
  const times = (request: MessageInitShape<typeof SendRequestSchema>, zone = "UTC", type = TYPE) => {
    const { scheduledAt, expiresAt } = draft(request, type).times(zone);
    const since = (date: Date | undefined) => (date === undefined ? undefined : date.getTime() - now.getTime());
    return [since(scheduledAt), since(expiresAt)];
  };
  const typeTtl = { ...TYPE, defaultTtlMs: 5000 };

  test.each([
    ["at once, never", {}, [undefined, undefined]],
    ["a time in the past means at once", { schedule: { case: "scheduleTime", value: at(-1) } }, [undefined, undefined]],
    ["this very instant means at once", { schedule: { case: "scheduleTime", value: at(0) } }, [undefined, undefined]],
    ["in the future", { schedule: { case: "scheduleTime", value: at(1) } }, [1, undefined]],
    ["a ttl from acceptance", { expiry: { case: "ttl", value: { seconds: 9n } } }, [undefined, 9000]],
    [
      "a ttl from the scheduled time",
      { schedule: { case: "scheduleTime", value: at(1000) }, expiry: { case: "ttl", value: { seconds: 9n } } },
      [1000, 10_000],
    ],
    [
      "a ttl from acceptance when the schedule lies in the past",
      { schedule: { case: "scheduleTime", value: at(-DAY) }, expiry: { case: "ttl", value: { seconds: 9n } } },
      [undefined, 9000],
    ],
    ["an instant of expiry", { expiry: { case: "expireTime", value: at(77) } }, [undefined, 77]],
  ] as [string, MessageInitShape<typeof SendRequestSchema>, (number | undefined)[]][])("%s", (_, request, expected) => {
    expect(times(request)).toEqual(expected);
  });

  test("the type's ttl holds unless the request names an expiry", () => {
    expect(times({}, "UTC", typeTtl)).toEqual([undefined, 5000]);
    expect(times({ expiry: { case: "expireTime", value: at(77) } }, "UTC", typeTtl)).toEqual([undefined, 77]);
    expect(times({ expiry: { case: "ttl", value: { seconds: 1n } } }, "UTC", typeTtl)).toEqual([undefined, 1000]);
  });

  test.each([
    ["expire_time", { expiry: { case: "expireTime", value: at(0) } }],
    [
      "expire_time",
      { expiry: { case: "expireTime", value: at(10) }, schedule: { case: "scheduleTime", value: at(10) } },
    ],
    ["expire_time", { expiry: { case: "expireTime", value: at(400 * DAY + 1) } }],
    ["schedule_time", { schedule: { case: "scheduleTime", value: at(400 * DAY + 1) } }],
    ["schedule_time", { schedule: { case: "scheduleTime", value: { seconds: 2n ** 62n } } }],
    ["local_schedule_time", { schedule: { case: "localScheduleTime", value: "2027-12-01T00:00" } }],
    ["local_schedule_time", { schedule: { case: "localScheduleTime", value: "2026-02-30T00:00" } }],
    ["local_schedule_time", { schedule: { case: "localScheduleTime", value: "2026-02-28T24:00" } }],
  ] as [string, MessageInitShape<typeof SendRequestSchema>][])("%s is refused (%#)", (field, request) => {
    expect(refused(request)).toBe(field);
  });
  test("exactly 400 days ahead is allowed", () => {
    expect(refused({ schedule: { case: "scheduleTime", value: at(400 * DAY) } })).toBeUndefined();
  });
});

describe("local times", () => {
  test.each([
    ["Europe/Berlin", "2026-03-29T02:30", "2026-03-29T01:30:00.000Z", "in the gap: as long after it as it was into it"],
    ["Europe/Berlin", "2026-10-25T02:30", "2026-10-25T00:30:00.000Z", "in the overlap: the first of the two"],
    ["America/New_York", "2026-03-08T02:30", "2026-03-08T07:30:00.000Z", "the other side of the ocean"],
    ["Asia/Kathmandu", "2026-06-01T09:00:30", "2026-06-01T03:15:30.000Z", "45 minutes"],
    ["Pacific/Kiritimati", "2026-06-01T00:00", "2026-05-31T10:00:00.000Z", "a day ahead"],
  ])("%s %s", (zone, local, instant) => {
    expect(instantOfLocal(local, zone).toISOString()).toBe(instant);
  });
  test("one request is due at as many instants as its recipients have zones", () => {
    const { times, local } = draft({ schedule: { case: "localScheduleTime", value: "2026-03-02T09:00" } });
    expect(local).toEqual({ time: "2026-03-02T09:00", ttlMs: undefined });
    expect(times("Asia/Tokyo").scheduledAt?.toISOString()).toBe("2026-03-02T00:00:00.000Z");
    expect(times("America/Los_Angeles").scheduledAt?.toISOString()).toBe("2026-03-02T17:00:00.000Z");
  });
  test("an expiry before somebody's local time never lets it be delivered, and is no error of the request", () => {
    const request = {
      schedule: { case: "localScheduleTime" as const, value: "2026-03-02T09:00" },
      expiry: { case: "expireTime" as const, value: timestampFromDate(new Date("2026-03-02T03:00:00Z")) },
    };
    expect(refused(request)).toBeUndefined();
  });
});

test("channels and their bits say the same", () => {
  expect(channelBits([])).toBe(0);
  expect(channelsOf(channelBits([Channel.IN_APP]))).toEqual([Channel.IN_APP]);
  expect(firstStatus(undefined)).toBe(Status.ACCEPTED);
  expect(firstStatus(now)).toBe(Status.SCHEDULED);
});

describe("Content.data", () => {
  const nested = (depth: number): JsonObject => (depth === 1 ? { end: 1 } : { in: nested(depth - 1) });
  test("may be 16 levels deep and no deeper, in lists too", () => {
    expect(() => checkData(nested(16))).not.toThrow();
    expect(() => checkData(nested(17))).toThrow("16 levels");
    expect(() => checkData({ list: [[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]] })).toThrow("16 levels");
  });
  test("holds finite numbers only", () => {
    for (const number of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])
      expect(() => checkData({ deep: [{ number }] })).toThrow("finite");
  });
  test("is at most 16 KiB, measured in bytes and not in characters", () => {
    expect(() => checkData({ text: "x".repeat(16 * 1024 - 11) })).not.toThrow();
    expect(() => checkData({ text: "x".repeat(16 * 1024 - 10) })).toThrow("16 KiB");
    expect(() => checkData({ text: "ü".repeat(8 * 1024) })).toThrow("16 KiB");
  });
  test("any small JSON object is accepted", () => {
    fc.assert(
      fc.property(
        fc.object({ maxDepth: 4, values: [fc.string(), fc.integer(), fc.boolean(), fc.constant(null)] }),
        (value) => {
          checkData(value as JsonObject);
        },
      ),
    );
  });
});
