import { randomUUID } from "node:crypto";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { TransactionSql } from "postgres";
import { expect, test } from "vitest";
import { Channel, Reason, Status, VerdictKind } from "#gen/posthorn/v1/notification_pb.ts";
import { ChainState } from "#src/escalation/state.ts";
import { cancelByIds } from "#src/notifications/cancel.ts";
import { cancelWaiting } from "#src/notifications/cancel-waiting.ts";
import { EVERYTHING } from "#src/notifications/queries.ts";
import type { Store } from "#src/store/store.ts";
import { HOUR, MINUTE } from "../batches/setup.ts";
import { seconds } from "../escalation/setup.ts";
import { type Answer, BUSY, SENT } from "../support/obedient-channels.ts";
import { startTestPlatform } from "../support/platform.ts";
import { refusalOf } from "../support/refusal.ts";
import { smallStore } from "../support/small-store.ts";
import { openReader } from "../support/stream-reader.ts";
import { until } from "../support/until.ts";
import { outside } from "./outside.ts";

// What is cancelled after it was decided, and before outside channels have got all of it. They do as they are told.

const { services, clock, pass, options, node, key, sql, tenantId, answerWith, of, ...rest } = await outside();
const { newUser, send, get, told, reached, on, satisfied, held, heldBatch, behind, onTheirWay } = rest;
const { IN_APP, EMAIL, SMS, PUSH } = Channel;
const cancel = (id: string) => key.send.cancelNotification({ id });

test("what is held until tomorrow is cancelled today, is told so, and does not come", async () => {
  const user = await satisfied(newUser());
  const id = await held(user);
  await using reader = openReader(await node.clientsFor(user), { includeStatus: true });
  await reader.next("caughtUp");
  const first = await cancel(id);
  expect(first).toMatchObject({
    notification: { status: Status.CANCELLED, reason: Reason.CANCELLED },
    stoppedChannels: [SMS],
    pendingChannels: [],
  });
  expect(await cancel(id)).toEqual(first);
  await reader.next("status", ({ notificationId, status }) => notificationId === id && status === Status.CANCELLED);
  const { timeline, verdicts } = await get(id);
  expect(timeline.slice(-2)).toMatchObject([
    { status: Status.UNSPECIFIED, channel: SMS, reason: Reason.CANCELLED },
    { status: Status.CANCELLED, channel: Channel.UNSPECIFIED, reason: Reason.CANCELLED },
  ]);
  for (const { actor } of timeline.slice(-2)) expect(actor).toMatch(/^key:/);
  expect(verdicts).toMatchObject([{ channel: SMS, kind: VerdictKind.SUPPRESS, reason: Reason.CANCELLED }]);
  await on(48 * HOUR);
  expect(of(id)).toEqual([]);
  const explained = await key.send.explainNotification({ id });
  expect(explained.timeline.at(-1)?.entry).toMatchObject({ status: Status.CANCELLED });
});

test("what is in the inbox stays there, and does not come by the channel that holds it", async () => {
  const user = await satisfied(newUser());
  const id = await held(user, { channels: [IN_APP, SMS] });
  await using reader = openReader(await node.clientsFor(user), { includeStatus: true });
  await reader.next("caughtUp");
  await key.inbox.markRead({ userId: user, notificationIds: [id] });
  const { readTime } = await get(id);
  const { notification, stoppedChannels } = await cancel(id);
  expect([notification?.status, stoppedChannels]).toEqual([Status.READ, [SMS]]);
  const event = await reader.next("status", ({ reason }) => reason === Reason.CANCELLED);
  expect(event).toMatchObject({ notificationId: id, status: Status.READ, channel: SMS });
  expect((await cancel(id)).stoppedChannels).toEqual([SMS]);
  await on(48 * HOUR);
  expect(of(id)).toEqual([]);
  const after = await get(id);
  expect(after).toMatchObject({ status: Status.READ, readTime });
  expect(after.rateLimit).toBeUndefined();
  const { entries } = await key.inbox.listEntries({ userId: user });
  expect(entries.map(({ notificationId }) => notificationId)).toEqual([id]);
});

test("where nothing waits any more there is nothing to cancel", async () => {
  const id = await send(newUser(), { channels: [EMAIL] });
  await reached(id, Status.DELIVERED);
  expect(await refusalOf(cancel(id))).toMatchObject({
    reason: "NOTIFICATION_NOT_OPEN",
    metadata: { status: "DELIVERED" },
  });
});

test("what a channel did not take is not tried again", async () => {
  answerWith(BUSY);
  const id = await send(newUser(), { channels: [EMAIL] });
  await until(
    () => sql`select from hand_overs where notification_id = ${id} and not claimed and attempts = 1`,
    (rows) => rows.length === 1,
  );
  answerWith(SENT);
  expect((await cancel(id)).notification?.status).toBe(Status.CANCELLED);
  await on(10 * MINUTE);
  expect(of(id)).toEqual([EMAIL]);
});

test("of what a channel may have taken it is said that nobody knows", async () => {
  answerWith(async () => {
    throw new Error("the line was cut");
  });
  const id = await send(newUser(), { channels: [EMAIL] });
  await until(
    () => sql`select from hand_overs where notification_id = ${id} and not claimed and attempts = 1`,
    (rows) => rows.length === 1,
  );
  answerWith(SENT);
  const first = await cancel(id);
  expect(first).toMatchObject({
    notification: { status: Status.FAILED, reason: Reason.OUTCOME_UNKNOWN },
    stoppedChannels: [EMAIL],
  });
  expect(await cancel(id)).toEqual(first);
  await on(10 * MINUTE);
  expect(of(id)).toEqual([EMAIL]);
  expect((await get(id)).verdicts).toMatchObject([{ channel: EMAIL, kind: VerdictKind.UNKNOWN }]);
});

test.each<[string, Answer, Status, Reason, VerdictKind]>([
  ["takes it", SENT, Status.DELIVERED, Reason.UNSPECIFIED, VerdictKind.DELIVER],
  ["does not take it now", BUSY, Status.CANCELLED, Reason.CANCELLED, VerdictKind.SUPPRESS],
  [
    "refuses it",
    async () => ({ kind: "rejected", cause: "no such address" }),
    Status.CANCELLED,
    Reason.CANCELLED,
    VerdictKind.SUPPRESS,
  ],
  [
    "does not answer",
    async () => ({ kind: "unknown", cause: "a time-out" }),
    Status.FAILED,
    Reason.OUTCOME_UNKNOWN,
    VerdictKind.UNKNOWN,
  ],
])("cancelled while a channel has it, which then %s, it is not tried again", async (_, does, status, reason, kind) => {
  const turn = Promise.withResolvers<void>();
  const user = await satisfied(newUser());
  answerWith(async (message) => {
    await turn.promise;
    return does(message);
  });
  const id = await send(user, { channels: [EMAIL, SMS] });
  await told(id, ({ reason }) => reason === Reason.CHANNEL_DAY_LIMIT);
  await until(
    async () => of(id),
    (all) => all.length === 1,
  );
  const first = await cancel(id);
  expect(first).toMatchObject({
    notification: { status: Status.PROCESSING },
    stoppedChannels: [SMS],
    pendingChannels: [EMAIL],
  });
  expect(await cancel(id)).toEqual(first);
  turn.resolve();
  expect(await reached(id, status)).toMatchObject({ status, reason });
  answerWith(SENT);
  await on(48 * HOUR);
  expect(of(id)).toEqual([EMAIL]);
  expect((await get(id)).verdicts.find(({ channel }) => channel === EMAIL)?.kind).toBe(kind);
  expect(await sql`select from hand_overs where notification_id = ${id}`).toHaveLength(0);
});

test("an escalation ends with it, by the inbox or by channels that did not take it", async () => {
  const escalation = { steps: [{ channel: PUSH, after: seconds(600) }] };
  const inApp = await send(newUser(), { channels: [IN_APP], escalation });
  answerWith(BUSY);
  const outside = await send(newUser(), { channels: [EMAIL], escalation });
  expect((await cancel(inApp)).notification?.status).toBe(Status.DELIVERED);
  const { notification } = await cancel(outside);
  answerWith(SENT);
  expect([Status.CANCELLED, Status.PROCESSING]).toContain(notification?.status);
  await reached(outside, Status.CANCELLED);
  expect((await key.send.cancelEscalation({ id: inApp })).cancelled).toBe(false);
  await on(20 * MINUTE);
  expect([...of(inApp), ...of(outside)].filter((channel) => channel === PUSH)).toEqual([]);
});

test("many are cancelled by ids, by a tag, by their batch and by their user as one is", async () => {
  const user = await satisfied(newUser());
  for (const which of ["ids", "tag", "batch", "user"] as const) {
    const tags = [`many-${which}`];
    const ids = [await held(user, { tags }), await held(user, { tags, channels: [IN_APP, SMS] })];
    const gone = await send(user, { tags, channels: [EMAIL] });
    await reached(gone, Status.DELIVERED);
    const batchId = randomUUID();
    // As it stays with the members of one that was dissolved.
    await sql`update notifications set batch_id = ${batchId} where tenant_id = ${tenantId} and id = any(${[...ids, gone]})`;
    const filter = { tag: { tag: tags[0] ?? "" }, batch: { batchId }, user: { userId: user }, ids: {} }[which];
    const request = which === "ids" ? { ids: [...ids, gone] } : { filter };
    expect(await key.send.cancelNotifications(request)).toMatchObject({ cancelled: 1, stopped: 1, more: false });
    expect(await key.send.cancelNotifications(request)).toMatchObject({ cancelled: 0, stopped: 0, more: false });
    const now = await Promise.all([...ids, gone].map(async (id) => (await get(id)).status));
    expect(now).toEqual([Status.CANCELLED, Status.DELIVERED, Status.DELIVERED]);
    expect(ids.flatMap(of)).toEqual([]);
  }
});

test("of more than one call may cancel, a page that has more is cancelled in part, and the rest by the next", async () => {
  const tag = "too-many";
  const time = timestampFromDate(new Date(clock().getTime() + HOUR));
  for (let n = 0; n < 5; n++) await send(newUser(), { tags: [tag], schedule: { case: "scheduleTime", value: time } });
  await using store = smallStore(services.databaseUrl);
  const by = { actor: "key:test", now: clock(), slot: 0 };
  const many = { by, told: () => undefined, most: 3, signal: AbortSignal.timeout(10_000) };
  const next = () => cancelWaiting(store, tenantId, { ...EVERYTHING, tag }, many);
  expect([await next(), await next(), await next()]).toEqual([3, 2, 0]);
});

test("one that was found by its status is left alone if it has another once it is locked", async () => {
  const id = await held(await satisfied(newUser()));
  await using store = smallStore(services.databaseUrl);
  const by = { actor: "key:test", now: clock(), slot: 0 };
  const cancelIf = (statuses: Status[]) =>
    store.tenant(tenantId, (tx) => cancelByIds(tx, tenantId, [id], by, { ...EVERYTHING, statuses }));
  expect(await cancelIf([Status.SCHEDULED])).toEqual([]);
  expect((await get(id)).status).toBe(Status.PROCESSING);
  expect(await cancelIf([Status.PROCESSING])).toMatchObject([{ id, channels: [SMS] }]);
});

test("what looks for escalations that go on reads none of those that have ended", async () => {
  const user = newUser();
  await sql`insert into escalations (tenant_id, notification_id, user_id, steps, confirmation_required, state, taken, ended_at)
    select ${tenantId}, uuidv7(), ${user}, '[]', false, ${ChainState.READ}, 0, ${clock()} from generate_series(1, 500)`;
  await sql`analyze escalations`;
  await using small = smallStore(services.databaseUrl);
  let read = 0;
  const store: Store = {
    ...small,
    tenant: (of, work) =>
      small.tenant(of, async (tx) => {
        const done = await work(tx, () => undefined);
        const [row] = await tx<{ rows: number }[]>`select (seq_tup_read + idx_tup_fetch)::int as rows
          from pg_stat_xact_user_tables where relname = 'escalations' and schemaname = current_schema()`;
        read += row?.rows ?? 0;
        return done;
      }),
  };
  const by = { actor: "key:test", now: clock(), slot: 0 };
  const many = { by, told: () => undefined, most: 10, signal: AbortSignal.timeout(10_000) };
  expect(await cancelWaiting(store, tenantId, { ...EVERYTHING, tag: "nobody-has-it" }, many)).toBe(0);
  expect(read).toBeLessThan(100);
});

test("the members of a batch share the fate of its notification, which they have no other", async () => {
  const user = await satisfied(newUser());
  const { members, whole } = await heldBatch(user);
  expect((await refusalOf(cancel(members[0] ?? ""))).reason).toBe("NOTIFICATION_NOT_OPEN");
  expect(await key.send.cancelNotifications({ ids: members })).toMatchObject({ cancelled: 0, stopped: 0 });
  expect((await cancel(whole)).notification?.status).toBe(Status.CANCELLED);
  for (const id of members) expect((await get(id)).status).toBe(Status.CANCELLED);
});

test("a claim that is being made is waited for, and counts as gone", async () => {
  const id = await held(await satisfied(newUser()));
  const dueAt = new Date(clock().getTime() + MINUTE);
  const claiming = (tx: TransactionSql) => tx`
    update hand_overs set claimed = true, attempts = attempts + 1, due_at = ${dueAt}
    where tenant_id = ${tenantId} and notification_id = ${id}`;
  expect(await behind(claiming, () => cancel(id))).toMatchObject({
    notification: { status: Status.PROCESSING },
    stoppedChannels: [],
    pendingChannels: [SMS],
  });
  // Whoever had claimed it is never heard of again: whoever finds it next ends it.
  pass(2 * MINUTE);
  expect(await reached(id, Status.CANCELLED)).toMatchObject({ reason: Reason.CANCELLED });
  expect(of(id)).toEqual([]);
});

test("cancelled by two servers while two hand over, each is given or cancelled, and never both", async () => {
  await using other = await startTestPlatform({ ...options, tenant: node.tenant });
  const tally = new Map<Status, number>();
  for (let round = 0; round < 12; round++) {
    const ids = await onTheirWay("race", round % 12);
    const cancelling = ids.flatMap((id) =>
      [key, other.key].map(({ send }) => send.cancelNotification({ id }).catch(() => undefined)),
    );
    await Promise.all(cancelling);
    for (const id of ids) {
      const { status, timeline } = await until(
        () => get(id),
        ({ status }) => status >= Status.DELIVERED,
      );
      tally.set(status, (tally.get(status) ?? 0) + 1);
      expect([status, of(id)]).toEqual(status === Status.DELIVERED ? [status, [EMAIL]] : [Status.CANCELLED, []]);
      expect(timeline.filter((entry) => entry.status === Status.CANCELLED)).toHaveLength(
        status === Status.CANCELLED ? 1 : 0,
      );
    }
  }
  const ids = [...tally.keys()].toSorted((a, b) => a - b);
  expect(ids).toEqual([Status.DELIVERED, Status.CANCELLED]);
});
