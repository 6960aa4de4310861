import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { Exemption, Gate, GateAnswer, type GateVerdict } from "#gen/posthorn/v1/explain_pb.ts";
import { Priority, Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode, PreferenceLevel } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { DigestRule } from "#gen/posthorn/v1/type_service_pb.ts";
import { forgetPreferences } from "#src/schedule/forget.ts";
import { batching, HOUR, MINUTE } from "../batches/setup.ts";
import { platformOfFile } from "../support/platform.ts";
import { refusalOf } from "../support/refusal.ts";
import { testServices } from "../support/services.ts";
import { smallStore } from "../support/small-store.ts";

// What let a notification pass: the rules as they were then, how near a limit it was, and which subscription wanted it.

const services = await testServices();
// A Tuesday, so that no weekend holds anything.
let now = new Date("2026-12-01T10:20:00Z");
const node = await platformOfFile({ services, clock: () => now, env: { POSTHORN_USER_BURST: "3" } });
const { key } = node;
const { newType, newUser, prefer, send } = batching(node);
const sql = postgres(services.databaseUrl, { max: 2, onnotice: () => undefined });
afterAll(() => sql.end());
const step = (ms: number) => {
  now = new Date(now.getTime() + ms);
};

async function gatesOf(id: string): Promise<(gate: Gate) => GateVerdict | undefined> {
  const { timeline } = await key.send.explainNotification({ id });
  const decided = timeline.find(({ decision }) => decision !== undefined)?.decision?.channels[0]?.gates ?? [];
  return (gate) => decided.find((each) => each.gate === gate);
}
const sent = async (user: string, type = "general", more: Parameters<typeof send>[3] = {}) =>
  (await send(user, type, "Hi", more)).notificationId;

const EVENING = { startTime: "22:00", endTime: "08:00" };

test("the values of each rule are those of the decision, whatever was changed since", async () => {
  const [user, type] = [newUser(), await newType({ batchable: true, maxSize: 4, window: { seconds: 1200n } })];
  await prefer(user, {
    timeZone: "Europe/Berlin",
    quietHours: { enabled: true, ...EVENING },
    minimumPriority: Priority.LOW,
    batching: { enabled: false },
    categories: { general: { channels: { inApp: true } } },
  });
  const first = await sent(user, type);
  step(MINUTE);
  await prefer(user, { quietHours: { startTime: "01:00" }, minimumPriority: Priority.NORMAL, timeZone: "Asia/Tokyo" });
  await key.types.updateType({ type: { key: type, batching: { batchable: false } } });
  const second = await sent(user, type);
  const [was, is] = [await gatesOf(first), await gatesOf(second)];
  const passed = { answer: GateAnswer.PASSED };
  const [USER, BUILT_IN] = [PreferenceLevel.USER, PreferenceLevel.BUILT_IN];
  expect(was(Gate.QUIET_HOURS)).toMatchObject({ ...passed, rule: { level: USER, enabled: true, ...EVENING } });
  expect(is(Gate.QUIET_HOURS)?.rule).toMatchObject({ enabled: true, startTime: "01:00", endTime: "08:00" });
  expect(was(Gate.MINIMUM_PRIORITY)?.rule).toMatchObject({ level: USER, minimumPriority: Priority.LOW });
  expect(is(Gate.MINIMUM_PRIORITY)?.rule).toMatchObject({ level: USER, minimumPriority: Priority.NORMAL });
  expect(was(Gate.BATCH)?.rule).toMatchObject({ level: USER, byType: false, enabled: false });
  expect(is(Gate.BATCH)?.rule).toMatchObject({ byType: true, enabled: false });
  expect(was(Gate.CHANNEL_SWITCH)?.rule).toMatchObject({ level: PreferenceLevel.CATEGORY });
  expect(was(Gate.OPT_OUT)?.rule).toMatchObject({ level: BUILT_IN });
  expect(was(Gate.DO_NOT_DISTURB)?.rule).toMatchObject({ level: BUILT_IN, enabled: false });
  expect(was(Gate.WEEKEND)?.rule).toMatchObject({ level: BUILT_IN, enabled: false });
  // The tests' tenants switch it off for all.
  expect(was(Gate.HOURLY_CAP)?.rule).toMatchObject({ level: PreferenceLevel.TENANT, enabled: false });
  expect(was(Gate.DIGEST)?.rule).toMatchObject({ level: BUILT_IN, digestMode: Digest_Mode.IMMEDIATE });
  expect(was(Gate.EXPIRY)?.rule).toBeUndefined();
});

test("why a rule that would have held it did not", async () => {
  const user = newUser();
  const allDay = { startTime: "00:00", endTime: "00:00" };
  await prefer(user, {
    quietHours: { enabled: true, ...allDay },
    hourlyCap: { enabled: true, maxPerHour: 2 },
    digest: { mode: Digest_Mode.DAILY },
  });
  const type = await newType({ batchable: true });
  const critical = await gatesOf(await sent(user, type, { priority: Priority.CRITICAL }));
  for (const gate of [Gate.QUIET_HOURS, Gate.DIGEST, Gate.BATCH, Gate.HOURLY_CAP, Gate.RATE_LIMITS])
    expect(critical(gate)).toMatchObject({ answer: GateAnswer.PASSED, rule: { exemption: Exemption.CRITICAL } });
  // Where nothing would have held it, nothing had to be passed.
  expect(critical(Gate.WEEKEND)?.rule?.exemption).toBe(Exemption.UNSPECIFIED);
  const disturbed = newUser();
  const periods = [0, 1, 2, 3, 4, 5, 6].map((dayOfWeek) => ({ dayOfWeek, ...allDay, allowEmergencyContacts: true }));
  await prefer(disturbed, {
    doNotDisturb: { enabled: true, periods },
    emergencyContacts: { enabled: true, userIds: ["mum"] },
  });
  const fromMum = await gatesOf(await sent(disturbed, "general", { senderId: "mum" }));
  expect(fromMum(Gate.DO_NOT_DISTURB)?.rule).toMatchObject({
    enabled: true,
    exemption: Exemption.EMERGENCY_CONTACT,
  });
});

test("how near a limit it was, and how far the hour's cap was used", async () => {
  step(HOUR);
  const [user, type] = [newUser(), await newType(undefined, { digest: DigestRule.NEVER, value: 5, urgency: 5 })];
  await prefer(user, { hourlyCap: { enabled: true, maxPerHour: 2 } });
  for (const usage of [0, 1]) {
    const gates = await gatesOf(await sent(user, type));
    expect(gates(Gate.RATE_LIMITS)).toMatchObject({
      answer: GateAnswer.PASSED,
      rule: { limit: { window: Reason.USER_BURST_LIMIT, usage, limit: 3 } },
    });
    expect(gates(Gate.HOURLY_CAP)?.rule).toMatchObject({
      ...{ level: PreferenceLevel.USER, enabled: true },
      limit: { window: Reason.HOURLY_CAP, usage, limit: 2, maxPerHour: 2 },
    });
  }
  const past = await gatesOf(await sent(user, type, { bypassRateLimit: true, priority: Priority.CRITICAL }));
  expect(past(Gate.RATE_LIMITS)?.rule?.limit).toBeUndefined();
  expect(past(Gate.HOURLY_CAP)?.rule?.limit).toMatchObject({ usage: 2, limit: 2 });
});

test("which subscription let it through, and which did not", async () => {
  const [user, type] = [newUser(), await newType(undefined)];
  const subscribe = async (filter: string) => {
    const subscription = { target: { case: "type" as const, value: type }, filter };
    const created = await key.preferences.createSubscription({ userId: user, subscription, reason: "a test" });
    return created.subscription?.id ?? "";
  };
  const [high, tagged] = [await subscribe("priority >= 3"), await subscribe("'a' in tags")];
  const verdict = async (more: object) => (await gatesOf(await sent(user, type, more)))(Gate.SUBSCRIPTIONS);
  expect(await verdict({ tags: ["a"] })).toMatchObject({
    answer: GateAnswer.PASSED,
    rule: { subscriptionIds: [tagged] },
  });
  expect((await verdict({ priority: Priority.HIGH }))?.rule).toMatchObject({ subscriptionIds: [high] });
  expect(await verdict({})).toMatchObject({
    ...{ answer: GateAnswer.SUPPRESSED, reason: Reason.FILTERED },
    rule: { subscriptionIds: [high, tagged] },
  });
  // One that wants everything of it: none is asked.
  await subscribe("");
  expect((await verdict({}))?.rule).toBeUndefined();
});

test("what is kept of a plain decision is a few bytes", async () => {
  const id = await sent(newUser());
  const [row] = await sql<{ bytes: number }[]>`
    select octet_length(detail) as bytes from timeline where notification_id = ${id} and detail is not null`;
  expect(row?.bytes).toBeLessThan(30);
});

test("preferences that are not kept any more are not made up: replaced long ago, deleted, or begun again", async () => {
  const old = newUser();
  await prefer(old, { quietHours: { enabled: true, ...EVENING } });
  const id = await sent(old);
  await prefer(old, { quietHours: { enabled: false } });
  expect((await gatesOf(id))(Gate.QUIET_HOURS)?.rule).toMatchObject({ enabled: true });
  await using store = smallStore(services.databaseUrl);
  // Everybody's, and far enough back that only these are that old.
  await sql`update preference_revisions set replaced_at = '2000-01-01' where user_id = ${old}`;
  await forgetPreferences(store, new Date("2000-06-01"), 30, 1000);
  const forgotten = (await gatesOf(id))(Gate.QUIET_HOURS);
  expect([forgotten?.answer, forgotten?.rule]).toEqual([GateAnswer.PASSED, undefined]);
  const again = newUser();
  await prefer(again, { quietHours: { enabled: true, ...EVENING } });
  const before = await sent(again);
  await prefer(again, { weekendsEnabled: false });
  await key.users.deleteUser({ id: again });
  expect(await sql`select 1 from preference_revisions where user_id = ${again}`).toHaveLength(0);
  expect((await gatesOf(before))(Gate.QUIET_HOURS)?.rule).toBeUndefined();
  step(MINUTE);
  await prefer(again, { quietHours: { enabled: true, startTime: "03:00", endTime: "04:00" } });
  expect((await gatesOf(before))(Gate.QUIET_HOURS)?.rule).toBeUndefined();
});

test("no more than a hundred former versions are kept of anyone", async () => {
  const user = newUser();
  for (let n = 0; n < 103; n++) await prefer(user, { hourlyCap: { maxPerHour: 1 + (n % 50) } });
  const rows = await sql<{ revision: number }[]>`
    select revision from preference_revisions where user_id = ${user} order by revision`;
  expect([rows.length, rows[0]?.revision, rows.at(-1)?.revision]).toEqual([100, 3, 102]);
}, 120_000);

test("what there is nothing to say of: unknown, no id, a time that is none", async () => {
  const refused = async (work: Promise<unknown>) => (await refusalOf(work)).reason;
  expect(await refused(key.send.explainNotification({ id: "019a0000-0000-7000-8000-000000000000" }))).toBe("NOT_FOUND");
  for (const id of ["", "x", "019a0000-0000-7000-8000-00000000000g", "'; drop table users"])
    expect(await refused(key.send.explainNotification({ id }))).toBe("INVALID_REQUEST");
  const request = { to: { userIds: [newUser()] }, content: { title: "Hi" } };
  const far = { seconds: 253_402_300_799n, nanos: 0 };
  expect(await refused(key.send.previewSend({ request, time: far }))).toBe("INVALID_REQUEST");
  const { timeline } = await key.send.previewSend({ request, time: { seconds: -62_135_596_800n, nanos: 0 } });
  expect(timeline[0]?.entry?.time).toEqual(timestampFromDate(now));
});
