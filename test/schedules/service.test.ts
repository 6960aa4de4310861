import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import postgres from "postgres";
import { describe, expect, onTestFinished, test } from "vitest";
import { Tenant_State } from "#gen/posthorn/v1/admin_service_pb.ts";
import { Priority, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { type Schedule, Schedule_State as State } from "#gen/posthorn/v1/schedule_service_pb.ts";
import { localTimeOf } from "#src/notifications/local-time.ts";
import { OPERATOR_KEY, platformOfFile } from "../support/platform.ts";
import { refusalOf } from "../support/refusal.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

const HOUR = 3_600_000;
const SOON = HOUR / 6;
const EAST = "Pacific/Kiritimati";
const WEST = "Pacific/Pago_Pago";
const time = { ahead: 0 };
const now = () => new Date(Date.now() + time.ahead);
const services = await testServices();
const a = await platformOfFile({ services, clock: now });
await platformOfFile({ services, clock: now, tenant: a.tenant, roles: ["worker", "scheduler"] });
const { schedules, send, users, types, topics } = a.key;

const content = { title: "Stand-up" };
/** Wall-clock time of a zone, so far from now. */
const at = (ms: number, zone = "UTC") => localTimeOf(new Date(now().getTime() + ms), zone);
let count = 0;
async function made(more: object, to: object = { userIds: ["ann"] }): Promise<Schedule> {
  const schedule = { key: `s${count++}`, request: { to, content }, recurrence: "FREQ=DAILY", timeZone: "UTC", ...more };
  const answer = await schedules.createSchedule({ schedule: { localStartTime: at(SOON), ...schedule } });
  if (answer.schedule === undefined) throw new Error("no schedule");
  return answer.schedule;
}
/** Turns the clock to the first occurrence of what was made last. */
const come = () => {
  time.ahead += SOON;
};
const sentBy = async ({ key }: Schedule) =>
  (await send.listNotifications({ filter: { tag: `schedule:${key}` } })).notifications;
const current = async ({ key }: Schedule) => (await schedules.getSchedule({ key })).schedule;
const delivered = (schedule: Schedule, many: number) =>
  until(
    () => sentBy(schedule),
    (found) => found.filter(({ status }) => status === Status.DELIVERED).length >= many,
  );

describe("a schedule", () => {
  test("sends every occurrence once, on two schedulers, and says what comes next", async () => {
    const hourly = await made({ recurrence: "FREQ=HOURLY;COUNT=3" });
    expect(hourly.nextOccurrences.map(({ localTime }) => localTime)).toHaveLength(3);
    come();
    for (let n = 1; n <= 3; n++) {
      await delivered(hourly, n);
      time.ahead += HOUR;
    }
    const ended = await until(
      () => current(hourly),
      (schedule) => schedule?.state === State.ENDED,
    );
    expect(ended).toMatchObject({ firedCount: 3n, missedCount: 0n, nextOccurrences: [] });
    expect(await sentBy(hourly)).toHaveLength(3);
  });

  test("comes at each recipient's own wall-clock time, and those for whom it is past get nothing", async () => {
    for (const [id, timeZone] of [
      ["kim", "Pacific/Kiritimati"],
      ["ben", "Europe/Berlin"],
      ["sam", "Pacific/Pago_Pago"],
    ] as const)
      await users.upsertUser({ user: { id, timeZone, roles: ["crew"] } });
    const wall = at(30 * 60_000, "Europe/Berlin");
    for (const to of [{ userIds: ["kim", "ben", "sam"] }, { roles: ["crew"] }]) {
      const schedule = await made({ timeZone: "", localStartTime: wall, recurrence: "FREQ=DAILY;COUNT=1" }, to);
      // Already past in Kiritimati.
      const sent = await until(
        () => sentBy(schedule),
        (found) => found.length >= 2,
      );
      const byUser = Object.fromEntries(sent.map((each) => [each.userId, each]));
      expect(Object.keys(byUser).toSorted()).toEqual(["ben", "sam"]);
      for (const [id, zone] of [
        ["ben", "Europe/Berlin"],
        ["sam", "Pacific/Pago_Pago"],
      ] as const) {
        const due = byUser[id]?.scheduleTime;
        expect(due && localTimeOf(timestampDate(due), zone)).toBe(wall);
        expect(byUser[id]?.status).toBe(Status.SCHEDULED);
      }
    }
  });

  test("that begins when its time is past for all whom it names has missed nothing", async () => {
    await users.upsertUser({ user: { id: "bea", timeZone: "Europe/Berlin" } });
    const wall = at(-HOUR / 2, "Europe/Berlin");
    const schedule = await made({ timeZone: "", localStartTime: wall }, { userIds: ["bea"] });
    expect(schedule.nextOccurrences[0]?.localTime).toBe(wall);
    const seen = await until(
      () => current(schedule),
      (found) => found?.nextOccurrences[0]?.localTime !== wall,
    );
    expect(seen).toMatchObject({ state: State.ACTIVE, firedCount: 0n, missedCount: 0n });
    // From a start that was before it, it is missed by whom it was for.
    time.ahead += 24 * HOUR + 3 * HOUR;
    const later = await until(
      () => current(schedule),
      (found) => (found?.missedCount ?? 0n) > 0n || (found?.firedCount ?? 0n) > 0n,
    );
    expect(Number(later?.missedCount) + Number(later?.firedCount)).toBe(1);
  });

  test("is not sent to who moves to where its time is past, as a Send of that time is", async () => {
    const user = { id: "mia", timeZone: "Pacific/Pago_Pago" };
    await users.upsertUser({ user });
    const wall = at(HOUR / 2, user.timeZone);
    const schedule = await made(
      { timeZone: "", localStartTime: wall, recurrence: "FREQ=DAILY;COUNT=1" },
      { userIds: ["mia"] },
    );
    const [occurrence] = await until(
      () => sentBy(schedule),
      (found) => found.length === 1,
    );
    const local = { case: "localScheduleTime", value: wall } as const;
    const { results } = await send.send({ to: { userIds: ["mia"] }, content, schedule: local });
    // A little west it is only later.
    await users.upsertUser({ user: { ...user, timeZone: "Etc/GMT+12" } });
    const find = async (id = "") => (await send.getNotification({ id })).notification;
    expect((await find(occurrence?.id))?.status).toBe(Status.SCHEDULED);
    await users.upsertUser({ user: { ...user, timeZone: "Asia/Tokyo" } });
    expect(await find(occurrence?.id)).toMatchObject({ status: Status.EXPIRED, reason: Reason.EXPIRED });
    await until(
      () => find(results[0]?.notificationId),
      (found) => found?.status === Status.DELIVERED,
    );
  });

  test("goes on at once in another zone, where clocks show less than when it was sent", async () => {
    const start = at(SOON - 72 * HOUR, EAST);
    const hourly = await made({ recurrence: "FREQ=HOURLY", localStartTime: start, timeZone: EAST });
    come();
    await delivered(hourly, 1);
    const { schedule } = await schedules.updateSchedule({ schedule: { key: hourly.key, timeZone: WEST } });
    const next = schedule?.nextOccurrences[0]?.time;
    expect(next && timestampDate(next).getTime() - now().getTime()).toBeLessThanOrEqual(HOUR);
    time.ahead += HOUR;
    await delivered(hourly, 2);
    const instants = (await sentBy(hourly)).map(({ createTime }) => createTime && timestampDate(createTime).getTime());
    expect((instants[0] ?? 0) - (instants[1] ?? 0)).toBeLessThan(1.5 * HOUR);
  });

  test("is deleted with what of it waits, if that is asked for, and not without", async () => {
    await users.upsertUser({ user: { id: "pia", timeZone: WEST, roles: ["late"] } });
    await users.upsertUser({ user: { id: "pit", timeZone: WEST, roles: ["late"] } });
    const wall = at(HOUR / 2, WEST);
    const asked = { timeZone: "", localStartTime: wall, recurrence: "FREQ=DAILY;COUNT=1" };
    const kept = await made(asked, { userIds: ["pia", "pit"] });
    const gone = await made(asked, { userIds: ["pia"], roles: ["late"] });
    for (const schedule of [kept, gone])
      await until(
        () => sentBy(schedule),
        (found) => found.length === 2,
      );
    expect((await schedules.deleteSchedule({ key: kept.key })).cancelled).toBe(0);
    expect((await schedules.deleteSchedule({ key: gone.key, cancelWaiting: true })).cancelled).toBe(2);
    expect((await schedules.deleteSchedule({ key: gone.key, cancelWaiting: true })).cancelled).toBe(0);
    const statuses = async (schedule: Schedule) => (await sentBy(schedule)).map(({ status }) => status);
    expect(await statuses(kept)).toEqual([Status.SCHEDULED, Status.SCHEDULED]);
    expect(await statuses(gone)).toEqual([Status.CANCELLED, Status.CANCELLED]);
    // What was deleted before is completed.
    expect((await schedules.deleteSchedule({ key: kept.key, cancelWaiting: true })).cancelled).toBe(2);
  });

  test("that is paused sends nothing, and goes on with what comes after", async () => {
    const hourly = await made({ recurrence: "FREQ=HOURLY", localStartTime: at(HOUR / 2) });
    expect((await schedules.pauseSchedule({ key: hourly.key })).schedule?.state).toBe(State.PAUSED);
    time.ahead += 3 * HOUR;
    const other = await made({});
    come();
    await delivered(other, 1);
    const { schedule } = await schedules.resumeSchedule({ key: hourly.key });
    expect(schedule).toMatchObject({ state: State.ACTIVE, firedCount: 0n, missedCount: 0n });
    time.ahead += HOUR;
    await delivered(hourly, 1);
    expect(await sentBy(hourly)).toHaveLength(1);
  });

  test("leaves out what no server could send within an hour", async () => {
    const hourly = await made({ recurrence: "FREQ=HOURLY", localStartTime: at(HOUR / 2) });
    time.ahead += 5 * HOUR;
    await delivered(hourly, 1);
    const seen = await until(
      () => current(hourly),
      (schedule) => (schedule?.missedCount ?? 0n) > 0n,
    );
    expect(seen).toMatchObject({ firedCount: 1n, missedCount: 4n });
  });

  test("that is changed goes by the change, and sends nothing twice", async () => {
    const daily = await made({});
    come();
    await delivered(daily, 1);
    const { schedule } = await schedules.updateSchedule({
      schedule: { key: daily.key, request: { to: { userIds: ["ben"] }, content: { title: "Other" } } },
    });
    expect(schedule).toMatchObject({ revision: 2, recurrence: "FREQ=DAILY" });
    await schedules.updateSchedule({ schedule: { key: daily.key, recurrence: "FREQ=DAILY;INTERVAL=2" } });
    time.ahead += 48 * HOUR;
    await delivered(daily, 2);
    expect((await sentBy(daily)).map(({ userId, content }) => [userId, content?.title])).toEqual([
      ["ben", "Other"],
      ["ann", "Stand-up"],
    ]);
    const stale = schedules.updateSchedule({ schedule: { key: daily.key, recurrence: "FREQ=DAILY" }, revision: 1 });
    expect((await refusalOf(stale)).reason).toBe("ETAG_MISMATCH");
  });

  test("goes on after what was sent, though it is still to come to some, when it is changed, paused or moved to a zone", async () => {
    await users.upsertUser({ user: { id: "pia", timeZone: WEST } });
    const wall = at(30 * 60_000, "Europe/Berlin");
    const daily = await made({ timeZone: "", localStartTime: wall }, { userIds: ["pia"] });
    expect(
      (
        await until(
          () => sentBy(daily),
          ({ length }) => length > 0,
        )
      )[0]?.status,
    ).toBe(Status.SCHEDULED);
    const { key } = daily;
    const follows = (schedule: Schedule | undefined) =>
      expect(schedule?.nextOccurrences[0]?.localTime.localeCompare(wall)).toBe(1);
    follows((await schedules.updateSchedule({ schedule: { key, recurrence: "FREQ=DAILY;INTERVAL=2" } })).schedule);
    await schedules.pauseSchedule({ key });
    follows((await schedules.resumeSchedule({ key })).schedule);
    follows((await schedules.updateSchedule({ schedule: { key, timeZone: WEST } })).schedule);
    expect(await sentBy(daily)).toHaveLength(1);
  });

  test("loses a user who is deleted, and takes no change made from what it was before", async () => {
    await users.upsertUser({ user: { id: "gone" } });
    const before = await made({ localStartTime: at(HOUR) }, { userIds: ["gone", "ann"] });
    await users.deleteUser({ id: "gone" });
    const after = await current(before);
    expect(after?.request?.to?.userIds).toEqual(["ann"]);
    const { key, revision } = before;
    const stale = schedules.updateSchedule({ schedule: { key, recurrence: "FREQ=WEEKLY" }, revision });
    expect((await refusalOf(stale)).reason).toBe("ETAG_MISMATCH");
  });

  test("stands in the audit log when it changes or ends with a user, of whom no deadline is left", async () => {
    const both = await made({ localStartTime: at(HOUR) }, { userIds: ["exit", "ann"] });
    const only = await made({ localStartTime: at(HOUR) }, { userIds: ["exit"] });
    for (const key of ["a", "b"])
      await schedules.upsertDeadline({
        deadline: { userId: "exit", key, content, time: timestampFromDate(new Date(now().getTime() + 48 * HOUR)) },
      });
    await users.deleteUser({ id: "exit" });
    expect((await schedules.listDeadlines({ userId: "exit" })).deadlines).toEqual([]);
    const open = { userId: "exit", statuses: [Status.SCHEDULED] };
    expect((await send.listNotifications({ filter: open })).notifications).toEqual([]);
    const { entries } = await a.key.admin.listAuditEntries({ pageSize: 10 });
    const told = entries.filter(({ action }) => action !== "user.delete").slice(0, 2);
    expect(told.map(({ action, target }) => [action, target]).toSorted()).toEqual([
      ["schedule.delete", `schedule:${only.key}`],
      ["schedule.update", `schedule:${both.key}`],
    ]);
  });

  test("of a suspended tenant sends nothing until it is resumed", async () => {
    const tenant = await a.newTenant();
    const theirs = a.clients(tenant.apiKey);
    const operator = a.clients(OPERATOR_KEY);
    const schedule = { key: "s", recurrence: "FREQ=DAILY;COUNT=1", timeZone: "UTC", localStartTime: at(SOON) };
    await theirs.schedules.createSchedule({
      schedule: { ...schedule, request: { to: { userIds: ["ann"] }, content } },
    });
    await operator.admin.updateTenant({ id: tenant.tenantId, state: Tenant_State.SUSPENDED });
    const meanwhile = await made({});
    come();
    await delivered(meanwhile, 1);
    const resumedAt = now();
    const fired = async () => (await theirs.schedules.getSchedule({ key: "s" })).schedule?.firedCount;
    await operator.admin.updateTenant({ id: tenant.tenantId, state: Tenant_State.ACTIVE });
    await until(
      () => fired().catch(() => undefined),
      (count) => count === 1n,
    );
    const [sent] = (await theirs.send.listNotifications({})).notifications;
    expect(sent?.createTime && timestampDate(sent.createTime).getTime()).toBeGreaterThanOrEqual(resumedAt.getTime());
  });

  test("reaches the members a topic has when it fires", async () => {
    await topics.upsertTopic({ topic: { key: "team" } });
    const weekly = await made({ recurrence: "FREQ=WEEKLY" }, { topics: ["team"] });
    await topics.addMembers({ key: "team", userIds: ["ann", "ben"] });
    come();
    await delivered(weekly, 2);
  });

  test("whose type is gone has missed its occurrence, and goes on", async () => {
    await types.createType({ type: { key: "brief" } });
    const daily = await made({ request: { to: { userIds: ["ann"] }, content, type: "brief" } });
    await types.deleteType({ key: "brief" });
    come();
    const seen = await until(
      () => current(daily),
      (schedule) => schedule?.missedCount === 1n,
    );
    expect(seen).toMatchObject({ state: State.ACTIVE, firedCount: 0n });
  });

  test("is deleted, listed by key, and not made twice", async () => {
    const one = await made({ localStartTime: at(HOUR) });
    const again = schedules.createSchedule({ schedule: one });
    expect((await refusalOf(again)).reason).toBe("ALREADY_EXISTS");
    const first = await schedules.listSchedules({ pageSize: 1 });
    const second = await schedules.listSchedules({ pageSize: 1, pageToken: first.nextPageToken });
    expect(first.schedules[0]?.key).not.toBe(second.schedules[0]?.key);
    await schedules.deleteSchedule({ key: one.key });
    await schedules.deleteSchedule({ key: one.key });
    expect((await refusalOf(schedules.getSchedule({ key: one.key }))).reason).toBe("NOT_FOUND");
  });

  test.each([
    ["a rule that is none", { recurrence: "often" }],
    ["every second", { recurrence: "FREQ=SECONDLY" }],
    ["a rule that never comes", { recurrence: "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30" }],
    ["a rule that never comes in any hour", { recurrence: "FREQ=HOURLY;BYMONTH=2;BYMONTHDAY=30" }],
    ["a rule that names too many times", { recurrence: "FREQ=YEARLY;BYDAY=MO,TU,WE,TH,FR;BYHOUR=8,10,12,14" }],
    ["a count that takes too long", { recurrence: "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=29;COUNT=366" }],
    ["a rule that is over", { recurrence: "FREQ=DAILY;UNTIL=20200101" }],
    ["a zone that is none", { timeZone: "Middle/Earth" }],
    ["a start far ahead", { localStartTime: "2099-01-01T00:00" }],
    ["a start that is no time", { localStartTime: "2026-02-31T00:00" }],
    [
      "a request with a time of its own",
      {
        request: {
          to: { userIds: ["ann"] },
          content,
          schedule: { case: "scheduleTime", value: timestampFromDate(now()) },
        },
      },
    ],
  ])("is refused with %s", async (_, more) => {
    expect((await refusalOf(made(more))).reason).toBe("INVALID_REQUEST");
  });
});

test("a schedule is looked for by its own priority, or its type's as it is now", async () => {
  const sql = postgres(services.databaseUrl, { max: 1 });
  onTestFinished(() => sql.end());
  const laneOf = async ({ key }: Schedule) =>
    (await sql`select lane::int from schedules where tenant_id = ${a.tenant.tenantId} and key = ${key}`)[0]?.lane;
  const type = { key: "urgent", displayName: "Urgent", defaultPriority: Priority.HIGH };
  await types.createType({ type });
  const to = { userIds: ["ann"] };
  const own = await made({ request: { to, content, type: "urgent", priority: Priority.LOW } });
  const inherits = await made({ request: { to, content, type: "urgent" } });
  const other = await made({ request: { to, content } });
  const all = () => Promise.all([own, inherits, other].map(laneOf));
  expect(await all()).toEqual([Priority.LOW, Priority.HIGH, Priority.NORMAL]);
  await types.updateType({ type: { ...type, defaultPriority: Priority.CRITICAL } });
  expect(await all()).toEqual([Priority.LOW, Priority.CRITICAL, Priority.NORMAL]);
  await schedules.updateSchedule({
    schedule: { key: own.key, request: { to, content, type: "urgent" } },
    updateMask: { paths: ["request"] },
  });
  expect(await all()).toEqual([Priority.CRITICAL, Priority.CRITICAL, Priority.NORMAL]);
  await types.deleteType({ key: "urgent" });
  await types.createType({ type: { ...type, defaultPriority: Priority.LOW } });
  expect(await all()).toEqual([Priority.LOW, Priority.LOW, Priority.NORMAL]);
});
