import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import {
  type Decision,
  Exemption,
  type ExplainedEntry,
  Gate,
  GateAnswer,
  type GateVerdict,
} from "#gen/posthorn/v1/explain_pb.ts";
import { Channel, Priority, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode, PreferenceLevel } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { GATES } from "#src/notifications/explain.ts";
import { batching, HOUR, steppedClock } from "../batches/setup.ts";
import { platformOfFile, startTestPlatform } from "../support/platform.ts";
import { freshServices, testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

// Every gate is seen to decide, through the RPC that explains it. A burst of two, so that the third waits.

const services = await testServices();
const { clock, step } = steppedClock();
const node = await platformOfFile({
  services,
  clock,
  env: { POSTHORN_USER_BURST: "2", POSTHORN_USER_MAX_PER_MINUTE: "5" },
});
const { key, tenant } = node;
const { newType, newUser, prefer, send, reached } = batching(node);
const sql = postgres(services.databaseUrl, { max: 2, onnotice: () => undefined });
afterAll(() => sql.end());

const explain = (id: string) => key.send.explainNotification({ id });

async function decisionsOf(id: string): Promise<(ExplainedEntry & { decision: Decision })[]> {
  const { timeline } = await explain(id);
  return timeline.filter((each): each is ExplainedEntry & { decision: Decision } => each.decision !== undefined);
}

/** What the gates said about the only channel, or the one named. */
async function gatesOf(id: string, channel: Channel = Channel.IN_APP): Promise<GateVerdict[]> {
  const [first] = await decisionsOf(id);
  return first?.decision.channels.find((each) => each.channel === channel)?.gates ?? [];
}

/** All before it passed, those behind it were not asked. */
async function decidedBy(id: string, gate: Gate, channel?: Channel): Promise<GateVerdict> {
  const gates = await gatesOf(id, channel);
  expect(gates.map((each) => each.gate)).toEqual(GATES);
  const at = GATES.indexOf(gate);
  const answers = gates.map(({ answer }) => answer);
  expect(answers.slice(0, at)).toEqual(GATES.slice(0, at).map(() => GateAnswer.PASSED));
  expect(answers.slice(at + 1)).toEqual(GATES.slice(at + 1).map(() => GateAnswer.NOT_ASKED));
  const verdict = gates[at];
  if (verdict === undefined) throw new Error("no such gate");
  return verdict;
}

test("what nobody objects to has passed every gate, with the versions that were asked", async () => {
  const [type, user] = [await newType(undefined), newUser()];
  await key.users.upsertUser({ user: { id: user, timeZone: "Asia/Kolkata" } });
  await prefer(user, { language: "de" });
  await key.types.updateType({ type: { key: type, displayName: "Changed" } });
  const { notificationId: id } = await send(user, type, "Hi");
  const { notification, timeZone, timeline, omitted } = await explain(id);
  expect(notification).toMatchObject({ id, status: Status.DELIVERED, bypassRateLimit: false });
  expect({ timeZone, omitted }).toEqual({ timeZone: "Asia/Kolkata", omitted: 0 });
  expect(timeline.map(({ entry }) => entry?.status)).toEqual([Status.ACCEPTED, Status.DELIVERED]);
  const [accepted, delivered] = timeline;
  expect(accepted?.decision).toBeUndefined();
  expect(delivered?.decision).toMatchObject({
    timeZone: "Asia/Kolkata",
    versions: { preferences: 1, type: 2 },
    channels: [{ channel: Channel.IN_APP, gates: GATES.map((gate) => ({ gate, answer: GateAnswer.PASSED })) }],
  });
  const at = delivered?.entry?.time === undefined ? 0 : timestampDate(delivered.entry.time).getTime();
  expect(Date.parse(`${delivered?.decision?.localTime}+05:30`)).toBe(Math.floor(at / 1000) * 1000);
  // What is told of it elsewhere is as it was before anything was kept.
  const got = await key.send.getNotification({ id });
  expect(got.timeline[1]).toMatchObject({ status: Status.DELIVERED, verdicts: [{ channel: Channel.IN_APP }] });
  expect(got.timeline[1]?.$unknown).toBeUndefined();
});

test("every explanation tells of its recipient's rules, and stands in the audit log as a read of them", async () => {
  const [type, user] = [await newType(undefined), newUser()];
  const { notificationId: id } = await send(user, type, "Hi");
  const reads = async () => {
    const { entries } = await key.admin.listAuditEntries({ pageSize: 200 });
    return entries.filter(({ action, target }) => action === "preferences.read" && target === `user:${user}`).length;
  };
  expect(await reads()).toBe(0);
  await explain(id);
  await explain(id);
  expect(await reads()).toBe(2);
});

test("what the recipient switched off: everything, a type, a category, a channel, what is less urgent", async () => {
  const type = await newType(undefined, { category: "hobby" });
  const off = async (preferences: object, more: object = {}) => {
    const user = newUser();
    await prefer(user, preferences);
    return (await send(user, type, "Hi", more)).notificationId;
  };
  const never = { answer: GateAnswer.SUPPRESSED };
  expect(await decidedBy(await off({ enabled: false }), Gate.OPT_OUT)).toMatchObject({
    ...never,
    reason: Reason.USER_OPTED_OUT,
    rule: { level: PreferenceLevel.USER },
  });
  expect(await decidedBy(await off({ types: { [type]: { enabled: false } } }), Gate.TYPE_SWITCH)).toMatchObject({
    ...never,
    reason: Reason.TYPE_DISABLED,
    rule: { level: PreferenceLevel.TYPE },
  });
  expect(await decidedBy(await off({ categories: { hobby: { enabled: false } } }), Gate.TYPE_SWITCH)).toMatchObject({
    ...never,
    reason: Reason.CATEGORY_DISABLED,
    rule: { level: PreferenceLevel.CATEGORY },
  });
  expect(await decidedBy(await off({ channels: { inApp: false } }), Gate.CHANNEL_SWITCH)).toMatchObject({
    ...never,
    rule: { level: PreferenceLevel.USER },
  });
  const both = await off({}, { channels: [Channel.IN_APP, Channel.EMAIL] });
  expect(await decidedBy(both, Gate.CHANNEL_AVAILABLE, Channel.EMAIL)).toMatchObject({
    ...never,
    reason: Reason.CHANNEL_UNAVAILABLE,
  });
  expect((await gatesOf(both)).every(({ answer }) => answer === GateAnswer.PASSED)).toBe(true);
  expect(await decidedBy(await off({ minimumPriority: Priority.HIGH }), Gate.MINIMUM_PRIORITY)).toMatchObject({
    ...never,
    rule: { level: PreferenceLevel.USER, minimumPriority: Priority.HIGH },
  });
  const user = newUser();
  await key.preferences.createSubscription({
    userId: user,
    subscription: { target: { case: "type", value: type }, filter: "priority > 3" },
    reason: "a test",
  });
  const filtered = (await send(user, type, "Hi")).notificationId;
  expect(await decidedBy(filtered, Gate.SUBSCRIPTIONS)).toMatchObject({ ...never, reason: Reason.FILTERED });
});

test("what the recipient's clock holds: quiet hours, a period, a weekend, as they were then", async () => {
  const held = async (preferences: object) => {
    const user = newUser();
    await prefer(user, { timeZone: "Europe/Berlin", ...preferences });
    const { notificationId } = await send(user, "general", "Hi");
    // What comes later does not change what was asked.
    await key.preferences.updatePreferences({
      userId: user,
      preferences: { quietHours: { startTime: "01:00" } },
      reason: "x",
    });
    return notificationId;
  };
  const allDay = { startTime: "12:00", endTime: "12:00" };
  const quiet = await decidedBy(await held({ quietHours: { enabled: true, ...allDay } }), Gate.QUIET_HOURS);
  expect(quiet).toMatchObject({ answer: GateAnswer.HELD, rule: { level: PreferenceLevel.USER, ...allDay } });
  expect(quiet.until).toBeDefined();
  const week = [0, 1, 2, 3, 4, 5, 6].map((dayOfWeek) => ({ dayOfWeek, ...allDay }));
  const disturb = await decidedBy(await held({ doNotDisturb: { enabled: true, periods: week } }), Gate.DO_NOT_DISTURB);
  expect(disturb).toMatchObject({ answer: GateAnswer.HELD, rule: { level: PreferenceLevel.USER, ...allDay } });
  expect(disturb.rule?.dayOfWeek).toBeTypeOf("number");
});

test("what comes together with others: in a digest, in a batch", async () => {
  const user = newUser();
  await prefer(user, { digest: { mode: Digest_Mode.WEEKLY, time: "08:30", days: [2, 5] } });
  const digested = await decidedBy((await send(user, "general", "Hi")).notificationId, Gate.DIGEST);
  expect(digested).toMatchObject({
    answer: GateAnswer.COLLECTED,
    reason: Reason.DIGEST,
    rule: { level: PreferenceLevel.USER, digestMode: Digest_Mode.WEEKLY, digestTime: "08:30", digestDays: [2, 5] },
  });
  expect(digested.until).toBeDefined();
  const type = await newType({ batchable: true, maxSize: 3, window: { seconds: 1200n } });
  const batched = await decidedBy((await send(newUser(), type, "Hi")).notificationId, Gate.BATCH);
  expect(batched).toMatchObject({
    answer: GateAnswer.COLLECTED,
    reason: Reason.BATCHING,
    rule: { level: PreferenceLevel.BUILT_IN, byType: true, maxSize: 3, window: { seconds: 1200n } },
  });
});

test("what limits hold, with the counts they saw; and who is let past them", async () => {
  const [user, type] = [newUser(), await newType(undefined, { digest: 1 })];
  // Of five some three are in one window of ten seconds, wherever that ends.
  const sent: { notificationId: string; status: Status }[] = [];
  for (let n = 0; n < 5; n++) sent.push(await send(user, type, "Hi"));
  const held = sent.find(({ status }) => status === Status.HELD);
  const limited = await decidedBy(held?.notificationId ?? "", Gate.RATE_LIMITS);
  expect(limited).toMatchObject({
    answer: GateAnswer.HELD,
    reason: Reason.USER_BURST_LIMIT,
    rule: { limit: { window: Reason.USER_BURST_LIMIT, usage: 2, limit: 2 } },
  });
  const last = async (more: object) => (await gatesOf((await send(user, type, "Hi", more)).notificationId)).at(-1);
  expect(await last({ bypassRateLimit: true })).toMatchObject({
    answer: GateAnswer.PASSED,
    rule: { exemption: Exemption.BYPASS },
  });
  expect(await last({ priority: Priority.CRITICAL })).toMatchObject({
    answer: GateAnswer.PASSED,
    rule: { exemption: Exemption.CRITICAL },
  });
  const capped = newUser();
  await prefer(capped, { hourlyCap: { enabled: true, maxPerHour: 1 } });
  await send(capped, type, "Hi");
  const second = await send(capped, type, "Hi");
  expect(await decidedBy(second.notificationId, Gate.HOURLY_CAP)).toMatchObject({
    reason: Reason.HOURLY_CAP,
    rule: { level: PreferenceLevel.USER, limit: { window: Reason.HOURLY_CAP, usage: 1, maxPerHour: 1 } },
  });
});

test("what was accepted and cannot come any more: expired, of a deleted type, or not yet due", async () => {
  // Nobody decides here, so what is accepted can be changed before it is.
  const api = await startTestPlatform({ services: await freshServices(), clock, roles: ["api"] });
  await using _api = api;
  const database = postgres(api.services.databaseUrl, { max: 1, onnotice: () => undefined });
  const sent = async (more: object = {}) => {
    const { results } = await api.key.send.send({ to: { userIds: ["ann"] }, content: { title: "Hi" }, ...more });
    return results[0]?.notificationId ?? "";
  };
  await api.key.types.createType({ type: { key: "gone" } });
  const expiring = await sent({ expiry: { case: "ttl", value: { seconds: 60n } } });
  const untyped = await sent({ type: "gone" });
  const early = await sent();
  await database`delete from types where key = 'gone'`;
  await database`update notifications set scheduled_at = ${new Date(clock().getTime() + 5 * HOUR)} where id = ${early}`;
  await database.end();
  step(HOUR);
  await using all = await startTestPlatform({ services: api.services, tenant: api.tenant, clock });
  const decided = async (id: string) => {
    const { timeline } = await until(
      () => all.key.send.explainNotification({ id }),
      (found) => found.timeline.length > 1,
    );
    const gates = timeline[1]?.decision?.channels[0]?.gates ?? [];
    return gates.filter(({ answer }) => answer !== GateAnswer.PASSED && answer !== GateAnswer.NOT_ASKED);
  };
  expect(await decided(expiring)).toMatchObject([{ gate: Gate.EXPIRY, reason: Reason.EXPIRED }]);
  expect(await decided(untyped)).toMatchObject([{ gate: Gate.TYPE_EXISTS, reason: Reason.TYPE_DELETED }]);
  expect(await decided(early)).toMatchObject([
    { gate: Gate.SCHEDULE, answer: GateAnswer.HELD, reason: Reason.SCHEDULED },
  ]);
});

test("each decision keeps its own versions, and what comes later is on the same timeline", async () => {
  const user = newUser();
  await prefer(user, { quietHours: { enabled: true, startTime: "12:00", endTime: "12:00" } });
  const { notificationId: id } = await send(user, "general", "Hi");
  await prefer(user, { quietHours: { enabled: false } });
  await reached(id, Status.DELIVERED);
  const entry = (await key.inbox.listEntries({ userId: user })).entries[0];
  await key.inbox.markRead({ userId: user, notificationIds: [entry?.notificationId ?? ""] });
  const { timeline } = await explain(id);
  expect(timeline.map((each) => [each.entry?.status, each.decision?.versions?.preferences])).toEqual([
    [Status.ACCEPTED, undefined],
    [Status.HELD, 1],
    [Status.ACCEPTED, undefined],
    [Status.DELIVERED, 2],
    [Status.READ, undefined],
  ]);
});

test("what was decided before records were kept is shown with what is known", async () => {
  const { notificationId: id } = await send(newUser(), "general", "Hi");
  await sql`update timeline set detail = null where notification_id = ${id}`;
  const [decided] = await decisionsOf(id);
  expect(decided?.decision).toMatchObject({ timeZone: "", localTime: "", channels: [{ channel: Channel.IN_APP }] });
  expect(decided?.decision.versions).toBeUndefined();
});

test("a long history is shown with its beginning and its end; what is between is counted", async () => {
  const { notificationId: id } = await send(newUser(), "general", "Hi");
  await sql`
    insert into timeline (tenant_id, notification_id, at, status, channel, reason)
    select ${tenant.tenantId}, ${id}, ${clock()}::timestamptz + n * interval '1 second', 0, 0, n
    from generate_series(1, 700) as n`;
  const { timeline, omitted } = await explain(id);
  expect({ shown: timeline.length, omitted }).toEqual({ shown: 500, omitted: 202 });
  expect(timeline.at(-1)?.entry?.reason).toBe(700);
  expect(timeline[99]?.entry?.reason).toBe(98);
  expect(timeline[100]?.entry?.reason).toBe(301);
});

test("of a deleted user what is left is explained; of another tenant nothing", async () => {
  const user = newUser();
  await prefer(user, { timeZone: "Asia/Kolkata" });
  const schedule = { case: "scheduleTime" as const, value: timestampFromDate(new Date(clock().getTime() + HOUR)) };
  const { notificationId: id } = await send(user, "general", "Hi", { schedule });
  await key.users.deleteUser({ id: user });
  const { notification, timeZone, timeline } = await explain(id);
  expect({ status: notification?.status, timeZone }).toEqual({ status: Status.SUPPRESSED, timeZone: "UTC" });
  expect(timeline.at(-1)?.entry).toMatchObject({ reason: Reason.USER_DELETED });
  const stranger = node.clients((await node.newTenant()).apiKey);
  await expect(stranger.send.explainNotification({ id })).rejects.toThrow(/not found|NOT_FOUND/i);
});

test("the weekend of a recipient who wants nothing then", async () => {
  const now = clock();
  // To a Saturday, if it is none.
  if (now.getUTCDay() % 6 !== 0) step((6 - now.getUTCDay()) * 24 * HOUR);
  const user = newUser();
  await prefer(user, { weekendsEnabled: false });
  const { notificationId } = await send(user, "general", "Hi");
  expect(await decidedBy(notificationId, Gate.WEEKEND)).toMatchObject({
    answer: GateAnswer.HELD,
    reason: Reason.WEEKEND,
    rule: { level: PreferenceLevel.USER },
  });
});
