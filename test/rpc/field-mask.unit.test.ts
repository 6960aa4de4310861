import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { ContentSchema } from "#gen/posthorn/v1/notification_pb.ts";
import { type Preferences, PreferencesSchema } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { NotificationTypeSchema } from "#gen/posthorn/v1/type_service_pb.ts";
import { Fault } from "#src/errors.ts";
import { applyMask, maskPaths } from "#src/rpc/field-mask.ts";

const mask = (...paths: string[]) => ({ $typeName: "google.protobuf.FieldMask" as const, paths });
const preferences = (init: Parameters<typeof create<typeof PreferencesSchema>>[1]): Preferences =>
  create(PreferencesSchema, init);
const pathsOf = (...paths: string[]) => maskPaths(mask(...paths), PreferencesSchema, preferences({}));

test("a mask may name fields, nested fields, map keys and fields of map values", () => {
  const paths = ["enabled", "quiet_hours.start_time", "types.job_match", "categories.news.channels.in_app"];
  expect(pathsOf(...paths)).toEqual(paths);
  expect(pathsOf("types.`job-match`.enabled")).toEqual(["types.job-match.enabled"]);
});

test("a path that another covers is left out, and a star covers all", () => {
  expect(pathsOf("types.a.enabled", "types.a", "types.b", "enabled", "enabled")).toEqual([
    "types.a",
    "types.b",
    "enabled",
  ]);
  expect(pathsOf("*", "quiet_hours.enabled")).toEqual(PreferencesSchema.fields.map((field) => field.name));
});

test.each([
  "",
  "nothing",
  "quietHours",
  "quiet_hours.",
  "quiet_hours.nothing",
  "enabled.more",
  "do_not_disturb.periods.0",
  "types.",
  "types.a b",
  "types.a.enabled.b",
  "constructor",
  "x".repeat(10_000),
  "\ud83d\ude00",
])("the path %j is refused and its place named", (path) => {
  try {
    pathsOf("enabled", path);
    expect.unreachable();
  } catch (error) {
    expect(error).toBeInstanceOf(Fault);
    const fault = error as Fault;
    expect(fault.reason).toBe(ErrorReason.INVALID_FIELD_MASK);
    expect(fault.fields[0]?.field).toBe("update_mask.paths[1]");
    expect(fault.message.length).toBeLessThan(200);
  }
});

test("well-known types are named as a whole", () => {
  expect(maskPaths(mask("data"), ContentSchema, create(ContentSchema))).toEqual(["data"]);
  expect(() => maskPaths(mask("data.fields"), ContentSchema, create(ContentSchema))).toThrow(Fault);
});

test("without a mask the set fields count, with leaves only the innermost", () => {
  const message = preferences({
    enabled: false,
    quietHours: { enabled: true },
    channels: {},
    types: { a: { channels: { inApp: false } }, b: {} },
  });
  expect(maskPaths(undefined, PreferencesSchema, message)).toEqual(["enabled", "channels", "types", "quiet_hours"]);
  expect(maskPaths(mask(), PreferencesSchema, message, "leaves")).toEqual([
    "enabled",
    "types.a.channels.in_app",
    "quiet_hours.enabled",
  ]);
  const type = create(NotificationTypeSchema, { key: "k", defaultTtl: { seconds: 5n } });
  expect(maskPaths(undefined, NotificationTypeSchema, type, "leaves")).toEqual(["key", "default_ttl"]);
});

test("what the mask names is copied, what is absent there is cleared, the rest stays", () => {
  const before = preferences({
    enabled: false,
    quietHours: { enabled: true, startTime: "21:00" },
    types: { a: { enabled: false }, b: { enabled: false, channels: { inApp: false } } },
    doNotDisturb: { periods: [{ dayOfWeek: 1 }] },
  });
  const after = applyMask(
    PreferencesSchema,
    before,
    preferences({ quietHours: { endTime: "07:00" }, types: { c: { enabled: true } }, enabled: true }),
    pathsOf(
      "quiet_hours.start_time",
      "quiet_hours.end_time",
      "types.a",
      "types.b.enabled",
      "types.c",
      "do_not_disturb",
    ),
  );
  expect(after).toEqual(
    preferences({
      enabled: false,
      quietHours: { enabled: true, endTime: "07:00" },
      types: { b: { channels: { inApp: false } }, c: { enabled: true } },
    }),
  );
  expect(before.types.a?.enabled).toBe(false);
});

test("clearing inside what is absent creates nothing", () => {
  const paths = pathsOf("quiet_hours.start_time", "types.a.enabled", "types.a.channels.in_app");
  expect(applyMask(PreferencesSchema, preferences({}), preferences({}), paths)).toEqual(preferences({}));
});

test("a hostile map key stays a key", () => {
  const paths = pathsOf("types.__proto__.enabled", "types.constructor");
  const after = applyMask(PreferencesSchema, preferences({}), preferences({}), paths);
  expect(after).toEqual(preferences({}));
  expect(({} as { enabled?: boolean }).enabled).toBeUndefined();
});

test("the result shares nothing with its arguments", () => {
  const source = preferences({ types: { a: { enabled: true } } });
  const after = applyMask(PreferencesSchema, preferences({}), source, ["types"]);
  if (after.types.a) after.types.a.enabled = false;
  expect(source.types.a?.enabled).toBe(true);
});
