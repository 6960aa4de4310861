import { timestampDate } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { BatchKind, BatchState } from "#gen/posthorn/v1/batch_service_pb.ts";
import { Priority, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode as Mode } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { DigestRule } from "#gen/posthorn/v1/type_service_pb.ts";
import { platformOfFile } from "../support/platform.ts";
import { until } from "../support/until.ts";
import { batching, HOUR, MINUTE, steppedClock } from "./setup.ts";

const { clock, step } = steppedClock();
const node = await platformOfFile({ clock });
const { key } = node;
const { newType, newUser, get, send, batchOf, closed, reached, entries, prefer } = batching(node);
const flushOf = async (id: string) => {
  const { flushTime } = await batchOf(id);
  return flushTime === undefined ? undefined : timestampDate(flushTime);
};

test("a digest comes at the user's time, once, with everything in it by category", async () => {
  const user = newUser();
  const [tasks, news] = [
    await newType(undefined, { category: "tasks" }),
    await newType({ batchable: true }, { category: "news" }),
  ];
  await prefer(user, { timeZone: "Asia/Kolkata", digest: { mode: Mode.DAILY, time: "09:30" } });
  const first = await send(user, tasks, "Milk");
  expect(first).toMatchObject({ status: Status.BATCHED });
  const members = [
    first,
    await send(user, news, "Paper"),
    await send(user, tasks, "Bread", { priority: Priority.HIGH }),
  ];
  expect(new Set(members.map(({ batchId }) => batchId)).size).toBe(1);
  expect(await batchOf(first.batchId)).toMatchObject({ kind: BatchKind.DIGEST, type: "digest", size: 3 });
  expect((await flushOf(first.batchId))?.toISOString().slice(11)).toBe("04:00:00.000Z");
  expect((await send(user, tasks, "Fire", { priority: Priority.CRITICAL })).status).toBe(Status.DELIVERED);

  step(24 * HOUR);
  const { notificationId } = await closed(first.batchId);
  for (const { notificationId: id } of members) await reached(id, Status.DELIVERED);
  const found = await until(
    () => entries(user),
    ({ length }) => length === 2,
  );
  expect(found.find((entry) => entry.notificationId === notificationId)).toMatchObject({
    type: "digest",
    category: "digest",
    priority: Priority.HIGH,
    content: {
      title: "3 notifications",
      body: "tasks (2)\n– Milk\n– Bread\n\nnews (1)\n– Paper",
      data: {
        batch: {
          kind: "digest",
          count: 3,
          categories: [
            { category: "tasks", count: 2 },
            { category: "news", count: 1 },
          ],
        },
      },
    },
  });
});

test("a digest of one is sent as itself, and what expires before it is due ends at once", async () => {
  const user = newUser();
  const type = await newType(undefined);
  await prefer(user, { digest: { mode: Mode.HOURLY } });
  const only = await send(user, type, "Alone");
  const vain = await send(user, type, "Vain", { expiry: { case: "ttl", value: { seconds: 1n } } });
  expect(vain.status).toBe(Status.EXPIRED);
  expect((await get(vain.notificationId)).reason).toBe(Reason.DIGEST);
  step(HOUR);
  await reached(only.notificationId, Status.DELIVERED);
  expect((await entries(user)).map(({ content, type }) => [content?.title, type])).toEqual([["Alone", type]]);
});

test("what is sent in quiet hours over the digest's time comes with that digest, when they end", async () => {
  const user = newUser();
  const type = await newType(undefined);
  const hourIn = (hours: number) => new Date(clock().getTime() + hours * HOUR).toISOString().slice(11, 16);
  const quietHours = { enabled: true, startTime: hourIn(1), endTime: hourIn(6) };
  await prefer(user, { timeZone: "UTC", quietHours, digest: { mode: Mode.DAILY, time: hourIn(4) } });
  const before = await send(user, type, "before");
  step(2 * HOUR);
  const request = { to: { userIds: [user] }, type, content: { title: "in them" } };
  const foreseen = await key.send.previewSend({ request });
  const within = await send(user, type, "in them");
  expect([within.status, within.batchId]).toEqual([Status.BATCHED, before.batchId]);
  expect(foreseen.timeline.at(-1)?.entry?.verdicts[0]).toMatchObject({ batchId: before.batchId });
  expect((await flushOf(before.batchId))?.toISOString().slice(11, 16)).toBe(quietHours.endTime);
  step(3 * HOUR);
  // Its own time is over.
  expect(await send(user, type, "late")).toMatchObject({ status: Status.BATCHED, batchId: before.batchId });
  const vain = await send(user, type, "vain", { expiry: { case: "ttl", value: { seconds: 60n } } });
  expect(vain).toMatchObject({ status: Status.EXPIRED });
  step(HOUR);
  await closed(before.batchId);
  const [entry] = await until(
    () => entries(user),
    ({ length }) => length > 0,
  );
  expect(entry?.content?.title).toBe("3 notifications");
});

test("types and categories may wait for a digest or not, as type and user say", async () => {
  const user = newUser();
  const never = await newType(undefined, { digest: DigestRule.NEVER });
  const always = await newType(undefined, { digest: DigestRule.ALWAYS, category: "reports" });
  const plain = await newType(undefined);
  expect((await send(user, always, "report")).status).toBe(Status.BATCHED);
  expect((await send(user, plain, "plain")).status).toBe(Status.DELIVERED);
  await prefer(user, { digest: { mode: Mode.WEEKLY }, types: { [plain]: { digestMode: Mode.IMMEDIATE } } });
  expect((await send(user, never, "code")).status).toBe(Status.DELIVERED);
  expect((await send(user, plain, "plain")).status).toBe(Status.DELIVERED);
  const weekly = await send(user, always, "weekly");
  // Monday, by default.
  expect((await flushOf(weekly.batchId))?.getUTCDay()).toBe(1);
});

test("what the user no longer wants when the digest closes is left out, and a change of mode moves the rest", async () => {
  const user = newUser();
  const [wanted, unwanted] = [await newType(undefined), await newType(undefined)];
  await prefer(user, { digest: { mode: Mode.WEEKLY } });
  const a = await send(user, wanted, "a");
  const b = await send(user, unwanted, "b");
  await prefer(user, { types: { [unwanted]: { enabled: false } } });
  expect((await reached(b.notificationId, Status.SUPPRESSED)).reason).toBe(Reason.TYPE_DISABLED);
  const again = await until(
    () => get(a.notificationId),
    ({ status, batchId }) => status === Status.BATCHED && batchId !== a.batchId && batchId !== "",
  );
  expect((await batchOf(a.batchId)).state).toBe(BatchState.DISSOLVED);
  expect(await flushOf(again.batchId)).toEqual(await flushOf(a.batchId));
  await prefer(user, { digest: { mode: Mode.IMMEDIATE } });
  await reached(a.notificationId, Status.DELIVERED);
});

test("the tenant's defaults reach what waits too, and a type that must not wait leaves its digests", async () => {
  const type = await newType(undefined);
  const users = [newUser(), newUser()];
  const sent = [];
  await key.preferences.updateDefaultPreferences({ reason: "a test", preferences: { digest: { mode: Mode.DAILY } } });
  for (const user of users) sent.push(await send(user, type, "a"), await send(user, type, "b"));
  expect(sent.map(({ status }) => status)).toEqual(sent.map(() => Status.BATCHED));
  await key.types.updateType({ type: { key: type, digest: DigestRule.NEVER }, updateMask: { paths: ["digest"] } });
  for (const { notificationId } of sent) await reached(notificationId, Status.DELIVERED);
  const other = await newType(undefined);
  const waiting = await send(users[0] ?? "", other, "c");
  expect(waiting.status).toBe(Status.BATCHED);
  await key.preferences.updateDefaultPreferences({
    reason: "a test",
    preferences: { digest: { mode: Mode.IMMEDIATE } },
  });
  await reached(waiting.notificationId, Status.DELIVERED);
});

test("more than a digest holds comes in a second one at the same time", async () => {
  const user = newUser();
  const type = await newType(undefined);
  await prefer(user, { digest: { mode: Mode.DAILY } });
  const items = Array.from({ length: 520 }, (_, n) => ({ to: { userIds: [user] }, type, content: { title: `${n}` } }));
  await key.send.sendBatch({ items });
  const batches = await until(
    async () => (await key.batches.listBatches({ userId: user })).batches,
    (all) => all.reduce((sum, { size }) => sum + size, 0) === 520,
  );
  expect(batches.map(({ size, state }) => [size, state]).sort()).toEqual([
    [20, BatchState.OPEN],
    [500, BatchState.FULL],
  ]);
  expect(batches[0]?.flushTime).toEqual(batches[1]?.flushTime);
  step(24 * HOUR + MINUTE);
  const found = await until(
    () => entries(user),
    ({ length }) => length === 2,
  );
  expect(found.map(({ content }) => content?.title).sort()).toEqual(["20 notifications", "500 notifications"]);
  const { batches: after } = await key.batches.listBatches({ userId: user });
  expect(after.map(({ delivered }) => delivered).sort()).toEqual([20, 500]);
});

describe("due in quiet hours", () => {
  /** From `from` to `to` of the wall clock in UTC, in ms from now. */
  const between = (from: number, to: number) => {
    const [startTime, endTime] = [from, to].map((ms) => new Date(clock().getTime() + ms).toISOString().slice(11, 16));
    return { startTime, endTime };
  };

  test("a digest stays open until their end, and comes with what is still wanted then", async () => {
    step(HOUR - (clock().getTime() % HOUR) + 10 * MINUTE);
    const user = newUser();
    const [wanted, unwanted] = [await newType(undefined), await newType(undefined)];
    const quietHours = { enabled: true, ...between(20 * MINUTE, 120 * MINUTE) };
    await prefer(user, { timeZone: "UTC", digest: { mode: Mode.HOURLY }, quietHours });
    const awake = newUser();
    await prefer(awake, { timeZone: "UTC", digest: { mode: Mode.HOURLY } });
    const elsewhere = await send(awake, wanted, "elsewhere");
    const sent = [await send(user, wanted, "a"), await send(user, wanted, "b")];
    const cancelled = await send(user, wanted, "cancelled");
    const expiring = await send(user, wanted, "expiring", { expiry: { case: "ttl", value: { seconds: 5400n } } });
    const changed = await send(user, wanted, "before");
    const off = await send(user, unwanted, "off");
    // By its time alone it would have come in time.
    expect(expiring.status).toBe(Status.EXPIRED);
    const all = [...sent, cancelled, changed, off];
    expect(new Set(all.map(({ batchId }) => batchId)).size).toBe(1);
    step(55 * MINUTE);
    // A worker has been by: another user's digest of the same time has come.
    await reached(elsewhere.notificationId, Status.DELIVERED);
    const open = await batchOf(off.batchId);
    expect(open).toMatchObject({ state: BatchState.OPEN, size: 5 });
    expect(open.flushTime && timestampDate(open.flushTime).toISOString().slice(11, 16)).toBe(quietHours.endTime);
    for (const { notificationId } of all) expect((await get(notificationId)).status).toBe(Status.BATCHED);
    await key.send.cancelNotification({ id: cancelled.notificationId });
    await key.send.updateNotification({ id: changed.notificationId, content: { title: "after" } });
    // The type of one is switched off for the tenant, which leaves digests as they are.
    await key.types.updateType({ type: { key: unwanted, optIn: true }, updateMask: { paths: ["opt_in"] } });

    step(66 * MINUTE);
    for (const { notificationId } of [...sent, changed]) await reached(notificationId, Status.DELIVERED);
    const [entry, ...others] = await entries(user);
    expect(others).toEqual([]);
    expect(entry?.content).toMatchObject({ title: "3 notifications" });
    expect(entry?.content?.body.split("\n").slice(1).sort()).toEqual(["– a", "– after", "– b"]);
    expect((await get(cancelled.notificationId)).status).toBe(Status.CANCELLED);
    expect((await get(off.notificationId)).status).toBe(Status.SUPPRESSED);
  });

  test("a digest that a change of preferences has dissolved comes together at their end all the same", async () => {
    step(HOUR - (clock().getTime() % HOUR) + 10 * MINUTE);
    const user = newUser();
    const [wanted, unwanted] = [await newType(undefined), await newType(undefined)];
    const quietHours = { enabled: true, ...between(20 * MINUTE, 120 * MINUTE) };
    const { startTime: time } = between(30 * MINUTE, 0);
    await prefer(user, { timeZone: "UTC", digest: { mode: Mode.DAILY, time }, quietHours });
    const sent = [await send(user, wanted, "a"), await send(user, wanted, "b")];
    const off = await send(user, unwanted, "off");
    step(35 * MINUTE);
    await prefer(user, { types: { [unwanted]: { enabled: false } } });
    expect((await reached(off.notificationId, Status.SUPPRESSED)).reason).toBe(Reason.TYPE_DISABLED);
    for (const { notificationId } of sent) {
      const again = await until(
        () => get(notificationId),
        ({ status, batchId }) => status === Status.BATCHED && batchId !== off.batchId && batchId !== "",
      );
      expect((await flushOf(again.batchId))?.toISOString().slice(11, 16)).toBe(quietHours.endTime);
    }
    step(86 * MINUTE);
    for (const { notificationId } of sent) await reached(notificationId, Status.DELIVERED);
    expect((await entries(user)).map(({ content }) => content?.title)).toEqual(["2 notifications"]);
  });

  test("a batch that is full waits for their end, and who comes meanwhile opens another", async () => {
    const user = newUser();
    const type = await newType({ batchable: true, maxSize: 2 });
    const { startTime, endTime } = between(-60 * MINUTE, 60 * MINUTE);
    const dayOfWeek = new Date(clock().getTime() - HOUR).getUTCDay();
    const period = { dayOfWeek, startTime, endTime, allowEmergencyContacts: true };
    await prefer(user, {
      timeZone: "UTC",
      doNotDisturb: { enabled: true, periods: [period] },
      emergencyContacts: { enabled: true, userIds: ["mum", "dad"] },
    });
    // Each may disturb; what two have sent is from neither.
    const [a, b] = [await send(user, type, "a", { senderId: "mum" }), await send(user, type, "b", { senderId: "dad" })];
    const full = await until(
      () => batchOf(a.batchId),
      ({ flushTime }) => flushTime !== undefined && timestampDate(flushTime) > clock(),
    );
    expect(full).toMatchObject({ state: BatchState.FULL, size: 2 });
    expect(full.flushTime && timestampDate(full.flushTime).toISOString().slice(11, 16)).toBe(endTime);
    const c = await send(user, type, "c", { senderId: "mum" });
    expect(c).toMatchObject({ status: Status.BATCHED });
    expect([b.batchId, c.batchId === a.batchId]).toEqual([a.batchId, false]);
    step(61 * MINUTE);
    for (const { notificationId } of [a, b, c]) await reached(notificationId, Status.DELIVERED);
    expect((await entries(user)).map(({ content }) => content?.body || content?.title).sort()).toEqual(["a\nb", "c"]);
  });
});
