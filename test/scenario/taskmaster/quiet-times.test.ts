import { expect, test } from "vitest";
import { Priority, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { shown, taskmaster } from "./setup.ts";

// When users want to hear nothing: quiet hours, do not disturb, weekends; and what passes. 1 March 2027 is a Monday.
const story = await taskmaster("2027-03-01T21:00Z");
const { key, send, goTo, get, inbox, prefer, balance } = story;

test("between ten in the evening and eight in the morning only what is critical comes", async () => {
  // 22:00 to 08:00 unless the user says otherwise; 23:00 in Lisbon is 23:00 UTC in March, in Athens 01:00.
  for (const [user, timeZone] of [
    ["ann", "Europe/Lisbon"],
    ["ari", "Europe/Athens"],
  ] as const)
    await prefer(user, { timeZone, quietHours: { enabled: true } });
  expect((await send("ann", "TASK_ASSIGNED", "Before")).status).toBe(Status.DELIVERED);
  await goTo("2027-03-01T23:00Z");
  const held = await send("ann", "TASK_ASSIGNED", "Tonight");
  expect(held).toMatchObject({ status: Status.HELD, verdicts: [{ reason: Reason.QUIET_HOURS }] });
  expect(shown(held.estimatedDeliveryTime)).toBe("2027-03-02T08:00Z");
  expect(shown((await send("ari", "TASK_ASSIGNED", "Tonight")).estimatedDeliveryTime)).toBe("2027-03-02T06:00Z");
  const critical = { priority: Priority.CRITICAL };
  expect((await send("ann", "TASK_OVERDUE", "Fire", critical)).status).toBe(Status.DELIVERED);
  // Unless they want to sleep.
  await prefer("ari", { quietHours: { allowCritical: false } });
  expect((await send("ari", "TASK_OVERDUE", "Fire", critical)).status).toBe(Status.HELD);
  await goTo("2027-03-02T08:00Z");
  expect(await inbox("ann")).toEqual([
    ["2027-03-01T21:00Z", "Before"],
    ["2027-03-01T23:00Z", "Fire"],
    ["2027-03-02T08:00Z", "Tonight"],
  ]);
});

test("while a user is not to be disturbed an emergency contact passes, and another sender waits for the end", async () => {
  // Tuesday and Wednesday, nine to twelve. On Wednesday nobody passes, and Thursday's period is switched off.
  const morning = { startTime: "09:00", endTime: "12:00" };
  await prefer("ben", {
    doNotDisturb: {
      enabled: true,
      periods: [
        { ...morning, dayOfWeek: 2, allowEmergencyContacts: true },
        { ...morning, dayOfWeek: 3, allowCritical: false },
        { ...morning, dayOfWeek: 4, inactive: true },
      ],
    },
    emergencyContacts: { enabled: true, userIds: ["mum"] },
  });
  await goTo("2027-03-02T10:00Z");
  const from = (senderId: string, more: object = {}) =>
    send("ben", "TASK_ASSIGNED", `from ${senderId}`, { senderId, ...more });
  expect(await from("mum")).toMatchObject({ status: Status.DELIVERED });
  expect(await from("boss")).toMatchObject({ status: Status.HELD, verdicts: [{ reason: Reason.DO_NOT_DISTURB }] });
  expect((await from("alarm", { priority: Priority.CRITICAL })).status).toBe(Status.DELIVERED);
  await goTo("2027-03-02T12:00Z");
  expect(await inbox("ben")).toEqual([
    ["2027-03-02T10:00Z", "from mum"],
    ["2027-03-02T10:00Z", "from alarm"],
    ["2027-03-02T12:00Z", "from boss"],
  ]);
  await goTo("2027-03-03T10:00Z");
  expect((await from("mum")).status).toBe(Status.HELD);
  expect((await from("alarm", { priority: Priority.CRITICAL })).status).toBe(Status.HELD);
  await goTo("2027-03-04T10:00Z");
  expect((await from("boss")).status).toBe(Status.DELIVERED);
});

test("an emergency contact does not pass quiet hours", async () => {
  await prefer("ben", { quietHours: { enabled: true, startTime: "10:30", endTime: "11:30" } });
  await goTo("2027-03-04T11:00Z");
  expect((await send("ben", "TASK_ASSIGNED", "Call me", { senderId: "mum" })).status).toBe(Status.HELD);
});

test("who wants nothing on weekends gets it on Monday, after what else holds then", async () => {
  await prefer("cleo", { weekendsEnabled: false, timeZone: "Asia/Tokyo" });
  const early = [{ dayOfWeek: 1, startTime: "00:00", endTime: "07:30" }];
  await prefer("dora", { weekendsEnabled: false, doNotDisturb: { enabled: true, periods: early } });
  // Saturday begins in Tokyo nine hours before.
  await goTo("2027-03-05T15:30Z");
  expect(shown((await send("cleo", "TASK_ASSIGNED", "Rest")).estimatedDeliveryTime)).toBe("2027-03-07T15:00Z");
  expect((await send("dora", "TASK_ASSIGNED", "Friday")).status).toBe(Status.DELIVERED);
  await goTo("2027-03-06T12:00Z");
  expect(await send("dora", "TASK_ASSIGNED", "Rest")).toMatchObject({
    status: Status.HELD,
    verdicts: [{ reason: Reason.WEEKEND, until: story.at("2027-03-08T07:30Z") }],
  });
  expect((await send("dora", "TASK_OVERDUE", "Flood", { priority: Priority.CRITICAL })).status).toBe(Status.DELIVERED);
  await goTo("2027-03-07T15:00Z");
  expect(await inbox("cleo")).toEqual([["2027-03-07T15:00Z", "Rest"]]);
  await goTo("2027-03-08T07:30Z");
  expect((await inbox("dora")).at(-1)).toEqual(["2027-03-08T07:30Z", "Rest"]);
});

test("what is less urgent than a user wants, switched off, or not asked for never comes", async () => {
  await prefer("eve", {
    minimumPriority: Priority.HIGH,
    types: { TASK_ASSIGNED: { enabled: false } },
    categories: { projects: { enabled: false } },
  });
  const reasons = async (user: string, ...types: string[]) => {
    const results = [];
    for (const type of types) results.push(await send(user, type, "Hm"));
    return results.map(({ status, verdicts }) => [status, verdicts[0]?.reason]);
  };
  expect(await reasons("eve", "WEEKLY_REPORT", "TASK_ASSIGNED", "PROJECT_DEADLINE", "TASK_OVERDUE")).toEqual([
    [Status.SUPPRESSED, Reason.BELOW_MINIMUM_PRIORITY],
    [Status.SUPPRESSED, Reason.TYPE_DISABLED],
    [Status.SUPPRESSED, Reason.CATEGORY_DISABLED],
    [Status.BATCHED, Reason.BATCHING],
  ]);
  const optIn = ["HABIT_MOTIVATION", "PRODUCTIVITY_INSIGHT"];
  expect(await reasons("finn", ...optIn)).toEqual(optIn.map(() => [Status.SUPPRESSED, Reason.TYPE_DISABLED]));
  await prefer("finn", { types: { PRODUCTIVITY_INSIGHT: { enabled: true }, HABIT_MOTIVATION: { enabled: true } } });
  expect((await reasons("finn", ...optIn)).map(([status]) => status)).toEqual([Status.BATCHED, Status.DELIVERED]);
});

test("what waits can be changed or cancelled until it is handed over, and ends when it is worth nothing any more", async () => {
  await prefer("gus", { quietHours: { enabled: true, startTime: "08:00", endTime: "12:00" } });
  await goTo("2027-03-08T09:00Z");
  const [changed, cancelled] = [await send("gus", "TASK_ASSIGNED", "Draft"), await send("gus", "TASK_ASSIGNED", "No")];
  const later = { schedule: { case: "scheduleTime" as const, value: story.at("2027-03-08T14:00Z") } };
  const planned = await send("gus", "TASK_ASSIGNED", "Lunch", later);
  expect(planned).toMatchObject({ status: Status.SCHEDULED, queued: true });
  const { send: sender } = key();
  await sender.updateNotification({ id: changed.notificationId, content: { title: "Final" } });
  await sender.updateNotification({ id: planned.notificationId, scheduleTime: story.at("2027-03-08T13:00Z") });
  await sender.cancelNotification({ id: cancelled.notificationId });
  // Worth something for two hours, which are quiet.
  const ttl = { expiry: { case: "ttl" as const, value: { seconds: 7200n } } };
  const vain = await send("gus", "TASK_ASSIGNED", "Breakfast", ttl);
  expect(vain).toMatchObject({ status: Status.EXPIRED, verdicts: [{ reason: Reason.QUIET_HOURS }] });
  await goTo("2027-03-08T12:00Z");
  await goTo("2027-03-08T13:00Z");
  expect(await inbox("gus")).toEqual([
    ["2027-03-08T12:00Z", "Final"],
    ["2027-03-08T13:00Z", "Lunch"],
  ]);
  expect((await get(cancelled.notificationId)).status).toBe(Status.CANCELLED);
});

test("in the end everything is counted as it happened", balance);
