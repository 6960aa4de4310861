import { expect, test } from "vitest";
import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { Deadline } from "#gen/posthorn/v1/schedule_service_pb.ts";
import { shown, taskmaster } from "./setup.ts";

// Reminders before deadlines: 24 hours and 2 hours before, and again when the deadline moves.
const story = await taskmaster("2027-03-01T07:00Z");
const { key, goTo, get, inbox, prefer, balance } = story;

/** A task has a deadline, or gets another. */
async function due(userId: string, task: string, time: string, more: object = {}): Promise<Deadline> {
  const { deadline } = await key().schedules.upsertDeadline({
    deadline: { userId, key: task, type: "TASK_DEADLINE", content: { title: task }, time: story.at(time), ...more },
  });
  if (deadline === undefined) throw new Error("no deadline");
  return deadline;
}
const times = ({ reminders }: Deadline) => reminders.map(({ time }) => shown(time));
const ids = ({ reminders }: Deadline) => reminders.map(({ notificationId }) => notificationId);

test("a task that is due on Thursday reminds its user 24 hours and 2 hours before", async () => {
  await prefer("ann", { batching: { enabled: false } });
  const task = await due("ann", "Report", "2027-03-04T17:00Z");
  expect(times(task)).toEqual(["2027-03-03T17:00Z", "2027-03-04T15:00Z"]);
  await goTo("2027-03-03T16:59Z");
  expect(await inbox("ann")).toEqual([]);
  await goTo("2027-03-03T17:00Z");
  await goTo("2027-03-04T15:00Z");
  expect(await inbox("ann")).toEqual([
    ["2027-03-03T17:00Z", "Report"],
    ["2027-03-04T15:00Z", "Report"],
  ]);
});

test("users who let things be batched are reminded of all deadlines of an hour at once", async () => {
  for (const task of ["Slides", "Invoice"]) await due("ben", task, "2027-03-04T18:00Z");
  await goTo("2027-03-04T16:00Z");
  await goTo("2027-03-04T16:30Z");
  expect(await inbox("ben")).toEqual([["2027-03-04T16:30Z", "2 Task Deadlines Approaching"]]);
});

test("a deadline that moves takes its reminders along, and what is past is not reminded of", async () => {
  await prefer("cleo", { batching: { enabled: false } });
  const first = await due("cleo", "Thesis", "2027-03-06T12:00Z");
  const moved = await due("cleo", "Thesis", "2027-03-08T12:00Z");
  expect(times(moved)).toEqual(["2027-03-07T12:00Z", "2027-03-08T10:00Z"]);
  expect(ids(moved)).toEqual(ids(first));
  await goTo("2027-03-06T10:00Z");
  expect(await inbox("cleo")).toEqual([]);
  await goTo("2027-03-07T12:00Z");
  // Later again, after the first reminder: it reminds of the new time.
  const later = await due("cleo", "Thesis", "2027-03-09T12:00Z");
  expect(times(later)).toEqual(["2027-03-08T12:00Z", "2027-03-09T10:00Z"]);
  await goTo("2027-03-08T12:00Z");
  // And sooner: in three hours, so that only two hours before are left.
  expect(times(await due("cleo", "Thesis", "2027-03-08T15:00Z"))).toEqual(["2027-03-08T13:00Z"]);
  await goTo("2027-03-08T13:00Z");
  // The first is no longer in the inbox: it had its worth until noon of the 8th.
  expect(await inbox("cleo")).toEqual([
    ["2027-03-08T12:00Z", "Thesis"],
    ["2027-03-08T13:00Z", "Thesis"],
  ]);
  const [firstReminder = ""] = ids(moved);
  expect(shown((await get(firstReminder)).deliverTime)).toBe("2027-03-07T12:00Z");
});

test("a task that is done reminds of nothing any more", async () => {
  const task = await due("dora", "Laundry", "2027-03-10T12:00Z");
  expect(await key().schedules.deleteDeadline({ userId: "dora", key: "Laundry" })).toMatchObject({ cancelled: 2 });
  await goTo("2027-03-10T12:00Z");
  for (const id of ids(task)) expect(await get(id)).toMatchObject({ status: Status.CANCELLED });
  expect(await inbox("dora")).toEqual([]);
});

test("other hours before: those of the deadline, or those of its type from then on", async () => {
  const offsets = [{ seconds: 48n * 3600n }, { seconds: 3600n }];
  expect(times(await due("eve", "Launch", "2027-03-15T12:00Z", { reminderOffsets: { offsets } }))).toEqual([
    "2027-03-13T12:00Z",
    "2027-03-15T11:00Z",
  ]);
  await key().types.updateType({
    type: { key: "PROJECT_DEADLINE", reminderOffsets: { offsets: [{ seconds: 7n * 86_400n }] } },
  });
  expect(times(await due("eve", "Project", "2027-03-20T12:00Z", { type: "PROJECT_DEADLINE" }))).toEqual([
    "2027-03-13T12:00Z",
  ]);
});

test("a reminder in quiet hours waits for the morning, unless the deadline is before", async () => {
  await prefer("finn", { batching: { enabled: false }, quietHours: { enabled: true } });
  const morning = await due("finn", "Dentist", "2027-03-11T08:30Z");
  const night = await due("finn", "Backup", "2027-03-11T07:30Z");
  await goTo("2027-03-11T06:30Z");
  // A day before was over when they were given.
  const [soon] = ids(morning);
  expect(await get(soon ?? "")).toMatchObject({ status: Status.HELD, reason: Reason.QUIET_HOURS });
  const [vain] = ids(night);
  expect(await get(vain ?? "")).toMatchObject({ status: Status.EXPIRED, reason: Reason.QUIET_HOURS });
  await goTo("2027-03-11T08:00Z");
  expect((await inbox("finn")).at(-1)).toEqual(["2027-03-11T08:00Z", "Dentist"]);
});

/** Hours before a deadline, as a user prefers them for tasks. */
const before = (...hours: number[]) => ({
  types: { TASK_DEADLINE: { reminderOffsets: { offsets: hours.map((each) => ({ seconds: BigInt(each * 3600) })) } } },
});
const read = async (userId: string, task: string) => {
  const { deadline } = await key().schedules.getDeadline({ userId, key: task });
  if (deadline === undefined) throw new Error("no deadline");
  return deadline;
};

test("a user who wants other hours has them, for the tasks there are and those to come", async () => {
  await prefer("gina", { batching: { enabled: false } });
  expect(times(await due("gina", "Essay", "2027-03-16T12:00Z"))).toEqual(["2027-03-15T12:00Z", "2027-03-16T10:00Z"]);
  const own = { reminderOffsets: { offsets: [{ seconds: 7200n }] } };
  await due("gina", "Exam", "2027-03-18T12:00Z", own);
  // 24 hours and two became 48 and one; the exam says itself when.
  expect(await prefer("gina", before(48, 1))).toMatchObject({ moved: 2, added: 0, suppressed: 0, unchanged: 1 });
  expect(times(await read("gina", "Essay"))).toEqual(["2027-03-14T12:00Z", "2027-03-16T11:00Z"]);
  expect(times(await read("gina", "Exam"))).toEqual(["2027-03-18T10:00Z"]);
  expect(times(await due("gina", "Poster", "2027-03-17T12:00Z"))).toEqual(["2027-03-15T12:00Z", "2027-03-17T11:00Z"]);
  // Others have what they had.
  expect(times(await due("hugo", "Essay", "2027-03-16T12:00Z"))).toEqual(["2027-03-15T12:00Z", "2027-03-16T10:00Z"]);
});

test("what has come stays when they change again, and for none at all nothing more comes", async () => {
  await goTo("2027-03-14T12:00Z");
  await goTo("2027-03-15T12:00Z");
  // 48 hours before the essay is past; of 12, 6 and 1 two are new to each task.
  expect(await prefer("gina", before(12, 6, 1))).toMatchObject({ moved: 0, added: 4, suppressed: 0, unchanged: 3 });
  expect(times(await read("gina", "Essay"))).toEqual(["2027-03-16T00:00Z", "2027-03-16T06:00Z", "2027-03-16T11:00Z"]);
  await goTo("2027-03-16T00:00Z");
  expect(await prefer("gina", before())).toMatchObject({ moved: 0, added: 0, suppressed: 5, unchanged: 1 });
  expect(times(await read("gina", "Poster"))).toEqual([]);
  await goTo("2027-03-18T10:00Z");
  const { notifications } = await key().send.listNotifications({ filter: { userId: "gina" }, pageSize: 200 });
  const came = notifications.filter(({ deliverTime }) => deliverTime !== undefined);
  expect(came.map(({ deliverTime, content }) => `${shown(deliverTime)} ${content?.title}`).toSorted()).toEqual([
    "2027-03-14T12:00Z Essay",
    "2027-03-15T12:00Z Poster",
    "2027-03-16T00:00Z Essay",
    "2027-03-18T10:00Z Exam",
  ]);
});

test("in the end everything is counted as it happened", balance);
