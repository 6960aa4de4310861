import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { platformOfFile } from "../support/platform.ts";
import { refusalOf } from "../support/refusal.ts";
import { testServices } from "../support/services.ts";

const services = await testServices();
const env = { POSTHORN_SCHEDULES_MAX_PER_TENANT: "4", POSTHORN_DEADLINES_MAX_PER_USER: "3" };
const small = await platformOfFile({ services, env });
const wide = await platformOfFile({ services, roles: ["api"] });
const DAY = 86_400_000;
const content = { title: "Hi" };
const ahead = (days: number) => new Date(Date.now() + days * DAY);
const local = (days: number) => ahead(days).toISOString().slice(0, 19);
const schedule = (key: string, more: object = {}) => ({
  schedule: {
    key,
    request: { to: { userIds: ["ann"] }, content },
    recurrence: "FREQ=DAILY",
    localStartTime: local(2),
    timeZone: "UTC",
    ...more,
  },
});
const deadline = (key: string, days = 2, more: object = {}) => ({
  deadline: { userId: "ann", key, content, time: timestampFromDate(ahead(days)), ...more },
});

test("a tenant has room for so many schedules, those that have ended left out, whoever makes them at once", async () => {
  const { schedules } = small.key;
  const made = await Promise.allSettled(
    Array.from({ length: 9 }, (_, n) => schedules.createSchedule(schedule(`s${n}`))),
  );
  expect(made.filter(({ status }) => status === "fulfilled")).toHaveLength(4);
  const refused = await refusalOf(schedules.createSchedule(schedule("more")));
  expect(refused).toMatchObject({ reason: "TOO_MANY_RESOURCES", metadata: { resource: "schedule", limit: "4" } });
  expect(refused.message).toContain("Delete one");
  const [first] = (await schedules.listSchedules({})).schedules;
  expect((await refusalOf(schedules.createSchedule(schedule(first?.key ?? "")))).reason).toBe("ALREADY_EXISTS");
  await schedules.deleteSchedule({ key: first?.key ?? "" });
  await schedules.createSchedule(schedule("more"));
});

test("a user has room for so many deadlines to come; what is past or stays takes none", async () => {
  const { schedules } = small.key;
  await schedules.upsertDeadline(deadline("past", -1));
  for (const key of ["a", "b", "c"]) await schedules.upsertDeadline(deadline(key));
  const refused = await refusalOf(schedules.upsertDeadline(deadline("d")));
  expect(refused).toMatchObject({ reason: "TOO_MANY_RESOURCES", metadata: { resource: "deadline", limit: "3" } });
  expect((await refusalOf(schedules.getDeadline({ userId: "ann", key: "d" }))).reason).toBe("NOT_FOUND");
  await schedules.upsertDeadline(deadline("c", 3));
  await schedules.deleteDeadline({ userId: "ann", key: "a" });
  await schedules.upsertDeadline(deadline("d"));
});

test("pages end before they are too large for a client, and nothing is lost between them", async () => {
  const { schedules } = wide.key;
  const userIds = Array.from({ length: 1000 }, (_, n) => `${n}`.padStart(120, "u"));
  const keys = Array.from({ length: 25 }, (_, n) => `k${n}`.padEnd(4, "x"));
  for (const key of keys) await schedules.createSchedule(schedule(key, { request: { to: { userIds }, content } }));
  const body = "x".repeat(9_000);
  for (let n = 0; n < 130; n++)
    await schedules.upsertDeadline(deadline(`d${n}`, -1, { content: { title: "Hi", data: { text: body } } }));
  const pages: string[][] = [];
  for (let pageToken = ""; pages.length === 0 || pageToken !== ""; ) {
    const page = await schedules.listSchedules({ pageSize: 200, pageToken });
    pages.push(page.schedules.map(({ key }) => key));
    pageToken = page.nextPageToken;
  }
  expect(pages.flat()).toEqual(keys.toSorted());
  // 121,000 bytes each.
  expect(pages.map((page) => page.length)).toEqual([8, 8, 8, 1]);
  const lists: number[] = [];
  for (let pageToken = ""; lists.length === 0 || pageToken !== ""; ) {
    const page = await schedules.listDeadlines({ userId: "ann", pageSize: 200, pageToken });
    lists.push(page.deadlines.length);
    pageToken = page.nextPageToken;
  }
  expect(lists).toHaveLength(2);
  expect(lists.reduce((sum, many) => sum + many, 0)).toBe(130);
});
