import { create, type MessageInitShape } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { StreamFilterSchema } from "#gen/posthorn/v1/stream_service_pb.ts";
import { decodeCursor, encodeCursor } from "#src/stream/cursor.ts";
import { compileFilter } from "#src/stream/filter.ts";
import { presenceOf } from "#src/stream/presence.ts";

describe("cursors", () => {
  test("every place survives its encoding", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 31 - 1 }), fc.nat(Number.MAX_SAFE_INTEGER), (epoch, seq) => {
        expect(decodeCursor(encodeCursor({ epoch, seq }))).toEqual({ epoch, seq });
      }),
    );
  });
  test("none means from now on", () => expect(decodeCursor("")).toBeUndefined());
  test("anything else is a place or refused by name, never an accident", () => {
    const text = fc.oneof(
      fc.string(),
      fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes).toString("base64url")),
    );
    fc.assert(
      fc.property(text, (cursor) => {
        try {
          const place = decodeCursor(cursor);
          if (cursor !== "") expect(place?.seq).toBeGreaterThanOrEqual(0);
        } catch (error) {
          expect(error).toMatchObject({ fields: [{ field: "cursor" }] });
        }
      }),
    );
    const bytes = Buffer.from(encodeCursor({ epoch: 1, seq: 1 }), "base64url");
    for (const cursor of [bytes.subarray(1), Buffer.concat([bytes, bytes]), bytes.fill(2, 0, 1), bytes.fill(0xff, 5)])
      expect(() => decodeCursor(cursor.toString("base64url"))).toThrow("cursor");
  });
});

describe("filters", () => {
  const event = { type: "order", category: "shop", priority: Priority.NORMAL, tags: ["vip", "topic:news"] };
  const passes = (filter: MessageInitShape<typeof StreamFilterSchema> | undefined) =>
    compileFilter(filter && create(StreamFilterSchema, filter))(event);
  test.each([
    [true, undefined],
    [true, {}],
    [true, { types: ["order"] }],
    [false, { types: ["job"] }],
    [true, { types: ["job", "order"], categories: ["shop"] }],
    [false, { types: ["order"], categories: ["work"] }],
    [true, { minimumPriority: Priority.NORMAL }],
    [false, { minimumPriority: Priority.HIGH }],
    [true, { topics: ["news"] }],
    [false, { topics: ["vip"] }],
    [false, { topics: ["topic:news"] }],
  ])("%s for %j", (expected, filter) => expect(passes(filter)).toBe(expected));
});

describe("presence", () => {
  const now = 1_000_000_000_000;
  test("a device is online while one of its streams has a lease", () => {
    const state = presenceOf(
      { "s:phone s1": `${now + 1}`, "s:phone s2": `${now - 1}`, "d:phone": `${now - 50}`, "r:phone": "7" },
      now,
    );
    expect(state).toEqual({
      online: true,
      lastSeenAt: new Date(now),
      devices: [{ deviceId: "phone", online: true, lastSeenAt: new Date(now), receivedSeq: 7 }],
    });
  });
  test("after a crash it is offline when the lease has run out, and was last seen at its last renewal", () => {
    const state = presenceOf({ "s:phone s1": `${now}`, "d:phone": `${now - 50}` }, now);
    expect(state).toMatchObject({ online: false, lastSeenAt: new Date(now - 50), devices: [{ online: false }] });
  });
  test("devices come newest first, twenty at most, none older than thirty days", () => {
    const fields = Object.fromEntries(Array.from({ length: 25 }, (_, n) => [`d:device-${n}`, `${now - n * 1000}`]));
    const state = presenceOf({ ...fields, "d:forgotten": `${now - 31 * 86_400_000}` }, now);
    expect(state.devices.map((device) => device.deviceId)).toEqual(Array.from({ length: 20 }, (_, n) => `device-${n}`));
  });
  test("nobody was ever there", () =>
    expect(presenceOf({}, now)).toEqual({ online: false, devices: [], lastSeenAt: undefined }));
});
