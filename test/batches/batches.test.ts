import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import postgres from "postgres";
import { afterAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { BatchKind, BatchState } from "#gen/posthorn/v1/batch_service_pb.ts";
import { Priority, Reason, Status, VerdictKind } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { BatchRule_Mode } from "#gen/posthorn/v1/type_service_pb.ts";
import { platformOfFile } from "../support/platform.ts";
import { wrongInAppCounters, wrongInboxes } from "../support/recount.ts";
import { refusalOf } from "../support/refusal.ts";
import { openReader } from "../support/stream-reader.ts";
import { until } from "../support/until.ts";
import { batching, HOUR, MINUTE, steppedClock } from "./setup.ts";

const { clock, step } = steppedClock();
/** What is to be decided waits until it opens. */
const gate = { open: Promise.resolve() };
const node = await platformOfFile({
  clock,
  between: {
    work:
      (handle) =>
      async (...given) => {
        await gate.open;
        return handle(...given);
      },
  },
});
const { key } = node;
const { newType, newUser, get, timeline, send, batchOf, closed, reached, entries, prefer } = batching(node);
const sql = postgres(node.services.databaseUrl, { max: 1, onnotice: () => undefined });
afterAll(() => sql.end());
afterAll(async () => {
  expect(await wrongInboxes(sql)).toEqual([]);
  expect(await wrongInAppCounters(sql)).toEqual([]);
});

let user: string;
beforeEach(() => {
  user = newUser();
});

const both = { batchable: true, maxSize: 2 };

test("a batch closes with its last member and arrives as one, worded by its type", async () => {
  const type = await newType(
    { batchable: true, maxSize: 3 },
    {
      displayName: "Task assigned",
      category: "tasks",
      batchWording: { title: "{count} new tasks", icon: "/tasks.png", tag: "many", url: "/tasks?new={count}" },
    },
  );
  const [first, second] = [await send(user, type, "Milk"), await send(user, type, "Bread")];
  expect(first).toMatchObject({ status: Status.BATCHED, queued: true });
  expect(first.verdicts).toMatchObject([{ kind: VerdictKind.BATCH, reason: Reason.BATCHING, batchId: first.batchId }]);
  expect(second.batchId).toBe(first.batchId);
  const open = await batchOf(first.batchId);
  expect(open).toMatchObject({
    state: BatchState.OPEN,
    kind: BatchKind.BATCH,
    size: 2,
    maxSize: 3,
    type,
    userId: user,
  });
  expect(first.estimatedDeliveryTime).toEqual(open.flushTime);
  expect(await entries(user)).toEqual([]);

  const third = await send(user, type, "Eggs");
  const batch = await closed(first.batchId);
  const members = [first, second, third].map(({ notificationId }) => notificationId);
  for (const id of members) await reached(id, Status.DELIVERED);
  const [entry, ...others] = await entries(user);
  expect(others).toEqual([]);
  expect(entry).toMatchObject({
    notificationId: batch.notificationId,
    type,
    category: "tasks",
    tags: ["many"],
    content: {
      title: "3 new tasks",
      body: "Milk\nBread\nEggs",
      icon: "/tasks.png",
      url: "/tasks?new=3",
      data: { batch: { id: batch.id, kind: "batch", count: 3, notificationIds: members } },
    },
  });
  expect(await batchOf(batch.id)).toMatchObject({ size: 3, delivered: 3, failed: 0 });
  expect(await get(members[0] ?? "")).toMatchObject({ batchId: batch.id, status: Status.DELIVERED });
  expect((await timeline(members[0] ?? "")).map(({ status }) => status)).toEqual([
    Status.ACCEPTED,
    Status.BATCHED,
    Status.DELIVERED,
  ]);
  const { notifications } = await key.send.listNotifications({ filter: { batchId: batch.id } });
  expect(notifications.map(({ id }) => id).sort()).toEqual([...members, batch.notificationId].sort());
});

test("a batch closes when its window ends, and its members are read with it", async () => {
  const type = await newType({ batchable: true, window: { seconds: 600n } });
  const members = [await send(user, type, "One"), await send(user, type, "Two")];
  step(9 * MINUTE);
  expect((await batchOf(members[0]?.batchId ?? "")).state).toBe(BatchState.OPEN);
  step(2 * MINUTE);
  const batch = await closed(members[0]?.batchId ?? "");
  await reached(batch.notificationId, Status.DELIVERED);
  expect((await entries(user)).map(({ content }) => content?.title)).toEqual([`2 × ${type}`]);
  await key.inbox.markRead({ userId: user, notificationIds: [batch.notificationId] });
  for (const { notificationId } of members) await reached(notificationId, Status.READ);
});

test("a batch of one is sent as itself, and a limit of one batches nothing", async () => {
  const type = await newType(both);
  const only = await send(user, type, "Alone");
  step(31 * MINUTE);
  const batch = await closed(only.batchId);
  expect(batch).toMatchObject({ size: 1, notificationId: only.notificationId });
  await reached(only.notificationId, Status.DELIVERED);
  expect((await entries(user)).map(({ content }) => content?.title)).toEqual(["Alone"]);
  expect(await batchOf(batch.id)).toMatchObject({ delivered: 1, failed: 0 });
  await prefer(user, { batching: { maxSize: 1 } });
  expect((await send(user, type, "At once")).status).toBe(Status.DELIVERED);
});

test("only what is alike comes together, and CRITICAL never waits", async () => {
  const type = await newType({ batchable: true });
  const normal = await send(user, type, "a");
  expect((await send(user, type, "b")).batchId).toBe(normal.batchId);
  const different = [
    await send(user, type, "high", { priority: Priority.HIGH }),
    await send(newUser(), type, "other"),
    await send(user, await newType({ batchable: true }), "type"),
  ];
  expect(different.map(({ status }) => status)).toEqual(different.map(() => Status.BATCHED));
  expect(new Set([normal, ...different].map(({ batchId }) => batchId)).size).toBe(4);
  expect((await send(user, type, "critical", { priority: Priority.CRITICAL })).status).toBe(Status.DELIVERED);
  const soon = timestampFromDate(new Date(clock().getTime() + MINUTE));
  const expiring = await send(user, type, "soon over", { expiry: { case: "expireTime", value: soon } });
  expect(expiring.status).toBe(Status.DELIVERED);
});

test("a burst fills one batch after the other, each as large as it may be", async () => {
  const type = await newType({ batchable: true, maxSize: 4 });
  await key.send.sendBatch({
    items: Array.from({ length: 10 }, (_, n) => ({ to: { userIds: [user] }, type, content: { title: `${n}` } })),
  });
  const batches = await until(
    async () => (await key.batches.listBatches({ userId: user })).batches,
    (found) => found.reduce((sum, { size }) => sum + size, 0) === 10,
  );
  expect(batches.map(({ size }) => size).sort()).toEqual([2, 4, 4]);
  step(31 * MINUTE);
  await until(
    () => entries(user),
    (found) => found.length === 3,
  );
  const { batches: first, nextPageToken } = await key.batches.listBatches({ userId: user, pageSize: 2 });
  const { batches: rest } = await key.batches.listBatches({ userId: user, pageSize: 2, pageToken: nextPageToken });
  expect([...first, ...rest].map(({ id }) => id)).toEqual(batches.map(({ id }) => id));
});

describe("leading and sliding", () => {
  test("the first goes at once, those that follow are batched, and after that the next goes at once again", async () => {
    const type = await newType({ batchable: true, mode: BatchRule_Mode.LEADING, maxSize: 5 });
    expect((await send(user, type, "first")).status).toBe(Status.DELIVERED);
    const second = await send(user, type, "second");
    const third = await send(user, type, "third");
    expect([second.status, third.batchId]).toEqual([Status.BATCHED, second.batchId]);
    step(31 * MINUTE);
    await closed(second.batchId);
    await reached(third.notificationId, Status.DELIVERED);
    expect((await send(user, type, "again")).status).toBe(Status.DELIVERED);
    expect((await entries(user)).map(({ content }) => content?.title)).toEqual(["again", `2 × ${type}`, "first"]);
  });

  test("one that was to go first and has ended before that leads nobody: the next goes at once", async () => {
    const type = await newType({ batchable: true, mode: BatchRule_Mode.LEADING });
    const { results } = await key.send.send({
      ...{ to: { userIds: [user] }, type, content: { title: "cancelled" } },
      schedule: { case: "scheduleTime", value: timestampFromDate(new Date(clock().getTime() + HOUR)) },
    });
    const cancelled = results[0]?.notificationId ?? "";
    await send(user, type, "before");
    const [opened] = (await key.batches.listBatches({ userId: user, type, state: BatchState.OPEN })).batches;
    // As where it was cancelled between the opening of the batch and its own decision.
    await key.send.cancelNotification({ id: cancelled });
    await sql`update batches set leader_id = ${cancelled} where id = ${opened?.id ?? ""}`;
    step(10 * MINUTE);
    expect((await send(user, type, "next")).status).toBe(Status.DELIVERED);
    const followers = [await send(user, type, "second"), await send(user, type, "third")];
    expect(followers.map(({ status, batchId }) => [status, batchId])).toEqual(
      followers.map(() => [Status.BATCHED, opened?.id]),
    );
    const { flushTime } = await batchOf(opened?.id ?? "");
    const leftMs = (flushTime ? timestampDate(flushTime).getTime() : 0) - clock().getTime();
    expect(leftMs).toBeGreaterThan(25 * MINUTE);
  });

  test("a window slides with each that joins, but not beyond its maximum", async () => {
    const type = await newType({
      batchable: true,
      window: { seconds: 600n },
      sliding: true,
      maxWindow: { seconds: 1500n },
    });
    const first = await send(user, type, "1");
    const opened = await batchOf(first.batchId);
    const openMs = timestampDate(opened.createTime ?? timestampFromDate(new Date(0))).getTime();
    const flushAfter = async () => {
      const { flushTime } = await batchOf(first.batchId);
      return Math.round(((flushTime ? timestampDate(flushTime).getTime() : 0) - openMs) / MINUTE);
    };
    expect(await flushAfter()).toBe(10);
    step(8 * MINUTE);
    await send(user, type, "2");
    expect(await flushAfter()).toBe(18);
    step(8 * MINUTE);
    await send(user, type, "3");
    expect(await flushAfter()).toBe(25);
  });
});

describe("while a batch is open", () => {
  test("a cancelled member is not in it, and one whose batch was delivered cannot be cancelled", async () => {
    const type = await newType({ batchable: true, maxSize: 3 });
    const [a, b] = [await send(user, type, "a"), await send(user, type, "b")];
    await key.send.cancelNotification({ id: a.notificationId });
    const c = await send(user, type, "c");
    const batch = await closed(a.batchId);
    await reached(b.notificationId, Status.DELIVERED);
    expect(batch.size).toBe(2);
    expect((await entries(user))[0]?.content?.body).toBe("b\nc");
    expect((await get(a.notificationId)).status).toBe(Status.CANCELLED);
    expect((await refusalOf(key.send.cancelNotification({ id: c.notificationId }))).reason).toBe(
      "NOTIFICATION_NOT_OPEN",
    );
  });

  test("the batch's notification can be cancelled, and its members with it, but not they alone", async () => {
    const type = await newType({ batchable: true });
    const [a, b] = [await send(user, type, "a"), await send(user, type, "b")];
    const { promise, resolve } = Promise.withResolvers<void>();
    gate.open = promise;
    onTestFinished(() => resolve());
    step(31 * MINUTE);
    const { notificationId } = await closed(a.batchId);
    expect(await get(notificationId)).toMatchObject({ status: Status.ACCEPTED, batchId: a.batchId });
    const { reason } = await refusalOf(key.send.cancelNotification({ id: a.notificationId }));
    expect(reason).toBe("NOTIFICATION_NOT_OPEN");
    expect(await key.send.cancelNotifications({ ids: [b.notificationId] })).toMatchObject({ cancelled: 0 });
    expect((await get(a.notificationId)).status).toBe(Status.BATCHED);
    await key.send.cancelNotification({ id: notificationId });
    for (const each of [a, b]) expect((await get(each.notificationId)).status).toBe(Status.CANCELLED);
    expect(await batchOf(a.batchId)).toMatchObject({ delivered: 0, failed: 2 });
  });

  test("a member that was changed so that its user's filter refuses it is left out", async () => {
    const type = await newType({ batchable: true });
    const target = { case: "type", value: type } as const;
    await key.preferences.createSubscription({
      userId: user,
      subscription: { target, filter: "data.n == 1" },
      reason: "a test",
    });
    const content = (title: string, n: number) => ({ title, data: { n } });
    const [a, b, c] = await Promise.all(["a", "b", "c"].map((it) => send(user, type, it, { content: content(it, 1) })));
    if (!a || !b || !c) throw new Error("not sent");
    expect(new Set([a.batchId, b.batchId, c.batchId]).size).toBe(1);
    await key.send.updateNotification({ id: b.notificationId, content: content("b", 2) });
    await key.send.updateNotification({ id: c.notificationId, content: content("new c", 1) });
    step(31 * MINUTE);
    expect(await closed(a.batchId)).toMatchObject({ size: 2 });
    expect(await get(b.notificationId)).toMatchObject({ status: Status.SUPPRESSED, reason: Reason.FILTERED });
    await reached(c.notificationId, Status.DELIVERED);
    expect((await entries(user))[0]?.content?.body.split("\n").sort()).toEqual(["a", "new c"]);
  });

  test("what would expire before a window has slid as far as it may goes by itself", async () => {
    const type = await newType({
      batchable: true,
      window: { seconds: 60n },
      sliding: true,
      maxWindow: { seconds: 600n },
    });
    const ttl = (seconds: bigint) => ({ expiry: { case: "ttl", value: { seconds } } }) as const;
    expect((await send(user, type, "soon", ttl(120n))).status).toBe(Status.DELIVERED);
    expect((await send(user, type, "later", ttl(700n))).status).toBe(Status.BATCHED);
  });

  test("what expires is left out and ends as EXPIRED", async () => {
    const type = await newType({ batchable: true, window: { seconds: 600n } });
    const a = await send(user, type, "a");
    const b = await send(user, type, "b");
    const expireTime = timestampFromDate(new Date(clock().getTime() + 5 * MINUTE));
    await key.send.updateNotification({ id: b.notificationId, expireTime, updateMask: { paths: ["expire_time"] } });
    step(11 * MINUTE);
    await reached(a.notificationId, Status.DELIVERED);
    expect((await entries(user)).map(({ content }) => content?.title)).toEqual(["a"]);
    expect(await get(b.notificationId)).toMatchObject({ status: Status.EXPIRED, reason: Reason.EXPIRED });
  });

  test("a member moved to a later time leaves", async () => {
    const type = await newType(both);
    const a = await send(user, type, "a");
    const scheduleTime = timestampFromDate(new Date(clock().getTime() + 24 * 60 * MINUTE));
    await key.send.updateNotification({ id: a.notificationId, scheduleTime, updateMask: { paths: ["schedule_time"] } });
    expect(await get(a.notificationId)).toMatchObject({ status: Status.SCHEDULED, batchId: "" });
    step(31 * MINUTE);
    const left = () => key.batches.listBatches({ userId: user });
    await until(left, ({ batches }) => batches.length === 0);
    expect((await refusalOf(key.batches.getBatch({ id: a.batchId }))).reason).toBe("NOT_FOUND");
  });

  test("a newer one with the same collapse key takes a member's place", async () => {
    const type = await newType({ batchable: true, maxSize: 3 });
    const a = await send(user, type, "old", { collapseKey: "k" });
    const b = await send(user, type, "new", { collapseKey: "k" });
    expect((await get(a.notificationId)).status).toBe(Status.CANCELLED);
    step(31 * MINUTE);
    await reached(b.notificationId, Status.DELIVERED);
    expect((await entries(user)).map(({ content }) => content?.title)).toEqual(["new"]);
  });

  test("a user who wants no batches gets what waits at once, and one who wants none of it gets nothing", async () => {
    const type = await newType({ batchable: true });
    const a = await send(user, type, "a");
    const b = await send(user, type, "b");
    await prefer(user, { batching: { enabled: false } });
    for (const { notificationId } of [a, b]) await reached(notificationId, Status.DELIVERED);
    expect(await batchOf(a.batchId)).toMatchObject({ state: BatchState.DISSOLVED, size: 0, notificationId: "" });
    expect((await entries(user)).map(({ content }) => content?.title).sort()).toEqual(["a", "b"]);

    await prefer(user, { batching: { enabled: true } });
    const c = await send(user, type, "c");
    expect(c.status).toBe(Status.BATCHED);
    await prefer(user, { types: { [type]: { enabled: false } } });
    expect((await reached(c.notificationId, Status.SUPPRESSED)).reason).toBe(Reason.TYPE_DISABLED);
  });

  test("a change that keeps it batched does not begin its window anew", async () => {
    const type = await newType({ batchable: true, window: { seconds: 600n } });
    const a = await send(user, type, "a");
    const before = await batchOf(a.batchId);
    step(6 * MINUTE);
    await prefer(user, { weekendsEnabled: true });
    const { batchId } = await until(
      () => get(a.notificationId),
      (it) => it.status === Status.BATCHED && it.batchId !== a.batchId && it.batchId !== "",
    );
    const after = await batchOf(batchId);
    const ms = (batch: typeof before) => (batch.flushTime ? timestampDate(batch.flushTime).getTime() : 0);
    expect(Math.abs(ms(after) - ms(before))).toBeLessThan(5000);
  });

  test("a change that decides about nothing leaves it alone", async () => {
    const { batchId } = await send(user, await newType({ batchable: true, window: { seconds: 600n } }), "a");
    const { changedFields, reconciled } = await prefer(user, { language: "de", grouping: { enabled: false } });
    expect(changedFields).toEqual(["grouping.enabled", "language"]);
    expect(reconciled).toMatchObject({ moved: 0, released: 0, rebatched: 0, unchanged: 0 });
    expect((await batchOf(batchId)).state).toBe(BatchState.OPEN);
  });

  test("the answer to a change of preferences counts what it made of members", async () => {
    const [kept, off] = [await newType({ batchable: true }), await newType({ batchable: true })];
    const a = await send(user, kept, "a");
    const b = await send(user, off, "b");
    const c = await send(user, off, "c");
    const { reconciled } = await prefer(user, { types: { [off]: { enabled: false } } });
    expect(reconciled).toMatchObject({ suppressed: 2, moved: 0, released: 0, rebatched: 1, unchanged: 0, more: false });
    for (const { notificationId } of [b, c]) expect((await get(notificationId)).status).toBe(Status.SUPPRESSED);
    await until(
      () => get(a.notificationId),
      (it) => it.status === Status.BATCHED && it.batchId !== a.batchId && it.batchId !== "",
    );
    const released = await prefer(user, { batching: { enabled: false } });
    expect(released.reconciled).toMatchObject({ suppressed: 0, released: 1, rebatched: 0 });
    await reached(a.notificationId, Status.DELIVERED);
  });

  test("the tenant's defaults take out of digests what is no longer collected", async () => {
    const type = await newType(undefined);
    await prefer(user, { language: "pt" });
    const defaults = (digest: object) =>
      key.preferences.updateDefaultPreferences({
        preferences: { digest },
        updateMask: { paths: ["digest.mode"] },
        reason: "a test",
      });
    await defaults({ mode: Digest_Mode.WEEKLY });
    const a = await send(user, type, "a");
    expect((await get(a.notificationId)).status).toBe(Status.BATCHED);
    await defaults({});
    await reached(a.notificationId, Status.DELIVERED);
  });

  test("a type that changes its rule dissolves its batches, and one that is deleted ends what is in them", async () => {
    const type = await newType({ batchable: true });
    const a = await send(user, type, "a");
    await key.types.updateType({
      type: { key: type, batching: { batchable: false } },
      updateMask: { paths: ["batching"] },
    });
    await reached(a.notificationId, Status.DELIVERED);
    const other = await newType({ batchable: true });
    const b = await send(user, other, "b");
    await key.types.deleteType({ key: other });
    expect((await reached(b.notificationId, Status.SUPPRESSED)).reason).toBe(Reason.TYPE_DELETED);
  });

  test("a type that changes how it reads keeps its batches, which close with the new wording", async () => {
    const type = await newType({ batchable: true });
    const { batchId } = await send(user, type, "a");
    await key.types.updateType({ type: { key: type, displayName: "Other", batchWording: { title: "Now {count}" } } });
    const { batchId: again } = await send(user, type, "b");
    expect(again).toBe(batchId);
    expect(await sql`select from rule_changes where tenant_id = ${node.tenant.tenantId} and type = ${type}`).toEqual(
      [],
    );
    expect((await batchOf(batchId)).state).toBe(BatchState.OPEN);
    step(31 * MINUTE);
    const { notificationId } = await closed(batchId);
    await reached(notificationId, Status.DELIVERED);
    expect((await entries(user)).map(({ content }) => content?.title)).toEqual(["Now 2"]);
  });

  test("a deleted user's batches are gone, and what was in them has ended", async () => {
    const type = await newType({ batchable: true });
    await key.users.upsertUser({ user: { id: user } });
    const a = await send(user, type, "a");
    await key.users.deleteUser({ id: user });
    expect((await get(a.notificationId)).status).toBe(Status.SUPPRESSED);
    expect((await refusalOf(key.batches.getBatch({ id: a.batchId }))).reason).toBe("NOT_FOUND");
  });
});

test("a batch that is closed before its time takes in nobody more, arrives as one, and is in the audit log", async () => {
  const type = await newType({ batchable: true });
  const members = [await send(user, type, "a"), await send(user, type, "b")];
  const id = members[0]?.batchId ?? "";
  const before = clock().getTime();
  const { batch } = await key.batches.closeBatch({ id, reason: "release tonight" });
  expect([BatchState.FULL, BatchState.CLOSED]).toContain(batch?.state);
  const due = batch?.flushTime === undefined ? 0 : timestampDate(batch.flushTime).getTime();
  expect(due >= before && due <= clock().getTime()).toBe(true);
  expect((await send(user, type, "c")).batchId).not.toBe(id);
  const { notificationId } = await closed(id);
  await reached(notificationId, Status.DELIVERED);
  expect((await entries(user)).map(({ content }) => content?.body)).toEqual(["a\nb"]);
  const again = await key.batches.closeBatch({ id });
  expect(again.batch).toMatchObject({ state: BatchState.CLOSED, notificationId });
  const { entries: audit } = await key.admin.listAuditEntries({ pageSize: 200 });
  expect(audit.filter(({ action }) => action === "batch.close")).toMatchObject([
    { target: `batch:${id}`, reason: "release tonight" },
  ]);
});

test("what was sent to come by itself joins no batch and no digest, and what may be batched joins only where its type says", async () => {
  const type = await newType({ batchable: true });
  expect((await send(user, type, "alone", { batchable: false })).status).toBe(Status.DELIVERED);
  expect((await send(user, type, "may", { batchable: true })).status).toBe(Status.BATCHED);
  expect((await send(user, await newType(undefined), "may not", { batchable: true })).status).toBe(Status.DELIVERED);
  await prefer(user, { digest: { mode: Digest_Mode.DAILY } });
  expect((await send(user, type, "alone", { batchable: false })).status).toBe(Status.DELIVERED);
  expect((await send(user, type, "in the digest")).status).toBe(Status.BATCHED);
});

test("an entry tells what it was made of, in lists and on streams", async () => {
  const type = await newType(both);
  const reader = openReader((await node.clientsFor(user)) as typeof key, {});
  await reader.next("hello");
  const members = [await send(user, type, "a"), await send(user, type, "b")];
  const { id } = await closed(members[0]?.batchId ?? "");
  const batch = { id, kind: BatchKind.BATCH, size: 2, notificationIds: members.map((each) => each.notificationId) };
  expect((await reader.next("notification")).entry?.batch).toMatchObject(batch);
  expect((await entries(user))[0]?.batch).toMatchObject(batch);
  await send(user, await newType(undefined), "by itself");
  expect((await entries(user))[0]?.batch).toBeUndefined();
});

test("a batch that cannot be closed keeps no other waiting, and its members go as themselves", async () => {
  const type = await newType({ batchable: true });
  const others = [newUser(), newUser(), newUser()];
  const [broken, sound] = [await send(user, type, "broken"), await send(user, type, "sound")];
  const fine = await Promise.all(others.map((other) => send(other, type, "a").then(() => send(other, type, "b"))));
  await sql`update notifications set content = '\\xff' where id = ${broken.notificationId}`;
  step(31 * MINUTE);
  for (const { batchId } of fine) expect(await closed(batchId)).toMatchObject({ size: 2 });
  await reached(sound.notificationId, Status.DELIVERED);
  expect(await batchOf(sound.batchId)).toMatchObject({ state: BatchState.DISSOLVED });
});

test("streams that ask for statuses are told how a batch stands", async () => {
  const type = await newType(both);
  const reader = openReader((await node.clientsFor(user)) as typeof key, { includeStatus: true });
  await reader.next("hello");
  const a = await send(user, type, "a");
  expect(await reader.next("batch")).toMatchObject({ batchId: a.batchId, state: BatchState.OPEN, size: 1 });
  await send(user, type, "b");
  expect(await reader.next("batch")).toMatchObject({ batchId: a.batchId, state: BatchState.FULL, size: 2 });
  const end = await reader.next("batch");
  const batch = await closed(a.batchId);
  expect(end).toMatchObject({ state: BatchState.CLOSED, size: 2, notificationId: batch.notificationId });
});
