import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { BatchKind, BatchState } from "#gen/posthorn/v1/batch_service_pb.ts";
import { Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { until } from "../../support/until.ts";
import { shown, taskmaster } from "./setup.ts";

// Digests at the user's own wall time. In 2027 clocks go forward on 14 March in New York, on 28 March in Berlin, and
// never in Kolkata.
const story = await taskmaster("2027-03-06T12:00Z");
const { key, send, goTo, inbox, batchesOf, prefer, balance } = story;

const ZONES = { nora: "America/New_York", bert: "Europe/Berlin", kala: "Asia/Kolkata" } as const;
const USERS = Object.keys(ZONES) as (keyof typeof ZONES)[];
/** 09:00 of each user's Sundays. */
const SUNDAYS = [
  { nora: "2027-03-07T14:00Z", bert: "2027-03-07T08:00Z", kala: "2027-03-07T03:30Z" },
  { nora: "2027-03-14T13:00Z", bert: "2027-03-14T08:00Z", kala: "2027-03-14T03:30Z" },
  { nora: "2027-03-21T13:00Z", bert: "2027-03-21T08:00Z", kala: "2027-03-21T03:30Z" },
  { nora: "2027-03-28T13:00Z", bert: "2027-03-28T07:00Z", kala: "2027-03-28T03:30Z" },
] as const;

test("a weekly digest comes once, at nine in the morning of each user's Sunday, over both changes of the clock", async () => {
  for (const user of USERS) {
    await key().users.upsertUser({ user: { id: user, timeZone: ZONES[user] } });
    await prefer(user, { digest: { mode: Digest_Mode.WEEKLY, time: "09:00", days: [0] } });
  }
  for (const [week, sunday] of SUNDAYS.entries()) {
    for (const user of USERS) {
      const waiting = [
        await send(user, "TASK_ASSIGNED", "Review the plan"),
        await send(user, "PROJECT_MILESTONE", "Version 2"),
        await send(user, "TASK_OVERDUE", "Taxes"),
      ];
      // What could be batched is not: it waits for the digest instead.
      expect(waiting.map(({ status, estimatedDeliveryTime }) => [status, shown(estimatedDeliveryTime)])).toEqual(
        waiting.map(() => [Status.BATCHED, sunday[user]]),
      );
      expect(new Set(waiting.map(({ batchId }) => batchId)).size).toBe(1);
    }
    for (const [user, time] of Object.entries(sunday).toSorted(([, a], [, b]) => a.localeCompare(b))) {
      const aMinuteBefore = new Date(new Date(time).getTime() - 60_000).toISOString();
      await goTo(aMinuteBefore);
      expect(await inbox(user)).toHaveLength(week);
      await goTo(time);
      expect((await inbox(user)).slice(week)).toEqual([[time, "3 notifications"]]);
    }
    await goTo(new Date(new Date(sunday.nora).getTime() + 36 * 3_600_000).toISOString());
  }
  for (const user of USERS) {
    expect((await inbox(user)).map(([time]) => time)).toEqual(SUNDAYS.map((sunday) => sunday[user]));
    for (const batch of await batchesOf(user))
      expect(batch).toMatchObject({
        kind: BatchKind.DIGEST,
        state: BatchState.CLOSED,
        size: 3,
        delivered: 3,
        failed: 0,
      });
  }
});

/** Of the same millisecond on two nodes, so in either order within a category. */
const BY_CATEGORY =
  /^tasks \(2\)\n– (Review the plan\n– Taxes|Taxes\n– Review the plan)\n\nprojects \(1\)\n– Version 2$/;

test("a digest is grouped by category, is as urgent as the most urgent in it, and its members share its fate", async () => {
  const { entries } = await key().inbox.listEntries({ userId: "bert", pageSize: 1 });
  expect(entries).toMatchObject([
    {
      type: "digest",
      category: "digest",
      priority: Priority.HIGH,
      content: { body: expect.stringMatching(BY_CATEGORY) },
    },
  ]);
  const [batch] = await batchesOf("bert");
  await (await story.user("bert")).inbox.markRead({ notificationIds: [entries[0]?.notificationId ?? ""] });
  const { notifications } = await key().send.listNotifications({ filter: { batchId: batch?.id ?? "" } });
  expect(notifications.map(({ status }) => status)).toEqual(Array(4).fill(Status.READ));
});

test("what is critical does not wait for the digest", async () => {
  expect((await send("nora", "TASK_OVERDUE", "Server room", { priority: Priority.CRITICAL })).status).toBe(
    Status.DELIVERED,
  );
});

test("daily and hourly digests come at the user's time and at every full hour", async () => {
  await prefer("dan", { timeZone: "Asia/Kolkata", digest: { mode: Digest_Mode.DAILY, time: "18:30" } });
  await prefer("hal", { timeZone: "Asia/Kolkata", digest: { mode: Digest_Mode.HOURLY } });
  expect(shown(story.in(0))).toBe("2027-03-30T01:00Z");
  for (const user of ["dan", "hal"]) {
    await send(user, "TASK_ASSIGNED", "One");
    await send(user, "PROJECT_MILESTONE", "Two");
  }
  await goTo("2027-03-30T01:30Z");
  expect(await inbox("hal")).toEqual([["2027-03-30T01:30Z", "2 notifications"]]);
  await goTo("2027-03-30T13:00Z");
  expect(await inbox("dan")).toEqual([["2027-03-30T13:00Z", "2 notifications"]]);
  const [daily] = await batchesOf("dan");
  expect(daily).toMatchObject({
    openDuration: durationFromMs(12 * 3_600_000),
    averageLatency: durationFromMs(43_200_000),
  });
});

test("the weekly report goes out by itself, at eight in the morning of each user's Thursday", async () => {
  for (const [id, timeZone] of [
    ["rosa", "America/New_York"],
    ["rolf", "Europe/Berlin"],
  ] as const)
    await key().users.upsertUser({ user: { id, timeZone } });
  await key().schedules.createSchedule({
    schedule: {
      key: "weekly-report",
      request: { to: { userIds: ["rosa", "rolf"] }, type: "WEEKLY_REPORT", content: { title: "Your week" } },
      recurrence: "FREQ=WEEKLY;BYDAY=TH;COUNT=1",
      localStartTime: "2027-04-01T08:00",
    },
  });
  // 08:00 is first somewhere at 18:00 of the day before, in UTC.
  await goTo("2027-03-31T18:00Z");
  await until(
    () => key().schedules.getSchedule({ key: "weekly-report" }),
    ({ schedule }) => schedule?.firedCount === 1n,
  );
  await goTo("2027-04-01T06:00Z");
  await goTo("2027-04-01T12:00Z");
  expect(await inbox("rolf")).toEqual([["2027-04-01T06:00Z", "Your week"]]);
  expect(await inbox("rosa")).toEqual([["2027-04-01T12:00Z", "Your week"]]);
});

test("in the end everything is counted as it happened", balance);
