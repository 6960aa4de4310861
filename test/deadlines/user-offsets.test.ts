import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { PreferenceLevel as Level } from "#gen/posthorn/v1/preferences_service_pb.ts";
import type { Deadline } from "#gen/posthorn/v1/schedule_service_pb.ts";
import { platformOfFile } from "../support/platform.ts";
import { wrongInAppCounters } from "../support/recount.ts";
import { refusalOf } from "../support/refusal.ts";
import { testServices } from "../support/services.ts";
import { openReader } from "../support/stream-reader.ts";
import { until } from "../support/until.ts";

const HOUR = 3_600_000;
const services = await testServices();
const a = await platformOfFile({ services });
const b = await platformOfFile({ services, tenant: a.tenant, roles: ["api"] });
const sql = postgres(services.databaseUrl, { max: 1, onnotice: () => undefined });
afterAll(() => sql.end());
const { schedules, send, types, preferences } = a.key;

const reason = "a test";
const content = { title: "Report" };
const within = (hours: number) => timestampFromDate(new Date(Date.now() + hours * HOUR));
const before = (...hours: number[]) => ({
  reminderOffsets: { offsets: hours.map((each) => ({ seconds: BigInt(each * 3600) })) },
});
const hoursOf = ({ time, reminders }: Deadline) =>
  reminders.map((each) => Math.round((Number(time?.seconds) - Number(each.time?.seconds)) / 360) / 10);
async function upsert(deadline: object, node = a.key): Promise<Deadline> {
  const answer = await node.schedules.upsertDeadline({ deadline: { content, time: within(100), ...deadline } });
  if (answer.deadline === undefined) throw new Error("no deadline");
  return answer.deadline;
}
const read = async ({ userId, key }: Deadline) => {
  const { deadline } = await schedules.getDeadline({ userId, key });
  if (deadline === undefined) throw new Error("no deadline");
  return deadline;
};
const waiting = async (userId: string) => {
  const { notifications } = await send.listNotifications({ filter: { userId, statuses: [Status.SCHEDULED] } });
  return notifications.map(({ id }) => id).toSorted();
};
const set = (userId: string, scopes: object) => preferences.updatePreferences({ userId, reason, preferences: scopes });

test("go by the deadline, the user's type, the user's category, the tenant's, the type, in this order", async () => {
  await types.createType({ type: { key: "ladder", category: "work", ...before(1) } });
  const userId = "lea";
  const now = async () => hoursOf(await upsert({ userId, key: "k", type: "ladder" }));
  const inForce = async () => {
    const { preferences: values, origins } = await preferences.getEffectivePreferences({ userId, type: "ladder" });
    const hours = values?.types.ladder?.reminderOffsets?.offsets.map(({ seconds }) => Number(seconds) / 3600);
    return [hours, origins["types.ladder.reminder_offsets"]];
  };
  expect(hoursOf(await upsert({ userId, key: "plain" }))).toEqual([24, 2]);
  expect(await now()).toEqual([1]);
  expect(await inForce()).toEqual([[1], Level.TYPE]);
  const ofAll = (preferences_: object) => preferences.updateDefaultPreferences({ preferences: preferences_, reason });
  await ofAll({ categories: { work: before(3) } });
  expect(await now()).toEqual([3]);
  expect(await inForce()).toEqual([[3], Level.CATEGORY]);
  await ofAll({ types: { ladder: before(4) } });
  expect(await now()).toEqual([4]);
  await set(userId, { categories: { work: before(5) } });
  expect(await now()).toEqual([5]);
  expect(await inForce()).toEqual([[5], Level.CATEGORY]);
  await set(userId, { types: { ladder: before(7, 6) } });
  expect(await now()).toEqual([7, 6]);
  expect(await inForce()).toEqual([[7, 6], Level.TYPE]);
  expect(hoursOf(await upsert({ userId, key: "own", type: "ladder", ...before(8) }))).toEqual([8]);
  const general = await preferences.getEffectivePreferences({ userId });
  expect(general.preferences?.types).toEqual({});
});

test("are moved with the user's, in the call that changes them, which says what became of them", async () => {
  await types.createType({ type: { key: "task" } });
  await types.createType({ type: { key: "other" } });
  const user = await a.clientsFor("ann");
  const task = await upsert({ userId: "ann", key: "task", type: "task" });
  // Its 24 hours are past: only the other is to come.
  const soon = await upsert({ userId: "ann", key: "soon", type: "task", time: within(10) });
  const own = await upsert({ userId: "ann", key: "own", type: "task", ...before(24) });
  const other = await upsert({ userId: "ann", key: "other", type: "other" });
  const reader = openReader(user, { includeStatus: true });
  await reader.next("caughtUp");

  const first = await user.preferences.updatePreferences({ preferences: { types: { task: before(12, 2, 1) } } });
  expect(first.changedFields).toEqual(["types.task.reminder_offsets"]);
  // 24 hours became 12; one hour is new to both, and what else waits stays.
  expect(first.reconciled).toMatchObject({ moved: 1, added: 2, suppressed: 0, unchanged: 5, more: false });
  expect(hoursOf(await read(task))).toEqual([12, 2, 1]);
  expect(hoursOf(await read(soon))).toEqual([2, 1]);
  expect((await read(task)).reminders[1]).toEqual(task.reminders[1]);
  for (const same of [own, other]) expect(await read(same)).toEqual(same);
  const all = await Promise.all([task, soon, own, other].map(read));
  const ids = all.flatMap(({ reminders }) => reminders.map(({ notificationId }) => notificationId));
  expect(await waiting("ann")).toEqual(ids.toSorted());
  const told = await reader.next("preferences");
  expect(told.reconciled).toMatchObject({ moved: 1, added: 2 });
  const { notification, timeline } = await send.getNotification({ id: task.reminders[0]?.notificationId ?? "" });
  expect(notification?.status).toBe(Status.CANCELLED);
  expect(timeline.at(-1)?.actor).toBe("user:ann");
  const added = await send.getNotification({ id: (await read(task)).reminders[2]?.notificationId ?? "" });
  expect(added.notification).toMatchObject({ type: "task", content, tags: ["deadline:task"], expireTime: task.time });
  expect(added.timeline.map(({ status }) => status)).toEqual([Status.ACCEPTED, Status.SCHEDULED]);

  // Empty is none, which is something else than not to say.
  const none = await user.preferences.updatePreferences({ preferences: { types: { task: before() } } });
  expect(none.reconciled).toMatchObject({ suppressed: 5, moved: 0, added: 0, unchanged: 3 });
  expect((await read(task)).reminders).toEqual([]);
  expect((await user.preferences.getPreferences({})).preferences?.types.task?.reminderOffsets?.offsets).toEqual([]);
  const reset = await user.preferences.resetPreferences({});
  expect(reset.reconciled).toMatchObject({ suppressed: 0, moved: 0, added: 3, unchanged: 3 });
  expect(hoursOf(await read(task))).toEqual([24, 2]);
  expect(await wrongInAppCounters(sql)).toEqual([]);
});

test("leave alone what was delivered, and remind no second time when they come back", async () => {
  const time = timestampFromDate(new Date(Date.now() + 2 * HOUR + 700));
  const deadline = await upsert({ userId: "ben", key: "k", time });
  const id = deadline.reminders[0]?.notificationId ?? "";
  await until(
    () => send.getNotification({ id }),
    ({ notification }) => notification?.status === Status.DELIVERED,
  );
  await set("ben", { types: { general: before(1) } });
  expect((await send.getNotification({ id })).notification?.status).toBe(Status.DELIVERED);
  await set("ben", { types: { general: before(2, 1) } });
  const { notifications } = await send.listNotifications({ filter: { userId: "ben" } });
  expect(notifications.map(({ status }) => status)).toEqual([Status.SCHEDULED, Status.DELIVERED]);
});

test("are refused beyond their bounds, and replaced as a whole", async () => {
  const tooMany = set("cat", { types: { general: before(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11) } });
  expect((await refusalOf(tooMany)).reason).toBe("INVALID_REQUEST");
  expect((await refusalOf(set("cat", { types: { general: before(2161) } }))).reason).toBe("INVALID_REQUEST");
  const part = preferences.updatePreferences({
    userId: "cat",
    reason,
    preferences: {},
    updateMask: { paths: ["types.general.reminder_offsets.offsets"] },
  });
  expect((await refusalOf(part)).reason).toBe("INVALID_FIELD_MASK");
});

test("end as the user set them last, whoever stores deadlines meanwhile", async () => {
  const keys = Array.from({ length: 12 }, (_, n) => `d${n}`);
  const offsets = [before(5), before(9, 3), before(), before(7, 5)];
  const last = before(6, 4);
  await Promise.all([
    ...keys.flatMap((key, n) =>
      [a.key, b.key].map(async (node) => {
        for (let round = 0; round < 5; round++) {
          await upsert({ userId: "dan", key, time: within(48 + n + round) }, node);
          if ((round + n) % 4 === 3) await node.schedules.deleteDeadline({ userId: "dan", key });
        }
      }),
    ),
    (async () => {
      for (let n = 0; n < 12; n++) await set("dan", { types: { general: offsets[n % offsets.length] } });
      await set("dan", { types: { general: last } });
    })(),
  ]);
  const { deadlines } = await schedules.listDeadlines({ userId: "dan", pageSize: 200 });
  for (const deadline of deadlines) expect(hoursOf(deadline)).toEqual([6, 4]);
  const ids = deadlines.flatMap(({ reminders }) => reminders.map(({ notificationId }) => notificationId));
  expect(await waiting("dan")).toEqual(ids.toSorted());
  for (const { time, reminders } of deadlines)
    expect(time && reminders.every((each) => each.time && timestampDate(each.time) < timestampDate(time))).toBe(true);
  expect(await wrongInAppCounters(sql)).toEqual([]);
});
