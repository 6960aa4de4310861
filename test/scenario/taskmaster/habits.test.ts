import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { BatchKind, BatchState } from "#gen/posthorn/v1/batch_service_pb.ts";
import { Priority, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { DigestRule } from "#gen/posthorn/v1/type_service_pb.ts";
import { openReader } from "../../support/stream-reader.ts";
import { until } from "../../support/until.ts";
import { shown, taskmaster } from "./setup.ts";

// Batching, as TaskMaster describes it: same user, same type, same priority; on count or on time, whichever is first.
const story = await taskmaster("2027-03-01T07:00Z");
const { send, goTo, get, batchesOf, inbox, prefer, key, balance } = story;

const HABITS = ["Drink water", "Stretch", "Read", "Meditate", "Plan the day"];

test("five habits become one notification with TaskMaster's wording, which names all of them", async () => {
  const habits = [];
  for (const title of HABITS) habits.push(await send("ann", "HABIT_REMINDER", title));
  expect(habits.map(({ status, queued }) => [status, queued])).toEqual(HABITS.map(() => [Status.BATCHED, true]));
  await story.settle();

  const { entries } = await key().inbox.listEntries({ userId: "ann" });
  const ids = habits.map(({ notificationId }) => notificationId).toSorted();
  expect(entries).toMatchObject([
    {
      type: "HABIT_REMINDER",
      category: "habits",
      priority: Priority.NORMAL,
      tags: ["habit-reminder-batch"],
      content: {
        title: "5 Habit Reminders",
        body: "Time to complete 5 habits",
        icon: "/icons/habit-batch.png",
        url: "/habits",
        data: { batch: { kind: "batch", count: 5, notificationIds: ids } },
      },
    },
  ]);
  const [batch] = await batchesOf("ann");
  const { notifications } = await key().send.listNotifications({ filter: { batchId: batch?.id ?? "" } });
  expect(notifications.map(({ id }) => id).toSorted()).toEqual([...ids, batch?.notificationId].toSorted());
  for (const id of ids) expect(await get(id)).toMatchObject({ status: Status.DELIVERED, batchId: batch?.id });
});

test("fewer than five wait half an hour for others, and one that stays alone comes as itself", async () => {
  const first = await send("ben", "HABIT_REMINDER", "Run");
  expect(shown(first.estimatedDeliveryTime)).toBe("2027-03-01T07:30Z");
  await send("cleo", "HABIT_REMINDER", "Walk");
  await goTo("2027-03-01T07:20Z");
  await send("ben", "HABIT_REMINDER", "Swim");
  expect(await inbox("ben")).toEqual([]);
  await goTo("2027-03-01T07:30Z");
  expect(await inbox("ben")).toEqual([["2027-03-01T07:30Z", "2 Habit Reminders"]]);
  expect(await inbox("cleo")).toEqual([["2027-03-01T07:30Z", "Walk"]]);
});

test("the batch record tells size, when it opened and closed, how many arrived and how long they took", async () => {
  const [batch] = await batchesOf("ben");
  expect(batch).toMatchObject({
    kind: BatchKind.BATCH,
    state: BatchState.CLOSED,
    type: "HABIT_REMINDER",
    priority: Priority.NORMAL,
    size: 2,
    maxSize: 5,
    delivered: 2,
    failed: 0,
    openDuration: durationFromMs(30 * 60_000),
    // One waited 30 minutes, the other 10.
    averageLatency: durationFromMs(20 * 60_000),
  });
  expect([batch?.createTime, batch?.closeTime].map(shown)).toEqual(["2027-03-01T07:00Z", "2027-03-01T07:30Z"]);
  expect(await key().batches.getBatch({ id: batch?.id ?? "" })).toMatchObject({ batch });
});

test("a batch that does not arrive is recorded with its failures", async () => {
  // It is due when the hour is full, stays out of digests, and would come too late in the next hour.
  const batching = { batchable: true, maxSize: 5 };
  await key().types.createType({ type: { key: "CHOIR_CALL", batching, digest: DigestRule.NEVER } });
  await prefer("dora", { hourlyCap: { enabled: true, maxPerHour: 1 }, batching: { window: { seconds: 600n } } });
  expect(await send("dora", "TASK_ASSIGNED", "Review")).toMatchObject({ status: Status.DELIVERED });
  const expiry = { case: "ttl", value: { seconds: 900n } } as const;
  for (const title of ["Sing", "Dance"]) await send("dora", "CHOIR_CALL", title, { expiry });
  await goTo("2027-03-01T07:40Z");
  const [batch] = await batchesOf("dora");
  expect(await get(batch?.notificationId ?? "")).toMatchObject({ status: Status.EXPIRED, reason: Reason.HOURLY_CAP });
  expect((await batchesOf("dora"))[0]).toMatchObject({ size: 2, delivered: 0, failed: 2 });
  expect((await inbox("dora")).map(([, title]) => title)).toEqual(["Review"]);
});

test("only what is alike comes together, and what is critical or must not wait never does", async () => {
  const habit = await send("eve", "HABIT_REMINDER", "Read");
  const streak = await send("eve", "HABIT_STREAK_MILESTONE", "Ten days");
  const urgent = await send("eve", "HABIT_REMINDER", "Pills", { priority: Priority.HIGH });
  expect(new Set([habit, streak, urgent].map(({ batchId }) => batchId)).size).toBe(3);
  const now = [
    await send("eve", "HABIT_REMINDER", "Insulin", { priority: Priority.CRITICAL }),
    await send("eve", "TASK_ASSIGNED", "Review"),
  ];
  expect(now.map(({ status }) => status)).toEqual([Status.DELIVERED, Status.DELIVERED]);
  await goTo("2027-03-01T08:30Z");
  expect((await inbox("eve")).map(([, title]) => title).toSorted()).toEqual(
    ["Insulin", "Pills", "Read", "Review", "Ten days"].toSorted(),
  );
});

test("users choose how many make a batch and how long it waits, or that nothing is batched", async () => {
  await prefer("finn", { batching: { maxSize: 2, window: { seconds: 600n } } });
  await send("finn", "HABIT_REMINDER", "One");
  await send("finn", "HABIT_REMINDER", "Two");
  await send("finn", "HABIT_REMINDER", "Three");
  await goTo("2027-03-01T08:40Z");
  expect(await inbox("finn")).toEqual([
    ["2027-03-01T08:30Z", "2 Habit Reminders"],
    ["2027-03-01T08:40Z", "Three"],
  ]);
  await prefer("finn", { batching: { enabled: false } });
  expect((await send("finn", "HABIT_REMINDER", "Four")).status).toBe(Status.DELIVERED);
});

test("task deadlines of the same moment become one, and the same one is not sent twice within five minutes", async () => {
  const due = (task: string) => send("gus", "TASK_DEADLINE", `${task} is due`, { dedupKey: `task-deadline:${task}` });
  const first = await due("task1");
  await due("task2");
  const again = await due("task1");
  expect(again).toMatchObject({ deduplicated: true, notificationId: first.notificationId });
  await goTo("2027-03-01T09:10Z");
  const { entries } = await key().inbox.listEntries({ userId: "gus" });
  expect(entries).toMatchObject([
    {
      tags: ["task-deadline-batch"],
      content: {
        title: "2 Task Deadlines Approaching",
        body: "You have 2 tasks with upcoming deadlines",
        icon: "/icons/task-batch.png",
        url: "/tasks?filter=upcoming",
      },
    },
  ]);
  expect((await due("task1")).deduplicated).toBe(false);
});

test("an open application is told how a batch grows, and gets what becomes of it", async () => {
  await prefer("hal", { batching: { maxSize: 2 } });
  await using app = openReader(await story.user("hal"), { includeStatus: true });
  await app.next("caughtUp");
  const first = await send("hal", "HABIT_REMINDER", "Read");
  const { batchId } = first;
  expect(await app.next("status")).toMatchObject({ notificationId: first.notificationId, status: Status.BATCHED });
  await send("hal", "HABIT_REMINDER", "Run");
  const arrived = await app.next("notification");
  expect(arrived).toMatchObject({ entry: { content: { title: "2 Habit Reminders" } }, counts: { unread: 1 } });
  const told = () => app.all("batch").map(({ state, size }) => [state, size]);
  await until(
    async () => told(),
    (progress) => progress.length === 3,
  );
  expect(told()).toEqual([
    [BatchState.OPEN, 1],
    [BatchState.FULL, 2],
    [BatchState.CLOSED, 2],
  ]);
  expect(app.all("batch").at(-1)).toMatchObject({ batchId, notificationId: arrived.entry?.notificationId });
});

test("in the end everything is counted as it happened", balance);
