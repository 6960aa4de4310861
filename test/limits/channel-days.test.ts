import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { Channel, Priority, Reason, Status, VerdictKind } from "#gen/posthorn/v1/notification_pb.ts";
import { PreferenceLevel } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { HOUR, MINUTE } from "../batches/setup.ts";
import { escalating, seconds, sinkFolder } from "../escalation/setup.ts";
import { platformOfFile, startTestPlatform } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { openReader } from "../support/stream-reader.ts";
import { until } from "../support/until.ts";

// How many text messages a user gets in a day of theirs. The clock stands still until it is moved.

const services = await testServices();
const sink = await sinkFolder();
const START = Date.parse("2026-12-01T10:20:00Z");
let now = new Date(START);
const options = { services, clock: () => now, env: { ...sink.env, POSTHORN_SMS_MAX_PER_DAY: "5" } };
const node = await platformOfFile(options);
const { newUser, get, send, prefer, told } = escalating(node);
const { IN_APP, SMS } = Channel;
const sql = postgres(services.databaseUrl, { max: 1, onnotice: () => undefined });
afterAll(() => sql.end());

const given = (id: string) =>
  until(
    () => sink.of("sms", id),
    (lines) => lines.length > 0,
  );
const held = (id: string) => told(id, ({ verdicts }) => verdicts[0]?.kind === VerdictKind.HOLD);
const text = (user: string, more: Parameters<typeof send>[1] = {}) => send(user, { channels: [SMS], ...more });
/** The clocks of this file only go on: what was held for a day comes with it. */
const go = (at: number) => {
  now = new Date(Math.max(now.getTime(), at));
};

test("what is over a channel's day waits for the next of the recipient's, is told so, and comes then", async () => {
  const user = newUser();
  await prefer(user, { timeZone: "Asia/Kolkata", channelLimits: { smsPerDay: 2 } });
  const clients = await node.clientsFor(user);
  await using reader = openReader(clients, { includeStatus: true });
  await reader.next("caughtUp");
  for (const first of [await text(user), await text(user)]) await given(first);
  const id = await send(user, { channels: [IN_APP, SMS] });
  const { status, verdicts, rateLimit, timeline } = await held(id);
  expect(status).toBe(Status.DELIVERED);
  const [, verdict] = verdicts;
  expect(verdict).toMatchObject({ channel: SMS, kind: VerdictKind.HOLD, reason: Reason.CHANNEL_DAY_LIMIT });
  const turn = verdict?.until && timestampDate(verdict.until).getTime();
  const midnight = Date.parse("2026-12-01T18:30:00Z");
  expect(turn).toBeGreaterThanOrEqual(midnight);
  expect(turn).toBeLessThan(midnight + HOUR);
  expect(rateLimit).toMatchObject({ window: Reason.CHANNEL_DAY_LIMIT, usage: 2, limit: 2 });
  expect(rateLimit?.resetTime && timestampDate(rateLimit.resetTime).getTime()).toBe(midnight);
  expect(Number(rateLimit?.retryAfter?.seconds)).toBe(Math.floor((Number(turn) - now.getTime()) / 1000));
  expect(timeline.at(-1)).toMatchObject({ channel: SMS, status: Status.UNSPECIFIED, reason: Reason.CHANNEL_DAY_LIMIT });
  const event = await reader.next("status", ({ reason }) => reason === Reason.CHANNEL_DAY_LIMIT);
  expect(event).toMatchObject({ notificationId: id, channel: SMS, status: Status.DELIVERED });
  expect(event.retryTime && timestampDate(event.retryTime).getTime()).toBe(turn);
  expect(await sink.of("sms", id)).toEqual([]);

  go(Number(turn));
  expect(await given(id)).toHaveLength(1);
  const after = await told(id, (entry) => entry.channel === SMS && entry.status === Status.DELIVERED);
  expect(after.rateLimit).toBeUndefined();
});

test("CRITICAL passes and is counted; past the limits one passes the server's, not the recipient's own", async () => {
  const user = newUser();
  await prefer(user, { channelLimits: { smsPerDay: 1 } });
  await given(await text(user, { priority: Priority.CRITICAL }));
  await given(await text(user, { priority: Priority.CRITICAL }));
  const own = await held(await text(user, { bypassRateLimit: true }));
  expect([own.status, own.rateLimit?.limit, own.rateLimit?.usage]).toEqual([Status.PROCESSING, 1, 2]);
  const another = newUser();
  const ids = [];
  for (let n = 0; n < 6; n++) ids.push(await text(another));
  expect((await held(ids.at(-1) ?? "")).rateLimit).toMatchObject({ limit: 5, usage: 5 });
  await given(await text(another, { bypassRateLimit: true }));
});

test("who allows more gets what waited at once; what would come too late is told at once", async () => {
  const user = newUser();
  await prefer(user, { channelLimits: { smsPerDay: 1 } });
  await given(await text(user));
  const late = await text(user, { expiry: { case: "ttl", value: seconds(3600) } });
  const ended = await until(
    () => get(late),
    ({ status }) => status === Status.EXPIRED,
  );
  expect(ended.reason).toBe(Reason.CHANNEL_DAY_LIMIT);
  const id = await text(user);
  await held(id);
  await prefer(user, { channelLimits: { smsPerDay: 3 } });
  expect(await given(id)).toHaveLength(1);
});

test("who waited first comes first, also where a change of preferences has all ask again", async () => {
  const user = newUser();
  await prefer(user, { channelLimits: { smsPerDay: 1 } });
  await given(await text(user));
  const ids: string[] = [];
  for (let n = 0; n < 4; n++) {
    ids.push(await text(user));
    await held(ids.at(-1) ?? "");
  }
  const [first = "", second = "", ...others] = ids;
  // As stored, the first is behind the others now.
  const { tenantId } = node.tenant;
  await sql`update hand_overs set trace = trace where tenant_id = ${tenantId} and notification_id = ${first}`;
  await prefer(user, { channelLimits: { smsPerDay: 3 } });
  await given(first);
  await given(second);
  const turns = async () => {
    const all = await Promise.all(others.map(async (id) => (await get(id)).rateLimit));
    return all.map((limit) => (limit?.limit === 3 ? Number(limit.retryAfter?.seconds) : 0));
  };
  const [third = 0, fourth = 0] = await until(turns, (all) => all.every((turn) => turn > 0));
  expect(third).toBeLessThan(fourth);
});

test("a turn comes when the recipient's quiet hours allow it, also those that begin later", async () => {
  const user = newUser();
  const quietHours = { enabled: true, startTime: "22:00", endTime: "07:00" };
  await prefer(user, { quietHours, channelLimits: { smsPerDay: 1 } });
  const today = new Date(now).toISOString().slice(0, 10);
  go(Date.parse(`${today}T20:00:00Z`));
  await given(await text(user));
  const id = await text(user);
  const { verdicts } = await held(id);
  const opens = Date.parse(`${today}T07:00:00Z`) + 24 * HOUR;
  const turn = verdicts[0]?.until ? timestampDate(verdicts[0].until).getTime() : 0;
  expect(turn).toBeGreaterThanOrEqual(opens);
  expect(turn).toBeLessThan(opens + HOUR);
  // Changed so that its turn is in them: asked anew, it waits for their end.
  await prefer(user, { quietHours: { ...quietHours, endTime: "09:00" } });
  const again = await told(
    id,
    ({ verdicts: [verdict] }) => (verdict?.until ? timestampDate(verdict.until).getTime() : 0) > opens + HOUR,
  );
  expect(again.status).toBe(Status.PROCESSING);
  go(opens + 2 * HOUR - MINUTE);
  expect(await sink.of("sms", id)).toEqual([]);
  go(opens + 3 * HOUR);
  expect(await given(id)).toHaveLength(1);
});

test("days that the clock rules close take none: who waited first comes first after the weekend", async () => {
  const user = newUser();
  await prefer(user, { weekendsEnabled: false, channelLimits: { smsPerDay: 1 } });
  const weekday = new Date(now).getUTCDay();
  const friday = Math.floor(now.getTime() / (24 * HOUR)) + ((12 - weekday) % 7);
  go(friday * 24 * HOUR + 10 * HOUR);
  await given(await text(user));
  const ids: string[] = [];
  const turns: number[] = [];
  for (let n = 0; n < 3; n++) {
    ids.push(await text(user));
    const { verdicts } = await held(ids.at(-1) ?? "");
    turns.push(verdicts[0]?.until ? timestampDate(verdicts[0].until).getTime() : 0);
  }
  expect(turns.map((turn) => Math.floor(turn / (24 * HOUR)) - friday)).toEqual([3, 4, 5]);
  for (const [nth, id] of ids.entries()) {
    go(turns[nth] ?? 0);
    expect(await given(id)).toHaveLength(1);
    for (const later of ids.slice(nth + 1)) expect(await sink.of("sms", later)).toEqual([]);
  }
});

test("what will be held is foreseen, and foreseeing it takes no room", async () => {
  const user = newUser();
  await prefer(user, { channelLimits: { smsPerDay: 1 } });
  const foresee = async () => {
    const request = { to: { userIds: [user] }, content: { title: "Server down" }, channels: [SMS] };
    const { timeline, handOvers } = await node.key.send.previewSend({ request });
    return { told: timeline.map(({ entry }) => entry).filter((entry) => entry?.channel === SMS), handOvers };
  };
  const goes = { told: [], handOvers: [{ channel: SMS, time: timestampFromDate(now) }] };
  expect(await foresee()).toMatchObject(goes);
  expect(await foresee()).toMatchObject(goes);
  await given(await text(user));
  const foreseen = await foresee();
  const id = await text(user);
  const { timeline, verdicts } = await held(id);
  expect(foreseen.told).toEqual(timeline.filter(({ channel }) => channel === SMS));
  expect(foreseen.handOvers).toMatchObject([{ channel: SMS, time: verdicts[0]?.until }]);
});

test("what its channel would be given too late is foreseen to expire, unless an escalation goes on", async () => {
  const user = newUser();
  await prefer(user, { channelLimits: { smsPerDay: 1 } });
  await given(await text(user));
  const foresee = async (channels: Channel[], more: { escalation?: { steps: object[] } } = {}) => {
    const expiry = { case: "ttl" as const, value: seconds(3600) };
    const about = { to: { userIds: [user] }, content: { title: "Server down" }, channels, expiry };
    const { timeline, handOvers } = await node.key.send.previewSend({ request: { ...about, ...more } });
    const [entry] = timeline.slice(-1);
    return [entry?.entry?.status, entry?.entry?.reason, handOvers.length];
  };
  expect(await foresee([SMS])).toEqual([Status.EXPIRED, Reason.CHANNEL_DAY_LIMIT, 0]);
  expect(await foresee([IN_APP, SMS])).toEqual([Status.UNSPECIFIED, Reason.CHANNEL_DAY_LIMIT, 0]);
  const escalation = { steps: [{ channel: Channel.EMAIL, after: seconds(60) }] };
  expect(await foresee([SMS], { escalation })).toEqual([Status.UNSPECIFIED, Reason.CHANNEL_DAY_LIMIT, 0]);
});

test("two servers together hand over no more than a day has room for", async () => {
  await using other = await startTestPlatform({ ...options, tenant: node.tenant });
  expect(other.tenant).toBe(node.tenant);
  const user = newUser();
  const ids = await Promise.all(Array.from({ length: 12 }, () => text(user)));
  for (const id of ids) await told(id, ({ channel }) => channel === SMS);
  const came = (await sink.sunk("sms")).filter(({ userId }) => userId === user);
  expect(came).toHaveLength(5);
  expect(new Set(came.map(({ notificationId }) => notificationId)).size).toBe(5);
});

test("the limit in force is the lowest, and said whose it is", async () => {
  const user = newUser();
  const effective = async () => await node.key.preferences.getEffectivePreferences({ userId: user });
  expect((await effective()).preferences?.channelLimits).toMatchObject({ smsPerDay: 5, emailPerDay: 0 });
  await prefer(user, { channelLimits: { smsPerDay: 4 } });
  const { preferences, origins } = await effective();
  expect(preferences?.channelLimits?.smsPerDay).toBe(4);
  expect(origins["channel_limits.sms_per_day"]).toBe(PreferenceLevel.USER);
});

test("text messages for CRITICAL alone, and e-mail for digests alone, hold also for what waits for its hand-over", async () => {
  const user = newUser();
  await prefer(user, { channelLimits: { smsPerDay: 1 } });
  await given(await text(user));
  const id = await send(user, { channels: [IN_APP, SMS] });
  await held(id);
  await prefer(user, { channels: { smsEmergencyOnly: true, emailDigestOnly: true } });
  await told(id, ({ channel, reason }) => channel === SMS && reason === Reason.EMERGENCY_ONLY);
  const both = await get(await send(user, { channels: [IN_APP, Channel.EMAIL, SMS] }));
  expect(both.verdicts.map(({ channel, reason }) => [channel, reason])).toEqual([
    [IN_APP, Reason.UNSPECIFIED],
    [Channel.EMAIL, Reason.DIGEST_ONLY],
    [SMS, Reason.EMERGENCY_ONLY],
  ]);
  const critical = await send(user, { channels: [IN_APP, Channel.EMAIL, SMS], priority: Priority.CRITICAL });
  expect(await given(critical)).toHaveLength(1);
  await until(
    () => sink.of("email", critical),
    (lines) => lines.length === 1,
  );
});

test("what could come by e-mail alone waits for the digest, and comes with it also when it is the only one", async () => {
  const user = newUser();
  await prefer(user, { channels: { emailDigestOnly: true }, digest: { time: "12:00" }, hourlyCap: { enabled: false } });
  const id = await send(user, { channels: [Channel.EMAIL] });
  const waiting = await get(id);
  expect([waiting.status, waiting.reason]).toEqual([Status.BATCHED, Reason.DIGEST]);
  go(now.getTime() + 25 * HOUR);
  await until(
    () => sink.of("email", id),
    (lines) => lines.length === 1,
  );
});
