import { expect, test } from "vitest";
import { InboxFilter_View } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { Channel, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { HOUR, MINUTE } from "../batches/setup.ts";
import { seconds } from "../escalation/setup.ts";
import { BUSY, SENT } from "../support/obedient-channels.ts";
import { wrongInboxes } from "../support/recount.ts";
import { refusalOf } from "../support/refusal.ts";
import { openReader } from "../support/stream-reader.ts";
import { until } from "../support/until.ts";
import { outside } from "./outside.ts";

// What is changed after it was decided, and before outside channels have got all of it.

const { clock, pass, node, key, sql, tenantId, answerWith, given, of, within, titles, ...rest } = await outside();
const { newUser, send, get, reached, told, on, satisfied, held, heldBatch } = rest;
const { IN_APP, EMAIL, SMS, PUSH } = Channel;
const change = (id: string, title: string) => key.send.updateNotification({ id, content: { title } });

test("what a limit holds until tomorrow comes as it was changed today", async () => {
  const id = await held(await satisfied(newUser()));
  const changed = await key.send.updateNotification({ id, content: { title: "changed" }, tags: ["new"] });
  expect(changed).toMatchObject({
    notification: { status: Status.PROCESSING, content: { title: "changed" }, tags: ["new"] },
    updatedChannels: [SMS],
    pendingChannels: [],
  });
  await on(24 * HOUR);
  await on(24 * HOUR);
  await reached(id, Status.DELIVERED);
  expect(titles(id)).toEqual(["changed"]);
  expect(await refusalOf(change(id, "too late"))).toMatchObject({
    reason: "NOTIFICATION_NOT_OPEN",
    metadata: { status: "DELIVERED" },
  });
  expect((await get(id)).content?.title).toBe("changed");
});

test("what is in the inbox comes there again, in order, as it is and as read as it was", async () => {
  const user = await satisfied(newUser());
  await using reader = openReader(await node.clientsFor(user));
  await reader.next("caughtUp");
  const id = await held(user, { channels: [IN_APP, SMS] });
  const other = await send(user, { channels: [IN_APP] });
  await key.inbox.markRead({ userId: user, notificationIds: [id] });
  await key.inbox.markSeen({ userId: user });
  await reader.next("notification", ({ entry }) => entry?.notificationId === other);
  const resumed = reader.cursor();
  const counts = (await key.inbox.getCounts({ userId: user })).counts;
  const { notification, updatedChannels } = await key.send.updateNotification({
    ...{ id, content: { title: "changed" }, tags: ["new"], expireTime: within(400 * HOUR) },
  });
  expect([notification?.status, updatedChannels]).toEqual([Status.READ, [IN_APP, SMS]]);
  const { entry, counts: told } = await reader.next("notification");
  expect(entry).toMatchObject({ notificationId: id, sequence: 3n, content: { title: "changed" }, tags: ["new"] });
  expect(entry).toMatchObject({ seen: true, expireTime: notification?.expireTime });
  expect(entry?.readTime).toBeDefined();
  expect(entry?.updateTime).toEqual(entry?.arriveTime);
  expect(told).toEqual(counts);
  expect((await key.inbox.getCounts({ userId: user })).counts).toEqual(counts);
  const { entries } = await key.inbox.listEntries({ userId: user });
  expect(entries).toEqual([entry, expect.objectContaining({ notificationId: other, sequence: 2n })]);
  // Whoever was away is told as well, and once.
  await using again = openReader(await node.clientsFor(user), { cursor: resumed });
  await again.next("caughtUp");
  expect(again.all("notification").map(({ entry, replayed }) => [entry, replayed])).toEqual([[entry, true]]);
  await using fromStart = openReader(await node.clientsFor(user), { cursor: reader.events.flatMap(cursorOf)[0] ?? "" });
  await fromStart.next("caughtUp");
  expect(fromStart.sequences()).toEqual([2, 3]);
  // It is found by its notification as before.
  await key.inbox.archive({ userId: user, notificationIds: [id] });
  await change(id, "changed once more");
  const { entry: archived } = await reader.next("notification");
  expect(archived).toMatchObject({ sequence: 4n, content: { title: "changed once more" } });
  expect(archived?.archiveTime).toBeDefined();
  const filter = { view: InboxFilter_View.ARCHIVED };
  expect((await key.inbox.listEntries({ userId: user, filter })).entries).toEqual([archived]);
  expect(reader.sequences()).toEqual([1, 2, 3, 4]);
  expect((await wrongInboxes(sql)).filter((wrong) => JSON.stringify(wrong).includes(tenantId))).toEqual([]);
  for (let day = 0; day < 2; day++) await on(24 * HOUR);
  expect(titles(id)).toEqual(["changed once more"]);
});

const cursorOf = ({ value }: { value?: unknown }) =>
  typeof value === "object" && value !== null && "cursor" in value && typeof value.cursor === "string"
    ? [value.cursor]
    : [];

test("what changes nothing that an entry shows leaves the entry where it is", async () => {
  const user = await satisfied(newUser());
  const id = await held(user, { channels: [IN_APP, SMS] });
  const { updatedChannels } = await change(id, "Server down");
  expect(updatedChannels).toEqual([SMS]);
  const { entries } = await key.inbox.listEntries({ userId: user });
  expect(entries.map(({ sequence, updateTime }) => [sequence, updateTime])).toEqual([[1n, undefined]]);
});

test("one that is deleted in the inbox changes outside alone", async () => {
  const user = await satisfied(newUser());
  const id = await held(user, { channels: [IN_APP, SMS] });
  await key.inbox.deleteEntries({ userId: user, notificationIds: [id] });
  expect((await change(id, "changed")).updatedChannels).toEqual([SMS]);
  expect((await key.inbox.listEntries({ userId: user })).entries).toEqual([]);
});

test("one that has expired in the inbox changes outside alone, also when it is given more time", async () => {
  const user = newUser();
  const escalation = { steps: [{ channel: PUSH, after: seconds(10 * 3600) }] };
  const expiry = { case: "ttl", value: seconds(3600) } as const;
  const id = await send(user, { channels: [IN_APP], escalation, expiry });
  pass(2 * HOUR);
  const more = { id, content: { title: "changed" }, expireTime: within(100 * HOUR) };
  expect((await key.send.updateNotification(more)).updatedChannels).toEqual([PUSH]);
  expect((await key.inbox.listEntries({ userId: user })).entries).toEqual([]);
  await on(10 * HOUR);
  await until(
    async () => titles(id),
    (all) => all.length > 0,
  );
  expect(titles(id)).toEqual(["changed"]);
});

test("what is unseen counts as it did, and a snoozed one comes back as it was changed", async () => {
  const user = await satisfied(newUser());
  const id = await held(user, { channels: [IN_APP, SMS] });
  expect((await key.inbox.getCounts({ userId: user })).counts).toMatchObject({ unread: 1, unseen: 1 });
  await change(id, "changed");
  const { counts } = await key.inbox.getCounts({ userId: user });
  expect(counts).toMatchObject({ unread: 1, unseen: 1, total: 1 });
  await key.inbox.snooze({ userId: user, notificationIds: [id], snoozeTime: within(HOUR) });
  await change(id, "changed while it was snoozed");
  expect((await key.inbox.getCounts({ userId: user })).counts).toMatchObject({ unread: 0, total: 0, snoozed: 1 });
  pass(2 * HOUR);
  const { entries } = await until(
    () => key.inbox.listEntries({ userId: user }),
    ({ entries }) => entries.length === 1,
  );
  expect(entries).toMatchObject([
    { notificationId: id, sequence: 4n, content: { title: "changed while it was snoozed" } },
  ]);
  expect(entries[0]?.updateTime).toBeDefined();
});

test("what would come after its new expiry ends at once, and says why", async () => {
  const user = await satisfied(newUser());
  const [outside, both] = [await held(user), await held(user, { channels: [IN_APP, SMS] })];
  for (const id of [outside, both]) await key.send.updateNotification({ id, expireTime: within(1000) });
  expect(await reached(outside, Status.EXPIRED)).toMatchObject({ reason: Reason.CHANNEL_DAY_LIMIT });
  await told(both, ({ channel, status, reason, verdicts }) => {
    return channel === SMS && status === 0 && reason === Reason.CHANNEL_DAY_LIMIT && verdicts[0]?.until === undefined;
  });
  expect((await get(both)).status).toBe(Status.DELIVERED);
  await on(48 * HOUR);
  expect([...of(outside), ...of(both)]).toEqual([]);
});

test("one whose expiry is taken away comes when its turn has come", async () => {
  const id = await held(await satisfied(newUser()), { expiry: { case: "ttl", value: seconds(100 * 3600) } });
  const { notification } = await key.send.updateNotification({ id, updateMask: { paths: ["expire_time"] } });
  expect(notification?.expireTime).toBeUndefined();
});

test("an expiry in the past is refused, whether it is decided or not, and the refusal says what to do", async () => {
  const user = await satisfied(newUser());
  const schedule = { case: "scheduleTime", value: within(HOUR) } as const;
  const ids = [await held(user), await send(user, { schedule, waitForDecision: seconds(0) })];
  for (const id of ids) {
    expect(await refusalOf(key.send.updateNotification({ id, expireTime: within(-HOUR) }))).toMatchObject({
      ...{ reason: "INVALID_REQUEST", fields: ["expire_time"] },
      message: expect.stringContaining("CancelNotification"),
    });
    expect((await get(id)).expireTime).toBeUndefined();
  }
});

test("what did not get through is tried again as it was changed", async () => {
  answerWith(BUSY);
  const id = await send(newUser(), { channels: [EMAIL] });
  await until(
    () => sql`select from hand_overs where notification_id = ${id} and not claimed and attempts = 1`,
    (rows) => rows.length === 1,
  );
  const { updatedChannels, pendingChannels } = await change(id, "changed");
  expect([updatedChannels, pendingChannels]).toEqual([[EMAIL], []]);
  answerWith(SENT);
  pass(MINUTE);
  await reached(id, Status.DELIVERED);
  expect(titles(id)).toEqual(["Server down", "changed"]);
});

test("of a channel that may have taken it, it is said that it may have come as it was", async () => {
  answerWith(async () => {
    throw new Error("the line was cut");
  });
  const id = await send(newUser(), { channels: [EMAIL] });
  await until(
    () => sql`select from hand_overs where notification_id = ${id} and not claimed and attempts = 1`,
    (rows) => rows.length === 1,
  );
  const { updatedChannels, pendingChannels } = await change(id, "changed");
  expect([updatedChannels, pendingChannels]).toEqual([[], [EMAIL]]);
  expect(await refusalOf(key.send.updateNotification({ id, scheduleTime: within(HOUR) }))).toMatchObject({
    reason: "NOTIFICATION_NOT_OPEN",
    fields: ["schedule_time"],
  });
});

test.each([
  ["takes it", SENT, ["Server down"]],
  ["does not take it", BUSY, ["Server down", "changed"]],
])("changed while a channel has it, which then %s, it comes as it was or as changed", async (_, does, expected) => {
  const turn = Promise.withResolvers<void>();
  answerWith(async (message) => {
    await turn.promise;
    return does(message);
  });
  const id = await send(newUser(), { channels: [EMAIL] });
  await until(
    async () => of(id),
    (all) => all.length === 1,
  );
  const { updatedChannels, pendingChannels } = await change(id, "changed");
  expect([updatedChannels, pendingChannels]).toEqual([[], [EMAIL]]);
  const later = { id, localScheduleTime: "2099-01-01T09:00" };
  expect((await refusalOf(key.send.updateNotification(later))).reason).toBe("INVALID_REQUEST");
  const refused = await refusalOf(key.send.updateNotification({ id, scheduleTime: within(HOUR) }));
  expect(refused).toMatchObject({ reason: "NOTIFICATION_NOT_OPEN", fields: ["schedule_time"] });
  turn.resolve();
  if (expected.length === 2) {
    await until(
      () => sql`select from hand_overs where notification_id = ${id} and not claimed and attempts = 1`,
      (rows) => rows.length === 1,
    );
    answerWith(SENT);
    pass(MINUTE);
  }
  await reached(id, Status.DELIVERED);
  expect(titles(id)).toEqual(expected);
});

test("an escalation's next steps get the change", async () => {
  const escalation = { steps: [{ channel: PUSH, after: seconds(600) }] };
  const id = await send(newUser(), { channels: [IN_APP], escalation });
  expect((await change(id, "changed")).updatedChannels).toEqual([IN_APP, PUSH]);
  await on(HOUR);
  await until(
    async () => titles(id),
    (all) => all.length === 1,
  );
  expect(titles(id)).toEqual(["changed"]);
});

test("what has reached nobody is taken back by a later time, and decided anew then", async () => {
  const user = await satisfied(newUser());
  const escalation = { steps: [{ channel: PUSH, after: seconds(100 * 3600) }] };
  const id = await held(user, { escalation });
  const time = within(72 * HOUR);
  const { notification } = await key.send.updateNotification({ id, scheduleTime: time });
  expect(notification).toMatchObject({ status: Status.SCHEDULED, scheduleTime: time });
  expect(await sql`select from hand_overs where notification_id = ${id}`).toHaveLength(0);
  expect((await key.send.cancelEscalation({ id })).cancelled).toBe(false);
  expect((await get(id)).timeline.at(-1)).toMatchObject({ status: Status.SCHEDULED });
  for (let day = 0; day < 2; day++) await on(24 * HOUR);
  expect(of(id)).toEqual([]);
  // And back again, as any that waits for its time.
  await key.send.updateNotification({ id, content: { title: "later" } });
  for (let day = 0; day < 3; day++) await on(24 * HOUR);
  await reached(id, Status.DELIVERED);
  expect(titles(id)).toEqual(["later"]);
  const turns = (await get(id)).timeline.filter(({ status }) => status === Status.PROCESSING);
  expect(turns).toHaveLength(2);
  const stepped = await sql`select taken from escalations where notification_id = ${id} and state = 1`;
  expect(stepped).toEqual([{ taken: 0 }]);
});

test("what has come gets no other time, but any other change", async () => {
  const user = await satisfied(newUser());
  const id = await held(user, { channels: [IN_APP, SMS] });
  const refused = await refusalOf(
    key.send.updateNotification({ id, content: { title: "changed" }, scheduleTime: within(HOUR) }),
  );
  expect(refused).toMatchObject({
    reason: "NOTIFICATION_NOT_OPEN",
    metadata: { status: "DELIVERED" },
    fields: ["schedule_time"],
    message: expect.stringContaining("leave the time out"),
  });
  expect((await get(id)).content?.title).toBe("Server down");
  const local = new Date(clock().getTime() + 24 * HOUR).toISOString().slice(0, 16);
  expect(await refusalOf(key.send.updateNotification({ id, localScheduleTime: local }))).toMatchObject({
    fields: ["local_schedule_time"],
  });
});

test("a batch's notification changes, and the members have no other fate", async () => {
  const user = await satisfied(newUser());
  const { members, whole } = await heldBatch(user);
  expect((await refusalOf(change(members[0] ?? "", "one"))).reason).toBe("NOTIFICATION_NOT_OPEN");
  await change(whole, "both");
  const time = within(24 * HOUR);
  await key.send.updateNotification({ id: whole, scheduleTime: time });
  for (let day = 0; day < 4; day++) await on(24 * HOUR);
  for (const id of [whole, ...members]) await reached(id, Status.DELIVERED);
  expect(titles(whole)).toEqual(["both"]);
});
