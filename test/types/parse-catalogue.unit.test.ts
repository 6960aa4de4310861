import { expect, test } from "vitest";
import { Channel, Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { Preset } from "#gen/posthorn/v1/type_service_pb.ts";
import { CatalogueError, parseCatalogue } from "#src/types/parse-catalogue.ts";
import { presetTypes } from "#src/types/presets.ts";

const faultsOf = (read: () => unknown): readonly string[] => {
  try {
    read();
  } catch (error) {
    if (error instanceof CatalogueError) return error.faults;
    throw error;
  }
  return [];
};

test("a list of types in protobuf JSON is read", () => {
  const [type] = parseCatalogue([
    { key: "news", default_priority: "PRIORITY_HIGH", defaultChannels: ["CHANNEL_IN_APP"], defaultTtl: "90s" },
  ]);
  expect(type).toMatchObject({
    key: "news",
    defaultPriority: Priority.HIGH,
    defaultChannels: [Channel.IN_APP],
    defaultTtl: { seconds: 90n },
  });
});

test("every fault is told at once, with the type it is in", () => {
  const faults = faultsOf(() =>
    parseCatalogue([
      { key: "good" },
      { key: "1st" },
      { key: "sooner", defaultTtl: "0.5s" },
      { key: "odd", defaultPriority: "URGENT" },
      { key: "typo", kategory: "x" },
      { key: "good" },
      "news",
    ]),
  );
  expect(faults).toHaveLength(6);
  const expected = [
    /type 2 \(1st\): key: /,
    /type 3 \(sooner\): default_ttl: /,
    /type 4 \(odd\): defaultPriority: .*URGENT/,
  ];
  for (const [n, pattern] of [
    ...expected,
    /type 5 \(typo\): .*kategory/,
    /type 6 \(good\): key: /,
    /^type 7: /,
  ].entries()) {
    expect(faults[n]).toMatch(pattern);
  }
});

test("what is no list is told as such", () => {
  expect(faultsOf(() => parseCatalogue({ key: "news" }))).toEqual([expect.stringContaining("JSON list")]);
});

test("the presets have the types of their source systems, off by default where those were", () => {
  const keys = (preset: Preset) => presetTypes(preset)?.map((type) => type.key);
  expect(keys(Preset.TASKMASTER)).toEqual([
    "TASK_DEADLINE",
    "TASK_OVERDUE",
    "TASK_ASSIGNED",
    "HABIT_REMINDER",
    "HABIT_STREAK_MILESTONE",
    "HABIT_MOTIVATION",
    "PROJECT_DEADLINE",
    "PROJECT_MILESTONE",
    "WEEKLY_REPORT",
    "PRODUCTIVITY_INSIGHT",
  ]);
  expect(keys(Preset.JOBS)).toEqual([
    "job_match",
    "application_update",
    "interview_schedule",
    "candidate_interest",
    "recommendation_refresh",
    "announcement",
    "campaign",
  ]);
  expect(keys(Preset.CRM)).toEqual(expect.arrayContaining(["CONTACT_CREATED", "LEAD_ASSIGNED"]));
  expect(keys(Preset.ORDERS)).toEqual(["order_status", "messages", "system"]);
  expect(presetTypes(Preset.UNSPECIFIED)).toBeUndefined();
  const off = presetTypes(Preset.TASKMASTER)?.filter((type) => type.optIn);
  expect(off?.map((type) => type.key)).toEqual(["HABIT_MOTIVATION", "PRODUCTIVITY_INSIGHT"]);
  const lead = presetTypes(Preset.CRM)?.find((type) => type.key === "LEAD_ASSIGNED");
  expect(lead?.defaultPriority).toBe(Priority.HIGH);
});
