import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import postgres from "postgres";
import { afterAll, describe, expect, test } from "vitest";
import { Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode } from "#gen/posthorn/v1/preferences_service_pb.ts";
import type { Deadline } from "#gen/posthorn/v1/schedule_service_pb.ts";
import { Preset } from "#gen/posthorn/v1/type_service_pb.ts";
import { localTimeOf } from "#src/notifications/local-time.ts";
import { platformOfFile } from "../support/platform.ts";
import { wrongInAppCounters } from "../support/recount.ts";
import { refusalOf } from "../support/refusal.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

const HOUR = 3_600_000;
const time = { ahead: 0 };
const now = () => new Date(Date.now() + time.ahead);
const services = await testServices();
const a = await platformOfFile({ services, clock: now });
const b = await platformOfFile({ services, clock: now, tenant: a.tenant });
const sql = postgres(services.databaseUrl, { max: 1, onnotice: () => undefined });
afterAll(() => sql.end());
const nodes = [a.key, b.clients(a.tenant.apiKey)] as const;
const { schedules, send, types } = a.key;
await types.loadPreset({ preset: Preset.TASKMASTER });
// Each reminder is to arrive by itself.
await a.key.preferences.updateDefaultPreferences({ preferences: { batching: { enabled: false } }, reason: "a test" });

const content = { title: "Report", body: "It is due soon." };
const within = (ms: number) => timestampFromDate(new Date(now().getTime() + ms));
let count = 0;
const fresh = () => ({ userId: "ann", key: `t${count++}`, type: "TASK_DEADLINE", content });
async function upsert(deadline: object, by: (typeof nodes)[number] = nodes[0]): Promise<Deadline> {
  const answer = await by.schedules.upsertDeadline({ deadline });
  if (answer.deadline === undefined) throw new Error("no deadline");
  return answer.deadline;
}
const hoursBefore = ({ time, reminders }: Deadline) =>
  reminders.map((each) => (Number(time?.seconds) - Number(each.time?.seconds)) / 3600);
const get = async (id = "") => (await send.getNotification({ id })).notification;
const reminders = async (key: string) =>
  (await send.listNotifications({ filter: { tag: `deadline:${key}` } })).notifications;
const open = async (key: string) => (await reminders(key)).filter(({ status }) => status === Status.SCHEDULED);

describe("a deadline", () => {
  test("reminds 24 and 2 hours before, or as its type or itself says, and not where that is past", async () => {
    expect(hoursBefore(await upsert({ ...fresh(), time: within(48 * HOUR) }))).toEqual([24, 2]);
    expect(hoursBefore(await upsert({ ...fresh(), type: "", time: within(48 * HOUR) }))).toEqual([24, 2]);
    expect(hoursBefore(await upsert({ ...fresh(), time: within(3 * HOUR) }))).toEqual([2]);
    expect(hoursBefore(await upsert({ ...fresh(), time: within(-HOUR) }))).toEqual([]);
    const offsets = [{ seconds: 3600n }, { seconds: 7200n * 12n }, { seconds: 3600n }];
    expect(hoursBefore(await upsert({ ...fresh(), time: within(48 * HOUR), reminderOffsets: { offsets } }))).toEqual([
      24, 1,
    ]);
    expect(hoursBefore(await upsert({ ...fresh(), time: within(48 * HOUR), reminderOffsets: {} }))).toEqual([]);
    await types.updateType({ type: { key: "TASK_OVERDUE", reminderOffsets: { offsets: [{ seconds: 36_000n }] } } });
    expect(hoursBefore(await upsert({ ...fresh(), type: "TASK_OVERDUE", time: within(48 * HOUR) }))).toEqual([10]);
  });

  test("that moves takes its reminders along, which keep their ids and get its content", async () => {
    const asked = fresh();
    const first = await upsert({ ...asked, time: within(48 * HOUR) });
    const moved = await upsert({ ...asked, time: within(72 * HOUR), content: { title: "Later" } });
    expect(moved.reminders.map(({ notificationId }) => notificationId)).toEqual(
      first.reminders.map(({ notificationId }) => notificationId),
    );
    expect(hoursBefore(moved)).toEqual([24, 2]);
    const stored = await get(moved.reminders[0]?.notificationId);
    expect(stored).toMatchObject({ status: Status.SCHEDULED, content: { title: "Later" }, priority: Priority.HIGH });
    expect(stored?.scheduleTime).toEqual(moved.reminders[0]?.time);
    expect(stored?.expireTime).toEqual(moved.time);
    const same = await upsert({ ...asked, time: moved.time, content: { title: "Later" } });
    expect(same.revision).toBe(moved.revision);
    // Sooner than 24 hours: that reminder goes.
    const soon = await upsert({ ...asked, time: within(5 * HOUR), content: { title: "Later" } });
    expect(hoursBefore(soon)).toEqual([2]);
    expect(await open(asked.key)).toHaveLength(1);
  });

  test("reminds again when it moves after it reminded, and not for the same time", async () => {
    const asked = { ...fresh(), reminderOffsets: { offsets: [{ seconds: 7200n }] } };
    const at = within(2 * HOUR + 1000);
    const first = await upsert({ ...asked, time: at });
    const id = first.reminders[0]?.notificationId;
    await until(
      () => get(id),
      (one) => one?.status === Status.DELIVERED,
    );
    await upsert({ ...asked, time: at, content: { title: "Again" } });
    expect(await reminders(asked.key)).toHaveLength(1);
    const moved = await upsert({ ...asked, time: within(4 * HOUR) });
    expect(moved.reminders[0]?.notificationId).not.toBe(id);
    expect(await open(asked.key)).toHaveLength(1);
  });

  test("keeps a reminder that is held back when it moves a little, and replaces it when its kind changes", async () => {
    const user = { id: "quiet", timeZone: "UTC" };
    await a.key.users.upsertUser({ user });
    const clockTime = (ms: number) => localTimeOf(new Date(now().getTime() + ms), "UTC").slice(11, 16);
    const quietHours = { enabled: true, startTime: clockTime(-HOUR), endTime: clockTime(HOUR / 2) };
    await a.key.preferences.updatePreferences({ userId: user.id, reason: "a test", preferences: { quietHours } });
    const offsets = [{ seconds: 7200n }];
    const asked = { ...fresh(), userId: user.id, type: "", reminderOffsets: { offsets } };
    const first = await upsert({ ...asked, time: within(2 * HOUR + 500) });
    const held = async (id = "") =>
      until(
        () => get(id),
        (one) => one?.status === Status.HELD,
      );
    const id = first.reminders[0]?.notificationId;
    await held(id);
    const sooner = await upsert({ ...asked, time: within(HOUR), content: { title: "Sooner" } });
    expect(sooner.reminders).toEqual(first.reminders);
    expect(await get(id)).toMatchObject({ status: Status.HELD, content: { title: "Sooner" }, expireTime: sooner.time });
    const other = await upsert({ ...asked, time: sooner.time, content: { title: "Sooner" }, priority: Priority.LOW });
    expect((await get(id))?.status).toBe(Status.CANCELLED);
    expect(other.reminders).toHaveLength(1);
    await held(other.reminders[0]?.notificationId);
    expect(await get(other.reminders[0]?.notificationId)).toMatchObject({ priority: Priority.LOW });
    await upsert({ ...asked, time: within(-HOUR), priority: Priority.LOW });
    expect((await reminders(asked.key)).map(({ status }) => status)).toEqual([Status.CANCELLED, Status.CANCELLED]);
  });

  test("moves a reminder that waits in a batch, as the notification it is", async () => {
    // Soon enough for what is of use for an hour.
    const batching = { batchable: true, maxSize: 5, window: { seconds: 900n } };
    await types.createType({ type: { key: "BATCHED", batching } });
    const own = { userId: "bo", type: "BATCHED", reminderOffsets: { offsets: [{ seconds: 3600n }] } };
    await a.key.preferences.updatePreferences({
      userId: own.userId,
      reason: "a test",
      preferences: { batching: { enabled: true } },
    });
    const asked = { ...fresh(), ...own };
    const first = await upsert({ ...asked, time: within(HOUR + 500) });
    const id = first.reminders[0]?.notificationId;
    await until(
      () => get(id),
      (one) => one?.status === Status.BATCHED,
    );
    const moved = await upsert({ ...asked, time: within(5 * HOUR) });
    expect(moved.reminders.map(({ notificationId }) => notificationId)).toEqual([id]);
    expect((await get(id))?.status).toBe(Status.SCHEDULED);
    expect(await reminders(asked.key)).toHaveLength(1);
  });

  test("makes no reminder again that was cancelled, wherever it moves, until it is made anew", async () => {
    const asked = fresh();
    const first = await upsert({ ...asked, time: within(48 * HOUR) });
    const [long, short] = first.reminders.map(({ notificationId }) => notificationId);
    await send.cancelNotification({ id: long ?? "" });
    const ids = ({ reminders }: Deadline) => reminders.map(({ notificationId }) => notificationId);
    for (const change of [
      { time: within(72 * HOUR) },
      { time: within(3 * HOUR) },
      { time: within(96 * HOUR), content: { title: "Other" } },
    ])
      expect(ids(await upsert({ ...asked, ...change }))).toEqual([long, short]);
    const other = await upsert({ ...asked, time: within(96 * HOUR), priority: Priority.LOW });
    expect(ids(other)[0]).toBe(long);
    const same = await upsert({ ...asked, time: other.time, priority: Priority.LOW });
    expect(same.revision).toBe(other.revision);
    expect(await open(asked.key)).toHaveLength(1);
    await schedules.deleteDeadline(asked);
    expect(hoursBefore(await upsert({ ...asked, time: within(48 * HOUR) }))).toEqual([24, 2]);
    expect(await open(asked.key)).toHaveLength(2);
  });

  test("takes a reminder that waits in a batch along, or cancels it", async () => {
    const userId = "batched";
    const batching = { enabled: true };
    await a.key.preferences.updatePreferences({ userId, reason: "a test", preferences: { batching } });
    const asked = { ...fresh(), userId };
    const batched = async () => {
      const { reminders } = await upsert({ ...asked, time: within(2 * HOUR + 500) });
      const id = reminders[0]?.notificationId;
      await until(
        () => get(id),
        (one) => one?.status === Status.BATCHED,
      );
      return id;
    };
    const id = await batched();
    const moved = await upsert({ ...asked, time: within(12 * HOUR) });
    expect(moved.reminders.map(({ notificationId }) => notificationId)).toContain(id);
    expect(await get(id)).toMatchObject({ status: Status.SCHEDULED, batchId: "" });
    const another = await batched();
    expect(await schedules.deleteDeadline(asked)).toMatchObject({ cancelled: 1 });
    expect((await get(another))?.status).toBe(Status.CANCELLED);
  });

  test("reminds in time, whatever digest its user has, and with one that is soon", async () => {
    const clockTime = (ms: number) => localTimeOf(new Date(now().getTime() + ms), "UTC").slice(11, 16);
    const became = async (userId: string, due: number) => {
      await a.key.users.upsertUser({ user: { id: userId, timeZone: "UTC" } });
      const digest = { mode: Digest_Mode.DAILY, time: clockTime(due) };
      await a.key.preferences.updatePreferences({ userId, reason: "a test", preferences: { digest } });
      const { reminders } = await upsert({ ...fresh(), userId, time: within(2 * HOUR + 500) });
      const one = await until(
        () => get(reminders[0]?.notificationId),
        (one) => one !== undefined && one.status !== Status.SCHEDULED && one.status !== Status.ACCEPTED,
      );
      return one?.status;
    };
    expect(await became("digest-after", 20 * HOUR)).toBe(Status.DELIVERED);
    expect(await became("digest-late", 1.5 * HOUR)).toBe(Status.DELIVERED);
    expect(await became("digest-soon", 0.5 * HOUR)).toBe(Status.BATCHED);
  });

  test("that is deleted cancels what waits, and so does another type", async () => {
    const asked = { ...fresh(), time: within(48 * HOUR) };
    await upsert(asked);
    const other = await upsert({ ...asked, type: "PROJECT_DEADLINE" });
    expect(hoursBefore(other)).toEqual([24, 2]);
    expect((await reminders(asked.key)).map(({ status, type }) => [type, status]).toSorted()).toEqual([
      ["PROJECT_DEADLINE", Status.SCHEDULED],
      ["PROJECT_DEADLINE", Status.SCHEDULED],
      ["TASK_DEADLINE", Status.CANCELLED],
      ["TASK_DEADLINE", Status.CANCELLED],
    ]);
    expect(await schedules.deleteDeadline(asked)).toMatchObject({ cancelled: 2 });
    expect(await schedules.deleteDeadline(asked)).toMatchObject({ cancelled: 0 });
    expect(await open(asked.key)).toEqual([]);
    expect((await refusalOf(schedules.getDeadline(asked))).reason).toBe("NOT_FOUND");
  });

  test("is listed by its user", async () => {
    for (const key of ["b", "a", "c"]) await upsert({ ...fresh(), userId: "lia", key, time: within(HOUR) });
    const first = await schedules.listDeadlines({ userId: "lia", pageSize: 2 });
    const second = await schedules.listDeadlines({ userId: "lia", pageSize: 2, pageToken: first.nextPageToken });
    expect([...first.deadlines, ...second.deadlines].map(({ key }) => key)).toEqual(["a", "b", "c"]);
    expect(second.nextPageToken).toBe("");
  });

  test("is refused beyond 400 days, and with a type that is not there", async () => {
    expect((await refusalOf(upsert({ ...fresh(), time: within(401 * 24 * HOUR) }))).reason).toBe("INVALID_REQUEST");
    expect((await refusalOf(upsert({ ...fresh(), type: "nothing", time: within(HOUR) }))).reason).toBe("NOT_FOUND");
  });
});

test("deadlines that are moved from two nodes while their reminders fire remind once for every time they had", async () => {
  const offsets = [{ seconds: 3600n }];
  const tasks = Array.from({ length: 24 }, () => ({ ...fresh(), reminderOffsets: { offsets } }));
  const told = new Map<string, Set<number>>();
  const move = async (task: object, node: (typeof nodes)[number], due: number) => {
    const { reminders } = await upsert({ ...task, time: timestampFromDate(new Date(due + HOUR)) }, node);
    for (const each of reminders) {
      const dues = told.get(each.notificationId) ?? new Set();
      told.set(each.notificationId, dues.add(each.time === undefined ? 0 : timestampDate(each.time).getTime()));
    }
  };
  const both = (work: (task: object, node: (typeof nodes)[number], n: number) => Promise<void>) =>
    Promise.all(tasks.flatMap((task, index) => nodes.map((node, n) => work(task, node, index + n))));
  // Again and again to an instant that is about to come, so that some fire, some move and some are too late.
  await both(async (task, node, n) => {
    for (let round = 0; round < 8; round++) await move(task, node, now().getTime() + 60 * ((7 * round + n) % 6));
  });
  const last = now().getTime() + 5000;
  await both((task, node) => move(task, node, last));
  await until(
    () =>
      sql`select id from notifications where tags && ${tasks.map(({ key }) => `deadline:${key}`)} and status in (1, 2, 3, 4)`,
    (left) => left.length === 0,
  );
  for (const { key } of tasks) {
    const all = await reminders(key);
    const fired = all.filter(({ status }) => status === Status.DELIVERED);
    const dues = fired.map(({ scheduleTime }) => String(scheduleTime && timestampDate(scheduleTime).getTime()));
    expect(new Set(dues).size).toBe(dues.length);
    // Nothing is delivered that no answer told of, and what was told last is.
    expect(all.every(({ id }) => told.has(id))).toBe(true);
    const { deadline } = await schedules.getDeadline({ userId: "ann", key });
    expect(fired.map(({ id }) => id)).toContain(deadline?.reminders[0]?.notificationId);
  }
  expect(await wrongInAppCounters(sql)).toEqual([]);
});

describe("a notification that waits", () => {
  const asked = async (more: object) => {
    await a.key.users.upsertUser({ user: { id: "tokyo", timeZone: "Asia/Tokyo" } });
    const { results } = await send.send({
      to: { userIds: ["tokyo"] },
      content,
      schedule: { case: "scheduleTime", value: within(48 * HOUR) },
      ...more,
    });
    return results[0]?.notificationId ?? "";
  };

  test("moves to a wall-clock time of its recipient", async () => {
    const id = await asked({});
    const local = localTimeOf(new Date(now().getTime() + 72 * HOUR), "Asia/Tokyo");
    const { notification } = await send.updateNotification({ id, localScheduleTime: local });
    const due = notification?.scheduleTime;
    expect(due && localTimeOf(timestampDate(due), "Asia/Tokyo")).toBe(local);
    const both = send.updateNotification({ id, localScheduleTime: local, scheduleTime: within(HOUR) });
    expect((await refusalOf(both)).reason).toBe("INVALID_REQUEST");
    const far = send.updateNotification({ id, localScheduleTime: "2099-01-01T00:00" });
    expect((await refusalOf(far)).reason).toBe("INVALID_REQUEST");
    // Absent under the mask: at once.
    await send.updateNotification({ id, updateMask: { paths: ["local_schedule_time"] } });
    await until(
      () => get(id),
      (one) => one?.status === Status.DELIVERED,
    );
  });

  test("keeps the instant it expires at when its time changes, and where its recipient goes", async () => {
    const day = (ms: number) => localTimeOf(new Date(now().getTime() + ms), "Asia/Tokyo");
    const id = await asked({
      schedule: { case: "localScheduleTime", value: day(48 * HOUR) },
      expiry: { case: "ttl", value: { seconds: 100n * 3600n } },
    });
    const expires = (await get(id))?.expireTime;
    const later = day(72 * HOUR);
    await send.updateNotification({ id, localScheduleTime: later });
    expect((await get(id))?.expireTime).toEqual(expires);
    await a.key.users.upsertUser({ user: { id: "tokyo", timeZone: "Europe/Berlin" } });
    const moved = await get(id);
    expect(moved?.scheduleTime && localTimeOf(timestampDate(moved.scheduleTime), "Europe/Berlin")).toBe(later);
    expect(moved?.expireTime).toEqual(expires);
  });

  test("is either cancelled or delivered, and moved or delivered, when that races its release", async () => {
    const ids = await Promise.all(Array.from({ length: 40 }, () => asked({})));
    await Promise.all(ids.map((id) => send.updateNotification({ id, scheduleTime: within(300) })));
    const outcomes = await Promise.all(
      ids.map(async (id, n) => {
        await new Promise((resolve) => setTimeout(resolve, 200 + 8 * n));
        const call =
          n % 2 === 0
            ? nodes[1].send.cancelNotification({ id })
            : nodes[1].send.updateNotification({ id, scheduleTime: within(100 * HOUR) });
        return call.then(
          () => (n % 2 === 0 ? Status.CANCELLED : Status.SCHEDULED),
          () => Status.DELIVERED,
        );
      }),
    );
    await until(
      () => sql`select id from notifications where id = any(${ids}::uuid[]) and status = 1`,
      (left) => left.length === 0,
    );
    expect(await Promise.all(ids.map(async (id) => (await get(id))?.status))).toEqual(outcomes);
    const entries = await sql`
      select notification_id from inbox where notification_id = any(${ids}::uuid[])`;
    expect(entries.map(({ notification_id }) => notification_id).toSorted()).toEqual(
      ids.filter((_, n) => outcomes[n] === Status.DELIVERED).toSorted(),
    );
  });
});
