import { durationMs, type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { type Notification, Priority, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { SendResult } from "#gen/posthorn/v1/send_service_pb.ts";
import { taskmaster } from "./setup.ts";

// The limits of TaskMaster's development: ten a minute, five of them at once; nothing is lost, it waits its turn.
const story = await taskmaster("2027-03-01T09:00Z", {
  env: {
    POSTHORN_USER_BURST: "5",
    POSTHORN_USER_MAX_PER_MINUTE: "10",
    POSTHORN_USER_MAX_PER_HOUR: "100",
    POSTHORN_USER_MAX_PER_DAY: "500",
  },
});
const { send, goTo, key, balance } = story;

/** Assigns so many tasks, one after the other. */
async function assign(userId: string, count: number): Promise<SendResult[]> {
  const results = [];
  for (let n = 0; n < count; n++) results.push(await send(userId, "TASK_ASSIGNED", `Task ${n}`));
  return results;
}
const ms = (time: Timestamp | undefined) => (time === undefined ? 0 : timestampDate(time).getTime());
/** What a limit holds of a user, in the order of its turns. */
async function held(userId: string): Promise<Notification[]> {
  const filter = { userId, statuses: [Status.HELD] };
  const { notifications } = await key().send.listNotifications({ filter, pageSize: 200 });
  return notifications.toSorted((x, y) => ms(x.holdTime) - ms(y.holdTime));
}

test("of 24 tasks assigned at once five come, and the rest is told its turn, the limit and when that ends", async () => {
  const sent = await assign("ann", 24);
  expect(sent.map(({ status }) => status)).toEqual(sent.map((_, n) => (n < 5 ? Status.DELIVERED : Status.HELD)));
  expect(sent[5]).toMatchObject({
    queued: true,
    rateLimit: { window: Reason.USER_BURST_LIMIT, usage: 5, limit: 5, resetTime: story.at("2027-03-01T09:00:10Z") },
  });
  expect(sent[10]?.rateLimit).toMatchObject({
    window: Reason.USER_MINUTE_LIMIT,
    usage: 10,
    limit: 10,
    resetTime: story.at("2027-03-01T09:01Z"),
  });
  // The turn, and how long it is until then.
  for (const { rateLimit, estimatedDeliveryTime } of sent.slice(5)) {
    const wait = rateLimit?.retryAfter && durationMs(rateLimit.retryAfter);
    expect(ms(estimatedDeliveryTime)).toBe(story.now().getTime() + (wait ?? 0));
  }
});

test("what is critical does not wait, what comes later stands behind, and who passes the limits stands in the audit log", async () => {
  expect((await send("ann", "TASK_OVERDUE", "Fire", { priority: Priority.CRITICAL })).status).toBe(Status.DELIVERED);
  const passed = await send("ann", "TASK_ASSIGNED", "Passed", { bypassRateLimit: true });
  expect(passed.status).toBe(Status.DELIVERED);
  const late = await send("ann", "TASK_ASSIGNED", "Task 24");
  const waiting = await held("ann");
  expect(waiting).toHaveLength(20);
  expect(waiting.at(-1)?.id).toBe(late.notificationId);
  const { entries } = await key().admin.listAuditEntries({ pageSize: 100 });
  expect(entries.map(({ action }) => action)).toContain("send.bypass_rate_limit");
});

test("they come in the order in which they were sent, never more than ten a minute and five in ten seconds", async () => {
  for (let [next] = await held("ann"); next !== undefined; [next] = await held("ann")) {
    await goTo(new Date(ms(next.holdTime)).toISOString());
  }
  const { entries } = await key().inbox.listEntries({ userId: "ann", pageSize: 100 });
  const assigned = entries.toReversed().filter(({ content }) => content?.title.startsWith("Task "));
  expect(assigned.map(({ content }) => content?.title)).toEqual(Array.from({ length: 25 }, (_, n) => `Task ${n}`));
  for (const [windowMs, most] of [
    [60_000, 10],
    [10_000, 5],
  ] as const)
    for (const inWindow of Map.groupBy(assigned, ({ arriveTime }) => Math.floor(ms(arriveTime) / windowMs)).values())
      expect(inWindow.length).toBeLessThanOrEqual(most);
});

test("another user is not concerned, and a batch counts as one", async () => {
  await goTo("2027-03-01T10:00Z");
  await assign("ben", 4);
  for (let n = 0; n < 5; n++) await send("ben", "HABIT_REMINDER", `Habit ${n}`);
  await story.settle();
  const { entries } = await key().inbox.listEntries({ userId: "ben" });
  expect(entries.map(({ content }) => content?.title)).toContain("5 Habit Reminders");
  const [sixth] = await assign("ben", 1);
  expect(sixth).toMatchObject({ status: Status.HELD, rateLimit: { window: Reason.USER_BURST_LIMIT } });
  expect((await assign("cleo", 1))[0]?.status).toBe(Status.DELIVERED);
});

test("who is over the limit of an hour waits for the next, and what is worth nothing by then ends at once", async () => {
  await goTo("2027-03-01T11:00Z");
  const items = Array.from({ length: 101 }, (_, n) => ({
    to: { userIds: ["dora"] },
    type: "TASK_ASSIGNED",
    content: { title: `Task ${n}` },
  }));
  await key().send.sendBatch({ items });
  await story.settle();
  const last = (await held("dora")).at(-1);
  expect(last).toMatchObject({ reason: Reason.USER_HOUR_LIMIT });
  expect(ms(last?.holdTime)).toBeGreaterThanOrEqual(ms(story.at("2027-03-01T12:00Z")));
  const vain = await send("dora", "TASK_ASSIGNED", "Now or never", {
    expiry: { case: "ttl", value: { seconds: 60n } },
  });
  expect(vain).toMatchObject({ status: Status.EXPIRED, verdicts: [{ reason: Reason.USER_HOUR_LIMIT }] });
});

test("in the end everything is counted as it happened", balance);
