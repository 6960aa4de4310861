import postgres from "postgres";
import { afterAll, describe, expect, test } from "vitest";
import { Channel, Priority, Reason, Status, VerdictKind } from "#gen/posthorn/v1/notification_pb.ts";
import { ChainState } from "#src/escalation/state.ts";
import { forgetEscalations } from "#src/schedule/forget.ts";
import { openStore } from "#src/store/store.ts";
import { MINUTE, steppedClock } from "../batches/setup.ts";
import { platformOfFile, platformOfTest } from "../support/platform.ts";
import { wrongInAppCounters, wrongInboxes } from "../support/recount.ts";
import { refusalOf } from "../support/refusal.ts";
import { testServices } from "../support/services.ts";
import { openReader } from "../support/stream-reader.ts";
import { until } from "../support/until.ts";
import { escalating, seconds, sinkFolder } from "./setup.ts";

const services = await testServices();
const sink = await sinkFolder();
const { clock, step: pass } = steppedClock();
const node = await platformOfFile({ services, clock, env: sink.env });
const { key, tenant } = node;
const { newUser, get, send, prefer, reached, told } = escalating(node);
const sql = postgres(services.databaseUrl, { max: 2, onnotice: () => undefined });
afterAll(async () => {
  expect(await wrongInboxes(sql)).toEqual([]);
  expect(await wrongInAppCounters(sql)).toEqual([]);
  await sql.end();
});

const chain = {
  steps: [
    { channel: Channel.EMAIL, after: seconds(600) },
    { channel: Channel.SMS, after: seconds(1200) },
  ],
};
const stateOf = async (id: string) =>
  (await sql<{ state: number }[]>`select state from escalations where notification_id = ${id}`)[0]?.state;
const ended = (id: string) =>
  until(
    () => stateOf(id),
    (state) => state !== ChainState.WAITING,
  );
const given = (channel: string, id: string, many = 1) =>
  until(
    () => sink.of(channel, id),
    (lines) => lines.length >= many,
  );
const steps = async (id: string) =>
  (await get(id)).timeline
    .filter(({ channel, reason }) => channel > Channel.IN_APP || reason === Reason.CONFIRMATION_MISSING)
    .map(({ status, channel, reason, step }) => [step, channel, status, reason]);

describe("channels", () => {
  test("what is sent to an outside channel beside the inbox reaches both", async () => {
    const id = await send(newUser(), { channels: [Channel.IN_APP, Channel.EMAIL] });
    const [line] = await given("email", id);
    expect(line).toMatchObject({ idempotencyKey: `${id}:0:2`, step: 0, content: { title: "Server down" } });
    const { status, verdicts } = await told(id, ({ channel }) => channel === Channel.EMAIL);
    expect(status).toBe(Status.DELIVERED);
    expect(verdicts.map(({ channel, kind }) => [channel, kind])).toEqual([
      [Channel.IN_APP, VerdictKind.DELIVER],
      [Channel.EMAIL, VerdictKind.DELIVER],
    ]);
  });

  test("what is for outside channels only is not in the inbox, and DELIVERED when one has taken it", async () => {
    const user = newUser();
    const id = await send(user, { channels: [Channel.EMAIL, Channel.PUSH] });
    const { timeline, deliverTime } = await reached(id, Status.DELIVERED);
    expect(deliverTime).toBeDefined();
    expect(timeline.map(({ status }) => status)).toContain(Status.PROCESSING);
    await given("push", id);
    expect((await key.inbox.listEntries({ userId: user })).entries).toEqual([]);
  });

  test("where the recipient wants things by e-mail, they come there too, unless that is switched off", async () => {
    const user = newUser();
    await prefer(user, { delivery: { method: Channel.EMAIL } });
    await given("email", await send(user));
    await prefer(user, { channels: { email: false } });
    const { verdicts } = await get(await send(user));
    expect(verdicts.map(({ channel, reason }) => [channel, reason])).toEqual([
      [Channel.IN_APP, Reason.UNSPECIFIED],
      [Channel.EMAIL, Reason.CHANNEL_DISABLED],
    ]);
  });

  test("a server without a channel says so, and delivers to the others", async () => {
    const bare = await platformOfTest();
    const on = escalating(bare);
    const both = await on.get(await on.send("ann", { channels: [Channel.IN_APP, Channel.SMS] }));
    expect(both.status).toBe(Status.DELIVERED);
    expect(both.verdicts[1]).toMatchObject({ channel: Channel.SMS, reason: Reason.CHANNEL_UNAVAILABLE });
    const one = await on.get(await on.send("ann", { channels: [Channel.SMS] }));
    expect(one).toMatchObject({ status: Status.SUPPRESSED, reason: Reason.CHANNEL_UNAVAILABLE });
  });
});

describe("an escalation", () => {
  test("takes one channel after the other, and tells when nobody answers", async () => {
    const id = await send(newUser(), { escalation: chain });
    pass(10 * MINUTE);
    await given("email", id);
    pass(20 * MINUTE);
    await given("sms", id);
    await told(id, ({ channel }) => channel === Channel.SMS);
    pass(20 * MINUTE);
    expect(await ended(id)).toBe(ChainState.EXHAUSTED);
    expect(await steps(id)).toEqual([
      [1, Channel.EMAIL, Status.DELIVERED, Reason.UNSPECIFIED],
      [2, Channel.SMS, Status.DELIVERED, Reason.UNSPECIFIED],
      [0, Channel.UNSPECIFIED, Status.UNSPECIFIED, Reason.CONFIRMATION_MISSING],
    ]);
    expect((await get(id)).status).toBe(Status.DELIVERED);
  });

  test("stops when the entry is read", async () => {
    const user = newUser();
    const id = await send(user, { escalation: chain });
    await key.inbox.markRead({ userId: user, notificationIds: [id] });
    expect(await stateOf(id)).toBe(ChainState.READ);
  });

  test("of what has to be confirmed stops only then, and the user's other devices hear of it", async () => {
    const user = newUser();
    const id = await send(user, { escalation: { ...chain, confirmationRequired: true } });
    const phone = await node.clientsFor(user);
    await using laptop = openReader(phone, { includeStatus: true });
    await laptop.next("hello");
    await phone.inbox.markRead({ notificationIds: [id] });
    expect(await stateOf(id)).toBe(ChainState.WAITING);
    pass(10 * MINUTE);
    await given("email", id);
    const first = await phone.inbox.confirmEntry({ notificationId: id });
    expect(await stateOf(id)).toBe(ChainState.CONFIRMED);
    const heard = await laptop.next("status", ({ confirmTime }) => confirmTime !== undefined);
    expect(heard).toMatchObject({ notificationId: id, status: Status.READ, confirmTime: first.confirmTime });
    const { entry } = await phone.inbox.getEntry({ notificationId: id });
    expect(entry).toMatchObject({ confirmationRequired: true, confirmTime: first.confirmTime });
    // Again, it is the first that counts.
    expect((await phone.inbox.confirmEntry({ notificationId: id })).confirmTime).toEqual(first.confirmTime);
    const { confirmTime, timeline } = await get(id);
    expect(confirmTime).toEqual(first.confirmTime);
    expect(timeline.filter(({ confirmed }) => confirmed).map(({ actor }) => actor)).toEqual([`user:${user}`]);
  });

  test("an arrival says whether it has to be confirmed", async () => {
    const user = newUser();
    await using reader = openReader(key, { userId: user });
    await reader.next("caughtUp");
    await send(user, { escalation: { steps: [], confirmationRequired: true } });
    await send(user);
    const asking = [await reader.next("notification"), await reader.next("notification")];
    expect(asking.map(({ entry }) => entry?.confirmationRequired)).toEqual([true, false]);
  });

  test("a key confirms for the recipient, which is audited; it reads the entry", async () => {
    const user = newUser();
    const id = await send(user, { escalation: chain });
    const { notification } = await key.send.confirmNotification({ id, reason: "answered YES by SMS" });
    expect(notification).toMatchObject({ status: Status.READ });
    expect(notification?.confirmTime).toBeDefined();
    expect(await stateOf(id)).toBe(ChainState.CONFIRMED);
    const { entries } = await key.admin.listAuditEntries({});
    expect(entries[0]).toMatchObject({ action: "notification.confirm", target: `notification:${id}` });
  });

  test("nobody confirms what has not reached its recipient, or is somebody else's", async () => {
    const later = { case: "ttl" as const, value: seconds(86_400) };
    await prefer("asleep", { quietHours: { enabled: true, startTime: "00:00", endTime: "00:00" } });
    const held = await send("asleep", { expiry: later });
    const refusal = await refusalOf(key.send.confirmNotification({ id: held, reason: "why" }));
    expect(refusal).toMatchObject({ reason: "NOTIFICATION_NOT_DELIVERED" });
    const id = await send(newUser());
    const stranger = await node.clientsFor("stranger");
    expect(await refusalOf(stranger.inbox.confirmEntry({ notificationId: id }))).toMatchObject({ reason: "NOT_FOUND" });
  });

  test("of a CRITICAL one is the recipient's own, where they wish it", async () => {
    const user = newUser();
    await prefer(user, { delivery: { fallbacks: [Channel.PUSH, Channel.CHAT], confirmationRequired: true } });
    const id = await send(user, { priority: Priority.CRITICAL });
    await key.inbox.markRead({ userId: user, notificationIds: [id] });
    pass(5 * MINUTE);
    await given("push", id);
    pass(5 * MINUTE);
    await given("chat", id);
    const usual = await send(user);
    expect(await stateOf(usual)).toBeUndefined();
  });

  test("of a type is in force where the request says nothing, and keeps it out of batches", async () => {
    const type = "alarm";
    const batching = { batchable: true };
    await key.types.createType({ type: { key: type, escalation: chain, batching } });
    const id = await send(newUser(), { type });
    expect([(await get(id)).status, await stateOf(id)]).toEqual([Status.DELIVERED, ChainState.WAITING]);
    const none = await send(newUser(), { type, escalation: {} });
    expect(await stateOf(none)).toBeUndefined();
  });

  test("a step waits for the end of quiet hours, and a channel that is off gives its turn to the next", async () => {
    const user = newUser();
    const id = await send(user, { escalation: chain });
    const hour = clock().getUTCHours();
    const wall = (h: number) => `${String(h % 24).padStart(2, "0")}:00`;
    await prefer(user, { quietHours: { enabled: true, startTime: wall(hour), endTime: wall(hour + 4) } });
    pass(10 * MINUTE);
    const held = await told(id, ({ reason }) => reason === Reason.QUIET_HOURS);
    expect(held.timeline.at(-1)).toMatchObject({ step: 1, verdicts: [{ kind: VerdictKind.HOLD }] });
    // The rules change: the step has its turn again.
    await prefer(user, { quietHours: { enabled: false }, channels: { email: false } });
    await given("sms", id);
    expect(await sink.of("email", id)).toEqual([]);
    await told(id, ({ channel, status }) => channel === Channel.SMS && status === Status.DELIVERED);
    expect((await steps(id)).slice(-2)).toEqual([
      [1, Channel.EMAIL, Status.UNSPECIFIED, Reason.CHANNEL_DISABLED],
      [2, Channel.SMS, Status.DELIVERED, Reason.UNSPECIFIED],
    ]);
  });

  test("ends when it is cancelled, and when the notification expires", async () => {
    const id = await send(newUser(), { escalation: chain });
    expect(await key.send.cancelEscalation({ id })).toMatchObject({ cancelled: true });
    expect(await key.send.cancelEscalation({ id })).toMatchObject({ cancelled: false });
    expect((await get(id)).timeline.at(-1)).toMatchObject({ status: 0, reason: Reason.CANCELLED });
    const short = await send(newUser(), { escalation: chain, expiry: { case: "ttl", value: seconds(300) } });
    pass(10 * MINUTE);
    expect(await ended(short)).toBe(ChainState.CANCELLED);
    expect((await get(short)).timeline.at(-1)).toMatchObject({ reason: Reason.EXPIRED });
    expect([await sink.of("email", id), await sink.of("email", short)]).toEqual([[], []]);
  });

  test("ends with its user, and with the retention", async () => {
    const user = newUser();
    await send(user, { escalation: chain });
    await key.users.deleteUser({ id: user });
    expect(await sql`select from escalations where tenant_id = ${tenant.tenantId} and user_id = ${user}`).toEqual([]);
    const old = await send(newUser(), { escalation: chain });
    await key.send.cancelEscalation({ id: old });
    await using store = openStore({
      url: services.databaseUrl,
      hotPoolSize: 1,
      poolSize: 1,
      statementTimeoutMs: 5_000,
      lockTimeoutMs: 5_000,
      prepare: true,
    });
    const inDays = (days: number) => new Date(clock().getTime() + days * 24 * 60 * MINUTE);
    await forgetEscalations(store, inDays(9), 10, 1000);
    expect(await stateOf(old)).toBe(ChainState.CANCELLED);
    await forgetEscalations(store, inDays(11), 10, 1000);
    expect(await stateOf(old)).toBeUndefined();
  });
});
