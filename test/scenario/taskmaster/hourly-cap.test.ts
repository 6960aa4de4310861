import { expect, test } from "vitest";
import { Priority, Reason, Status, VerdictKind } from "#gen/posthorn/v1/notification_pb.ts";
import { refusalOf } from "../../support/refusal.ts";
import { until } from "../../support/until.ts";
import { shown, taskmaster } from "./setup.ts";

// No more than ten an hour, unless the user says otherwise: what is too much comes together with the next full hour.
const story = await taskmaster("2027-03-01T09:10Z", { hourlyCap: true });
const { send, goTo, inbox, prefer, batchesOf, balance } = story;

/** Sends so many of a type, one after the other: what became of each. */
async function many(userId: string, type: string, count: number): Promise<Status[]> {
  const statuses: Status[] = [];
  for (let n = 0; n < count; n++) statuses.push((await send(userId, type, `${type} ${n}`)).status);
  return statuses;
}
const all = (count: number, status: Status) => Array<Status>(count).fill(status);
/** What is released joins those that are decided at the next tick. */
const arrived = (userId: string, count: number) =>
  until(
    () => inbox(userId),
    ({ length }) => length === count,
  );

test("ten tasks assigned in an hour come at once, and the eleventh says that the hour is full, and until when", async () => {
  expect(await many("ann", "TASK_ASSIGNED", 10)).toEqual(all(10, Status.DELIVERED));
  const eleventh = await send("ann", "TASK_ASSIGNED", "Eleventh");
  expect(eleventh).toMatchObject({
    status: Status.BATCHED,
    verdicts: [{ kind: VerdictKind.BATCH, reason: Reason.HOURLY_CAP }],
    rateLimit: { usage: 10, limit: 10, maxPerHour: 10, resetTime: story.at("2027-03-01T10:00Z") },
  });
  expect((await send("ann", "PROJECT_MILESTONE", "Twelfth")).status).toBe(Status.BATCHED);
  expect((await send("bob", "TASK_ASSIGNED", "Of another")).status).toBe(Status.DELIVERED);
});

test("what is critical comes nevertheless", async () => {
  const fire = await send("ann", "TASK_OVERDUE", "Fire", { priority: Priority.CRITICAL });
  expect(fire.status).toBe(Status.DELIVERED);
  // The hour is the user's own wish, unlike the limits of the platform.
  const passed = await send("ann", "TASK_ASSIGNED", "Thirteenth", { bypassRateLimit: true });
  expect(passed.status).toBe(Status.BATCHED);
  expect(await inbox("ann")).toHaveLength(11);
});

test("with the full hour the rest comes as one, and is the first of the ten of that hour", async () => {
  const [batch] = await batchesOf("ann");
  expect(batch).toMatchObject({ size: 3 });
  expect(shown(batch?.flushTime)).toBe("2027-03-01T10:00Z");
  await goTo("2027-03-01T10:00Z");
  expect((await inbox("ann")).slice(11)).toEqual([["2027-03-01T10:00Z", "3 notifications"]]);
  expect(await many("ann", "TASK_ASSIGNED", 10)).toEqual([...all(9, Status.DELIVERED), Status.BATCHED]);
});

test("what is worth little leaves half of the hour to what is worth more", async () => {
  await prefer("ben", { batching: { enabled: false } });
  expect(await many("ben", "HABIT_STREAK_MILESTONE", 6)).toEqual([...all(5, Status.DELIVERED), Status.BATCHED]);
  expect(await many("ben", "TASK_ASSIGNED", 6)).toEqual([...all(5, Status.DELIVERED), Status.BATCHED]);
});

test("a batch counts as one", async () => {
  await prefer("cleo", { hourlyCap: { maxPerHour: 2 } });
  expect(await many("cleo", "HABIT_REMINDER", 5)).toEqual(all(5, Status.BATCHED));
  await story.settle();
  expect(await inbox("cleo")).toEqual([["2027-03-01T10:00Z", "5 Habit Reminders"]]);
  expect(await many("cleo", "TASK_ASSIGNED", 2)).toEqual([Status.DELIVERED, Status.BATCHED]);
});

test("a user who wants more has at once what waits, and who wants fewer waits sooner", async () => {
  await many("dora", "TASK_ASSIGNED", 12);
  const [batch] = await batchesOf("dora");
  expect(batch).toMatchObject({ size: 2 });
  expect(await prefer("dora", { hourlyCap: { maxPerHour: 20 } })).toMatchObject({ released: 2 });
  await arrived("dora", 12);
  await prefer("dora", { hourlyCap: { maxPerHour: 3 } });
  const next = await send("dora", "TASK_ASSIGNED", "Next");
  expect(next).toMatchObject({ status: Status.BATCHED, rateLimit: { usage: 12, limit: 3 } });
  expect(await prefer("dora", { hourlyCap: { enabled: false } })).toMatchObject({ released: 1 });
  await arrived("dora", 13);
  for (const maxPerHour of [0, 101])
    expect(await refusalOf(prefer("dora", { hourlyCap: { maxPerHour } }))).toMatchObject({ reason: "INVALID_REQUEST" });
});

test("with the next hour everything has come", async () => {
  await goTo("2027-03-01T11:00Z");
  for (const [user, title] of [
    ["ann", "TASK_ASSIGNED 9"],
    ["ben", "2 notifications"],
    ["cleo", "TASK_ASSIGNED 1"],
  ] as const)
    expect((await inbox(user)).at(-1)).toEqual(["2027-03-01T11:00Z", title]);
});

test("in the end everything is counted as it happened", balance);
