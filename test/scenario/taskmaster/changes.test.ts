import { expect, test } from "vitest";
import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { openReader } from "../../support/stream-reader.ts";
import { until } from "../../support/until.ts";
import { shown, taskmaster } from "./setup.ts";

// A user changes their mind while things wait for them. The evening of Monday, 1 March 2027.
const story = await taskmaster("2027-03-01T20:00Z");
const { send, goTo, get, inbox, prefer, key, balance } = story;

const tomorrow = { schedule: { case: "scheduleTime" as const, value: story.at("2027-03-02T12:00Z") } };
const becomes = (id: string, status: Status) =>
  until(
    () => get(id),
    (one) => one.status === status,
  );

test("what is switched off ends at once, wherever it waits, and the answer and the stream say how much", async () => {
  await prefer("ann", { quietHours: { enabled: true, startTime: "19:00", endTime: "08:00" } });
  const held = await send("ann", "PROJECT_MILESTONE", "Version 2");
  const heldTask = await send("ann", "TASK_ASSIGNED", "Review");
  const scheduled = await send("ann", "PROJECT_MILESTONE", "Version 3", tomorrow);
  const { deadline } = await key().schedules.upsertDeadline({
    deadline: {
      userId: "ann",
      key: "taxes",
      type: "TASK_DEADLINE",
      content: { title: "Taxes" },
      time: story.at("2027-03-05T12:00Z"),
    },
  });
  const app = await story.user("ann");
  await using stream = openReader(app, {});
  await stream.next("caughtUp");
  const { reconciled } = await app.preferences.updatePreferences({
    preferences: { types: { PROJECT_MILESTONE: { enabled: false }, TASK_DEADLINE: { enabled: false } } },
  });
  // Two milestones and two reminders; the assigned task waits as before.
  expect(reconciled).toMatchObject({ suppressed: 4, moved: 0, released: 0, rebatched: 0, unchanged: 1, more: false });
  const told = await stream.next("preferences");
  expect(told.changedFields.toSorted()).toEqual(["types.PROJECT_MILESTONE.enabled", "types.TASK_DEADLINE.enabled"]);
  expect(told.reconciled).toEqual(reconciled);
  const reminders = deadline?.reminders.map(({ notificationId }) => notificationId) ?? [];
  for (const id of [held.notificationId, scheduled.notificationId, ...reminders])
    expect(await get(id)).toMatchObject({ status: Status.SUPPRESSED, reason: Reason.TYPE_DISABLED });
  expect((await get(heldTask.notificationId)).status).toBe(Status.HELD);
});

test("what was held moves with the quiet hours, and comes at once when nothing holds it any more", async () => {
  const ids = (await key().send.listNotifications({ filter: { userId: "ann", statuses: [Status.HELD] } }))
    .notifications;
  expect(ids.map(({ holdTime }) => shown(holdTime))).toEqual(["2027-03-02T08:00Z"]);
  const [{ id = "" } = {}] = ids;
  expect(await prefer("ann", { quietHours: { endTime: "06:30" } })).toMatchObject({ moved: 1, released: 0 });
  expect(shown((await get(id)).holdTime)).toBe("2027-03-02T06:30Z");
  // She travels, and the morning is earlier there.
  expect(await prefer("ann", { timeZone: "Asia/Kolkata" })).toMatchObject({ moved: 1 });
  expect(shown((await get(id)).holdTime)).toBe("2027-03-02T01:00Z");
  expect(await prefer("ann", { quietHours: { enabled: false } })).toMatchObject({ moved: 0, released: 1 });
  await becomes(id, Status.DELIVERED);
  expect(await inbox("ann")).toEqual([["2027-03-01T20:00Z", "Review"]]);
});

test("habits that wait for others come at once without batching, into the digest with one, and not at all when unwanted", async () => {
  const habits = async (user: string) => {
    const sent = [await send(user, "HABIT_REMINDER", "Read"), await send(user, "HABIT_STREAK_MILESTONE", "Ten days")];
    expect(sent.map(({ status }) => status)).toEqual([Status.BATCHED, Status.BATCHED]);
    return sent.map(({ notificationId }) => notificationId);
  };
  const atOnce = await habits("ben");
  expect(await prefer("ben", { batching: { enabled: false } })).toMatchObject({ released: 2, rebatched: 0 });
  for (const id of atOnce) await becomes(id, Status.DELIVERED);

  const collected = await habits("cleo");
  const daily = { digest: { mode: Digest_Mode.DAILY, time: "21:00" } };
  expect(await prefer("cleo", daily)).toMatchObject({ released: 0, rebatched: 2 });
  await until(
    async () => Promise.all(collected.map(get)),
    (both) => both[0]?.batchId !== "" && both.every(({ batchId }) => batchId === both[0]?.batchId),
  );

  const [unwanted = "", wanted = ""] = await habits("dora");
  const off = { types: { HABIT_REMINDER: { enabled: false } } };
  expect(await prefer("dora", off)).toMatchObject({ suppressed: 1, rebatched: 1 });
  expect(await get(unwanted)).toMatchObject({ status: Status.SUPPRESSED, reason: Reason.TYPE_DISABLED });

  await goTo("2027-03-01T20:30Z");
  // Its window has not begun anew.
  await until(
    async () => shown((await get(wanted)).deliverTime),
    (time) => time === "2027-03-01T20:30Z",
  );
  await goTo("2027-03-01T21:00Z");
  expect(await inbox("cleo")).toEqual([["2027-03-01T21:00Z", "2 notifications"]]);
});

test("who goes back to the defaults finds everything as on the first day, and what waits too", async () => {
  await prefer("eve", { digest: { mode: Digest_Mode.WEEKLY }, quietHours: { enabled: true, startTime: "20:00" } });
  const waiting = await send("eve", "TASK_ASSIGNED", "Review");
  expect(waiting.status).toBe(Status.BATCHED);
  const app = await story.user("eve");
  const { reconciled } = await app.preferences.resetPreferences({});
  expect(reconciled).toMatchObject({ released: 1 });
  await becomes(waiting.notificationId, Status.DELIVERED);
});

test("what TaskMaster changes for all of its users holds for what waits for them as well", async () => {
  const milestones = [];
  for (const user of ["finn", "gus"]) milestones.push(await send(user, "WEEKLY_REPORT", "Your week", tomorrow));
  await key().preferences.updateDefaultPreferences({
    preferences: { types: { WEEKLY_REPORT: { enabled: false } } },
    reason: "nobody reads it",
  });
  for (const { notificationId } of milestones) await becomes(notificationId, Status.SUPPRESSED);
});

test("in the end everything is counted as it happened", balance);
