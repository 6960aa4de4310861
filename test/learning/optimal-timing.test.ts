import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { Gate, GateAnswer } from "#gen/posthorn/v1/explain_pb.ts";
import { Channel, Priority, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode, PreferenceLevel } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { AckRequest_Kind } from "#gen/posthorn/v1/stream_service_pb.ts";
import { plain as plainArray } from "#src/store/arrays.ts";
import { batching, HOUR } from "../batches/setup.ts";
import { platformOfFile } from "../support/platform.ts";
import { refusalOf } from "../support/refusal.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

// What waits for an hour in which its recipient looks. It is a Tuesday, 10:20 in London; the clock stands still.

const services = await testServices();
let now = new Date("2026-12-01T10:20:00Z");
const node = await platformOfFile({ services, clock: () => now });
const { key, tenant } = node;
const { newType, newUser, prefer, send, get, reached } = batching(node);
const sql = postgres(services.databaseUrl, { max: 2, onnotice: () => undefined });
afterAll(() => sql.end());

const DAY = 24 * HOUR;
const wait = (hours: number) => ({ timing: { maxWait: { seconds: BigInt(hours * 3600) } } });
const patient = await newType(undefined, wait(12));
const plain = await newType(undefined);

/** As if they had looked in these hours of every day for a month. */
async function looksAt(userId: string, hours: readonly number[], times = 30): Promise<void> {
  const weights = Array.from({ length: 48 }, (_, cell) => (hours.includes(cell % 24) ? times : 0));
  const since = new Date(now.getTime() - 30 * DAY);
  await sql`insert into looks values (${tenant.tenantId}, ${userId}, ${plainArray(weights)}::float8[], ${since}, ${now})`;
}
async function userLookingAt(...hours: number[]): Promise<string> {
  const user = newUser();
  await looksAt(user, hours);
  return user;
}
const dueAt = async (id: string) => {
  const [row] = await sql<{ due_at: Date }[]>`select due_at from notifications where id = ${id}`;
  return row?.due_at ?? new Date(0);
};
const at = (time: string) => new Date(`2026-12-01T${time}:00Z`);
const HELD = { status: Status.HELD, reason: Reason.OPTIMAL_TIMING };

test("what can wait comes in the next hour in which its recipient usually looks", async () => {
  const began = now;
  const user = await userLookingAt(13, 20);
  const { notificationId: id, ...result } = await send(user, patient, "Read me");
  expect(result.status).toBe(Status.HELD);
  expect(await get(id)).toMatchObject(HELD);
  const due = await dueAt(id);
  expect(due.getTime()).toBeGreaterThanOrEqual(at("13:00").getTime());
  expect(due.getTime()).toBeLessThan(at("13:30").getTime());
  // All that is this user's comes together.
  const other = await send(user, patient, "And me");
  expect(await dueAt(other.notificationId)).toEqual(due);

  const { timeline } = await key.send.explainNotification({ id });
  const decided = timeline.find(({ decision }) => decision !== undefined)?.decision?.channels[0];
  const gates = decided?.gates ?? [];
  expect(gates.find(({ gate }) => gate === Gate.OPTIMAL_TIMING)).toMatchObject({
    answer: GateAnswer.HELD,
    reason: Reason.OPTIMAL_TIMING,
    until: timestampFromDate(due),
    rule: { level: PreferenceLevel.BUILT_IN, byType: true, goodHours: [13, 20], maxWait: { seconds: 43_200n } },
  });
  const names = gates.map(({ gate }) => gate);
  const place = names.indexOf(Gate.OPTIMAL_TIMING);
  expect([names[place - 1], names[place + 1]]).toEqual([Gate.WEEKEND, Gate.BATCH]);
  expect(gates.slice(0, place).every(({ answer }) => answer === GateAnswer.PASSED)).toBe(true);
  expect(gates.slice(place + 1).every(({ answer }) => answer === GateAnswer.NOT_ASKED)).toBe(true);

  now = due;
  for (const each of [id, other.notificationId]) await reached(each, Status.DELIVERED);
  now = began;
});

test("nothing waits that its type, its priority, its sender or its recipient does not let wait", async () => {
  const goes = async (user: string, type: string, more: object = {}) =>
    expect((await send(user, type, "Now", more)).status).toBe(Status.DELIVERED);
  const user = await userLookingAt(13);
  await goes(user, plain);
  for (const priority of [Priority.HIGH, Priority.CRITICAL]) await goes(user, patient, { priority });
  await goes(user, patient, { batchable: false });
  await goes(user, patient, { escalation: { steps: [{ channel: Channel.EMAIL, after: { seconds: 60n } }] } });
  // In a good hour; with too little known; with no good hour within the wait, or before it expires.
  await goes(await userLookingAt(10), patient);
  await goes(newUser(), patient);
  const seldom = newUser();
  await looksAt(seldom, [13], 10);
  await goes(seldom, patient);
  await goes(await userLookingAt(13), await newType(undefined, wait(2)));
  await goes(await userLookingAt(13), patient, { expiry: { case: "ttl", value: { seconds: 7200n } } });
  for (const timing of [{ intelligentTiming: false }, { learning: false }]) {
    const unwilling = await userLookingAt(13);
    await prefer(unwilling, { timing });
    await goes(unwilling, patient);
  }
});

test("the wait is counted from acceptance, or the scheduled time", async () => {
  const began = now;
  const user = await userLookingAt(13);
  const short = await newType(undefined, wait(2));
  const schedule = { case: "scheduleTime", value: timestampFromDate(at("11:20")) } as const;
  const { notificationId: id } = await send(user, short, "Later", { schedule, waitForDecision: undefined });
  now = at("11:20");
  expect(await reached(id, Status.HELD)).toMatchObject(HELD);
  now = began;
});

test("it waits for the clock's rules as well, and what they leave of the hour", async () => {
  const user = await userLookingAt(13, 20);
  const periods = [{ dayOfWeek: 2, startTime: "12:30", endTime: "13:50" }];
  await prefer(user, { doNotDisturb: { enabled: true, periods } });
  const { notificationId: id } = await send(user, patient, "Read me");
  const due = await dueAt(id);
  expect(due.getTime()).toBeGreaterThanOrEqual(at("13:50").getTime());
  expect(due.getTime()).toBeLessThan(at("14:00").getTime());
  // What the clock holds has that reason, and asks for a good hour when it may come.
  const quiet = await userLookingAt(20);
  await prefer(quiet, { quietHours: { enabled: true, startTime: "10:00", endTime: "12:00" } });
  const held = await send(quiet, patient, "Read me");
  expect(await get(held.notificationId)).toMatchObject({ status: Status.HELD, reason: Reason.QUIET_HOURS });
  const began = now;
  now = at("12:00");
  await until(
    () => get(held.notificationId),
    ({ reason }) => reason === Reason.OPTIMAL_TIMING,
  );
  now = began;
});

test("what waited may still join others", async () => {
  const began = now;
  const user = await userLookingAt(13);
  const type = await newType({ batchable: true, window: { seconds: 600n } }, wait(12));
  const { notificationId: id } = await send(user, type, "Read me");
  expect(await get(id)).toMatchObject(HELD);
  now = await dueAt(id);
  await reached(id, Status.BATCHED);
  // The hour is over when it closes: it has waited.
  now = at("14:30");
  await reached(id, Status.DELIVERED);
  now = began;
});

test("a change of preferences, of the type, or forgetting, has what waits go at once", async () => {
  const waiting = async (type = patient) => {
    const user = await userLookingAt(13);
    const { notificationId: id } = await send(user, type, "Read me");
    expect(await get(id)).toMatchObject(HELD);
    return { user, id };
  };
  for (const timing of [{ intelligentTiming: false }, { learning: false }]) {
    const { user, id } = await waiting();
    const { reconciled } = await prefer(user, { timing });
    expect(reconciled).toMatchObject({ released: 1, moved: 0, suppressed: 0, unchanged: 0 });
    await reached(id, Status.DELIVERED);
  }
  const same = await waiting();
  const before = await dueAt(same.id);
  expect((await prefer(same.user, { weekendsEnabled: false })).reconciled).toMatchObject({ unchanged: 1 });
  expect(await dueAt(same.id)).toEqual(before);
  const moved = await prefer(same.user, { timeZone: "Europe/Berlin" });
  expect(moved.reconciled).toMatchObject({ moved: 1 });
  expect(await dueAt(same.id)).toEqual(new Date(before.getTime() - HOUR));
  const explained = (await key.send.explainNotification({ id: same.id })).timeline.at(-1)?.decision;
  expect(explained?.channels[0]?.gates.find(({ gate }) => gate === Gate.OPTIMAL_TIMING)?.rule?.goodHours).toEqual([13]);

  const forgotten = await waiting();
  const own = (await node.clientsFor(forgotten.user)).preferences;
  expect((await own.getLearntTiming({})).enough).toBe(true);
  expect((await own.deleteLearntTiming({})).reconciled).toMatchObject({ released: 1 });
  expect((await own.deleteLearntTiming({})).reconciled).toBeUndefined();
  expect((await own.getLearntTiming({})).hours).toEqual([]);
  await reached(forgotten.id, Status.DELIVERED);

  const type = await newType(undefined, wait(12));
  const hasty = await waiting(type);
  await key.types.updateType({ type: { key: type }, updateMask: { paths: ["timing"] } });
  await reached(hasty.id, Status.DELIVERED);
});

test("what users do with a token of their own shows that they look, and what API keys do for them does not", async () => {
  const [reads, sees, acks, confirms, all, other] = Array.from({ length: 6 }, newUser) as string[];
  for (const [user, act] of [
    [reads, (c, id) => c.inbox.markRead({ notificationIds: [id] })],
    [sees, (c) => c.inbox.markSeen({})],
    [acks, (c) => c.stream.ack({ deviceId: "d", throughSequence: 1n, kind: AckRequest_Kind.SEEN })],
    [confirms, (c, id) => c.inbox.confirmEntry({ notificationId: id })],
    [all, (c) => c.inbox.markAllRead({})],
  ] as [string, (c: Awaited<ReturnType<typeof node.clientsFor>>, id: string) => Promise<unknown>][]) {
    const { notificationId } = await send(user, plain, "Hi", { escalation: { confirmationRequired: true } });
    await act(await node.clientsFor(user), notificationId);
  }
  const userId = other ?? "";
  const { notificationId } = await send(userId, plain, "Hi");
  await key.inbox.markRead({ userId, notificationIds: [notificationId] });
  await key.inbox.markSeen({ userId });
  const mine = await node.clientsFor(userId);
  await mine.stream.ack({ deviceId: "d", throughSequence: 1n, kind: AckRequest_Kind.RECEIVED });
  for (const user of [reads, sees, acks, confirms, all]) {
    const found = await until(
      () => key.preferences.getLearntTiming({ userId: user as string }),
      ({ looks }) => looks > 0,
    );
    expect(found).toMatchObject({ enough: false });
    expect(found.looks).toBeCloseTo(1, 2);
    expect(found.firstTime && timestampDate(found.firstTime)).toEqual(at("10:00"));
    expect(found.hours.filter(({ weekdayLooks }) => weekdayLooks > 0)).toMatchObject([
      { hour: 10, weekdayLooks: found.looks, weekendLooks: 0, goodOnWeekdays: false },
    ]);
    expect(found.hours).toHaveLength(24);
  }
  expect((await mine.preferences.getLearntTiming({})).hours).toEqual([]);
});

test("who may see it and forget it, and what stands in the audit log", async () => {
  const user = await userLookingAt(9, 21);
  const others = (await node.clientsFor(newUser())).preferences;
  expect((await refusalOf(others.getLearntTiming({ userId: user }))).reason).toBe("NOT_FOUND");
  const elsewhere = node.clients((await node.newTenant()).apiKey).preferences;
  expect((await elsewhere.getLearntTiming({ userId: user })).hours).toEqual([]);
  expect((await elsewhere.deleteLearntTiming({ userId: user, reason: "x" })).reconciled).toBeUndefined();
  expect((await refusalOf(key.preferences.deleteLearntTiming({ userId: user }))).reason).toBe("INVALID_REQUEST");
  const { hours, enough } = await key.preferences.getLearntTiming({ userId: user });
  expect(enough).toBe(true);
  expect(hours.filter((each) => each.goodOnWeekdays).map(({ hour }) => hour)).toEqual([9, 21]);
  await key.preferences.deleteLearntTiming({ userId: user, reason: "they asked" });
  const { entries } = await key.admin.listAuditEntries({ pageSize: 50 });
  const about = entries.filter(({ target }) => target === `user:${user}`).map(({ action, reason }) => [action, reason]);
  expect(about).toEqual([
    ["learnt_timing.delete", "they asked"],
    ["learnt_timing.read", ""],
  ]);
});

test.each([30, 4 * 86_400])("a wait of %d seconds is refused", async (seconds) => {
  const refused = await refusalOf(
    key.types.createType({ type: { key: "odd", timing: { maxWait: { seconds: BigInt(seconds) } } } }),
  );
  expect(refused.reason).toBe("INVALID_REQUEST");
});

test("who wants quiet hours by what was learnt gets nothing but what is urgent when they never look", async () => {
  const user = await userLookingAt(9, 12, 20);
  await prefer(user, { timing: { personalisedQuietHours: true } });
  const { notificationId: id } = await send(user, plain, "Not now");
  expect(await get(id)).toMatchObject(HELD);
  expect((await dueAt(id)).getTime()).toBeGreaterThanOrEqual(at("12:00").getTime());
  expect((await dueAt(id)).getTime()).toBeLessThan(at("12:30").getTime());
  const { timeline } = await key.send.explainNotification({ id });
  const gates = timeline.find(({ decision }) => decision !== undefined)?.decision?.channels[0]?.gates ?? [];
  expect(gates.find(({ gate }) => gate === Gate.OPTIMAL_TIMING)?.rule).toMatchObject({
    level: PreferenceLevel.USER,
    byType: false,
    goodHours: [9, 12, 20],
    maxWait: { seconds: 86_400n },
  });
  expect((await send(user, plain, "Now", { priority: Priority.HIGH })).status).toBe(Status.DELIVERED);
  const { reconciled } = await prefer(user, { timing: { personalisedQuietHours: false } });
  expect(reconciled).toMatchObject({ released: 1 });
  await reached(id, Status.DELIVERED);
});

test("what goes into its recipient's digest waits for that alone", async () => {
  const user = await userLookingAt(20);
  // In ten minutes. After the hour in which they look it would be a week later.
  await prefer(user, { digest: { mode: Digest_Mode.WEEKLY, time: "10:30", days: [2] } });
  const { notificationId: id } = await send(user, patient, "Read me");
  expect(await get(id)).toMatchObject({ status: Status.BATCHED, reason: Reason.DIGEST });
});
