import { expect, test } from "vitest";
import { Channel, Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode, PreferenceLevel } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { refusalOf } from "../../support/refusal.ts";
import { taskmaster } from "./setup.ts";

// What TaskMaster's users find before they have changed anything, and how far they may go.
const story = await taskmaster("2027-03-01T07:00Z", { hourlyCap: true });
const { key, user, balance } = story;

test("the types of TaskMaster are there, as urgent as they are, and all but two come without being asked for", async () => {
  const { types } = await key().types.listTypes({ pageSize: 200 });
  const all = types.filter(({ key }) => key !== "general");
  expect(all.map(({ key, defaultPriority, optIn }) => [key, defaultPriority, optIn])).toEqual([
    ["HABIT_MOTIVATION", Priority.LOW, true],
    ["HABIT_REMINDER", Priority.NORMAL, false],
    ["HABIT_STREAK_MILESTONE", Priority.NORMAL, false],
    ["PRODUCTIVITY_INSIGHT", Priority.LOW, true],
    ["PROJECT_DEADLINE", Priority.HIGH, false],
    ["PROJECT_MILESTONE", Priority.NORMAL, false],
    ["TASK_ASSIGNED", Priority.NORMAL, false],
    ["TASK_DEADLINE", Priority.HIGH, false],
    ["TASK_OVERDUE", Priority.HIGH, false],
    ["WEEKLY_REPORT", Priority.LOW, false],
  ]);
  expect(all.find(({ key }) => key === "TASK_DEADLINE")?.reminderOffsets).toMatchObject({
    offsets: [{ seconds: 24n * 3600n }, { seconds: 2n * 3600n }],
  });
});

test("who has set nothing has sensible defaults, and sees where each comes from", async () => {
  const ann = await user("ann");
  const { preferences, origins } = await ann.preferences.getEffectivePreferences({});
  expect(preferences).toMatchObject({
    enabled: true,
    minimumPriority: Priority.LOW,
    quietHours: { enabled: false, startTime: "22:00", endTime: "08:00", allowCritical: true },
    weekendsEnabled: true,
    doNotDisturb: { enabled: false, periods: [] },
    emergencyContacts: { enabled: false, userIds: [] },
    batching: { enabled: true, maxSize: 5, window: { seconds: 30n * 60n } },
    digest: { mode: Digest_Mode.IMMEDIATE, time: "09:00", days: [1] },
    hourlyCap: { enabled: true, maxPerHour: 10 },
    grouping: { enabled: true, maxSize: 10, window: { seconds: 3600n } },
    delivery: { method: Channel.IN_APP, fallbacks: [], confirmationRequired: false },
    timing: { intelligentTiming: true, learning: true, personalisedQuietHours: false },
  });
  await ann.preferences.updatePreferences({ preferences: { batching: { maxSize: 3 } } });
  const after = await ann.preferences.getEffectivePreferences({});
  expect(after.preferences?.batching?.maxSize).toBe(3);
  expect([origins, after.origins].map((levels) => levels["batching.max_size"])).toEqual([
    PreferenceLevel.BUILT_IN,
    PreferenceLevel.USER,
  ]);
});

test.each([
  ["a batch of none", { batching: { maxSize: 0 } }, "preferences.batching.max_size"],
  ["a batch of more than 20", { batching: { maxSize: 21 } }, "preferences.batching.max_size"],
  ["a window of no minute", { batching: { window: { seconds: 0n } } }, "preferences.batching.window"],
  ["a window of more than two hours", { batching: { window: { seconds: 7201n } } }, "preferences.batching.window"],
  ["a cap of none", { hourlyCap: { maxPerHour: 0 } }, "preferences.hourly_cap.max_per_hour"],
  ["a cap of more than a hundred", { hourlyCap: { maxPerHour: 101 } }, "preferences.hourly_cap.max_per_hour"],
  ["a group of none", { grouping: { maxSize: 0 } }, "preferences.grouping.max_size"],
  ["a fallback to the inbox", { delivery: { fallbacks: [Channel.IN_APP] } }, "preferences.delivery.fallbacks[0]"],
  ["a digest at a time that is none", { digest: { time: "24:00" } }, "preferences.digest.time"],
  ["a digest on an eighth day", { digest: { days: [7] } }, "preferences.digest.days[0]"],
  ["quiet hours without minutes", { quietHours: { startTime: "22" } }, "preferences.quiet_hours.start_time"],
])("%s is refused, and says which field", async (_, preferences, field) => {
  const ben = await user("ben");
  const refusal = await refusalOf(ben.preferences.updatePreferences({ preferences }));
  expect(refusal).toMatchObject({ reason: "INVALID_REQUEST" });
  expect(refusal.fields).toEqual([field]);
});

test("users change their own preferences, and TaskMaster's people must say why", async () => {
  const change = { userId: "cleo", preferences: { weekendsEnabled: false } };
  expect((await refusalOf(key().preferences.updatePreferences(change))).reason).toBe("INVALID_REQUEST");
  await key().preferences.updatePreferences({ ...change, reason: "she asked support to" });
  await key().preferences.getPreferences({ userId: "cleo" });
  const dan = await user("dan");
  expect((await refusalOf(dan.preferences.getPreferences({ userId: "cleo" }))).reason).toBe("NOT_FOUND");
  const { entries } = await key().admin.listAuditEntries({ pageSize: 100 });
  const seen = entries.filter(({ target }) => target.includes("cleo")).map(({ action, reason }) => [action, reason]);
  // Written in the same millisecond on two nodes, so in either order.
  expect(seen.toSorted()).toEqual([
    ["preferences.read", ""],
    ["preferences.update", "she asked support to"],
  ]);
});

test("in the end everything is counted as it happened", balance);
