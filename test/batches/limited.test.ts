import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { BatchKind, BatchState } from "#gen/posthorn/v1/batch_service_pb.ts";
import { type Notification, Reason, Status, VerdictKind } from "#gen/posthorn/v1/notification_pb.ts";
import { DigestRule } from "#gen/posthorn/v1/type_service_pb.ts";
import { platformOfFile } from "../support/platform.ts";
import { refusalOf } from "../support/refusal.ts";
import { testServices } from "../support/services.ts";
import { openReader } from "../support/stream-reader.ts";
import { until } from "../support/until.ts";
import { batching, HOUR, MINUTE } from "./setup.ts";

// Two nodes whose clock stands still until the test moves it.
let nowMs = Math.ceil(Date.now() / HOUR) * HOUR;
const clock = () => new Date(nowMs);
const services = await testServices();
const a = await platformOfFile({ services, clock, hourlyCap: true });
await platformOfFile({ services, clock, hourlyCap: true, tenant: a.tenant });
const { key } = a;
const { newType, newUser, get, send, batchOf, reached, entries, prefer } = batching(a);

/** A user who gets one notification an hour, and has had it. */
async function satisfied(timeZone = "UTC"): Promise<string> {
  nowMs = (Math.floor(nowMs / HOUR) + 1) * HOUR;
  const user = newUser();
  await prefer(user, { timeZone, hourlyCap: { maxPerHour: 1 } });
  expect((await send(user, "general", "the only one of this hour")).status).toBe(Status.DELIVERED);
  return user;
}
/** Of a batch that waits for its turn in a later hour: when that is. */
const turnOf = (id: string) =>
  until(
    () => batchOf(id).then(({ flushTime }) => (flushTime ? timestampDate(flushTime).getTime() : 0)),
    (turn) => turn > Math.floor(nowMs / HOUR) * HOUR + HOUR - 1 && turn > nowMs,
  );
const titles = async (user: string) =>
  (await entries(user)).map(({ content }) => content?.title).filter((title) => !title?.startsWith("the only one"));

const three = { batchable: true, maxSize: 3 };

describe("a batch of a type that stays out of digests waits, open, for its turn under the cap", () => {
  const filled = async (more: Parameters<typeof send>[3][] = []) => {
    const user = await satisfied();
    const type = await newType(three, { digest: DigestRule.NEVER });
    const members = [];
    for (const [n, title] of ["a", "b", "c"].entries()) members.push(await send(user, type, title, more[n]));
    const id = members[0]?.batchId ?? "";
    const turn = await turnOf(id);
    expect(await batchOf(id)).toMatchObject({ state: BatchState.FULL, size: 3 });
    return {
      user,
      type,
      id,
      turn,
      ids: members.map(({ notificationId }) => notificationId) as [string, string, string],
    };
  };

  test("and comes in it, counted once", async () => {
    const { user, turn, ids } = await filled();
    for (const id of ids) expect((await get(id)).status).toBe(Status.BATCHED);
    // Looked at before its turn, on whichever node, it keeps that.
    await key.batches.closeBatch({ id: (await get(ids[0])).batchId });
    expect(await turnOf((await get(ids[0])).batchId)).toBe(turn);
    nowMs = turn;
    for (const id of ids) await reached(id, Status.DELIVERED);
    expect(await titles(user)).toHaveLength(1);
    expect((await send(user, "general", "more")).status).toBe(Status.BATCHED);
  });

  test("without members that were cancelled, one by one or together", async () => {
    const { user, turn, ids } = await filled();
    await key.send.cancelNotification({ id: ids[1] });
    expect((await get(ids[1])).status).toBe(Status.CANCELLED);
    nowMs = turn;
    await reached(ids[0], Status.DELIVERED);
    const [entry] = await entries(user);
    expect(entry?.content?.body).toBe("a\nc");
    expect((await get(ids[1])).status).toBe(Status.CANCELLED);
    expect((await refusalOf(key.send.cancelNotification({ id: ids[2] }))).reason).toBe("NOTIFICATION_NOT_OPEN");
  });

  test("without one that has expired, and as it was changed", async () => {
    const { user, turn, ids } = await filled([{ expiry: { case: "ttl", value: { seconds: 2700n } } }]);
    await key.send.updateNotification({
      id: ids[1],
      content: { title: "changed" },
      updateMask: { paths: ["content"] },
    });
    nowMs = turn;
    await reached(ids[2], Status.DELIVERED);
    expect((await get(ids[0])).status).toBe(Status.EXPIRED);
    expect((await entries(user))[0]?.content?.body).toBe("changed\nc");
  });

  test("alone, if the others are gone, and not at all with the last of them", async () => {
    const one = await filled();
    await key.send.cancelNotifications({ ids: one.ids.slice(1) });
    nowMs = one.turn;
    await reached(one.ids[0], Status.DELIVERED);
    expect(await titles(one.user)).toEqual(["a"]);

    const none = await filled();
    expect(await key.send.cancelNotifications({ ids: none.ids })).toMatchObject({ cancelled: 3 });
    nowMs = none.turn;
    await until(
      () =>
        refusalOf(key.batches.getBatch({ id: none.id })).then(
          ({ reason }) => reason,
          () => "there",
        ),
      (reason) => reason === "NOT_FOUND",
    );
    expect(await titles(none.user)).toEqual([]);
  });

  test("unless its user is deleted", async () => {
    const { user, turn, ids } = await filled();
    await key.users.deleteUser({ id: user });
    for (const id of ids)
      expect(await get(id)).toMatchObject({ status: Status.SUPPRESSED, reason: Reason.USER_DELETED });
    nowMs = turn;
    await send(newUser(), "general", "somebody else");
    expect(await entries(user)).toEqual([]);
  });

  test("and ends at once when all of it would expire before", async () => {
    const user = await satisfied();
    const type = await newType(three, { digest: DigestRule.NEVER });
    const brief = { expiry: { case: "ttl", value: { seconds: 2700n } } } as const;
    const sent = [];
    for (const title of ["a", "b", "c"]) sent.push(await send(user, type, title, brief));
    expect(new Set(sent.map(({ status }) => status))).toEqual(new Set([Status.BATCHED]));
    for (const { notificationId } of sent)
      expect(await reached(notificationId, Status.EXPIRED)).toMatchObject({ reason: Reason.HOURLY_CAP });
  });
});

describe("a batch that the cap has no room for goes into the digest of the next full hour", () => {
  /** Of members that have gone into a digest: which. */
  const digestOf = async (ids: readonly string[], count = ids.length) => {
    const all = await until(
      () => Promise.all(ids.map(get)),
      (some) => some.every(({ status, reason }) => status !== Status.BATCHED || reason === Reason.HOURLY_CAP),
    );
    const digests = new Set(all.flatMap(({ status, batchId }) => (status === Status.BATCHED ? [batchId] : [])));
    expect(digests.size).toBe(1);
    const digest = await batchOf([...digests][0] ?? "");
    expect(digest).toMatchObject({ kind: BatchKind.DIGEST, state: BatchState.OPEN, size: count });
    const nextHour = (Math.floor(nowMs / HOUR) + 1) * HOUR;
    expect(digest.flushTime && timestampDate(digest.flushTime).getTime()).toBe(nextHour);
    return digest.id;
  };
  const filled = async (user: string, type: string, more: Parameters<typeof send>[3][] = []) => {
    const members = [];
    for (const [n, title] of ["a", "b", "c"].entries()) members.push(await send(user, type, title, more[n]));
    return { id: members[0]?.batchId ?? "", ids: members.map(({ notificationId }) => notificationId) };
  };

  test("with all that the cap refuses, and says of each member why", async () => {
    const user = await satisfied();
    const [type, another] = [await newType(three), await newType(three)];
    const single = await send(user, "general", "single");
    const one = await filled(user, type);
    const two = await filled(user, another);
    const ids = [single.notificationId, ...one.ids, ...two.ids];
    const digest = await digestOf(ids);
    expect(digest).toBe(single.batchId);
    for (const { id } of [one, two]) expect(await batchOf(id)).toMatchObject({ state: BatchState.DISSOLVED, size: 0 });
    const { notification, timeline } = await key.send.getNotification({ id: one.ids[0] ?? "" });
    const told = {
      ...{ reason: Reason.HOURLY_CAP, verdicts: [{ kind: VerdictKind.BATCH, batchId: digest }] },
      rateLimit: { window: Reason.HOURLY_CAP, usage: 1, limit: 1, maxPerHour: 1 },
    };
    expect(notification).toMatchObject({ ...told, batchId: digest });
    expect(timeline.at(-1)).toMatchObject({ ...told, status: Status.BATCHED });
    const { batches } = await key.batches.listBatches({ userId: user, state: BatchState.OPEN });
    expect(batches).toHaveLength(1);

    // Until then they can be cancelled and changed.
    await key.send.cancelNotification({ id: two.ids[2] ?? "" });
    nowMs = (Math.floor(nowMs / HOUR) + 1) * HOUR;
    await reached(single.notificationId, Status.DELIVERED);
    const others = ids.slice(0, -1);
    expect((await Promise.all(others.map(get))).map(({ status }) => status)).toEqual(
      others.map(() => Status.DELIVERED),
    );
    expect((await get(two.ids[2] ?? "")).status).toBe(Status.CANCELLED);
    expect(await titles(user)).toEqual(["6 notifications"]);
  });

  test("whether it is full, its window has ended, one is left of it, or it goes past the limits of the platform", async () => {
    const user = await satisfied();
    const type = await newType(three);
    const alone = await send(user, type, "alone");
    nowMs += 31 * MINUTE;
    const digest = await digestOf([alone.notificationId]);
    const past = await filled(user, type, Array(3).fill({ bypassRateLimit: true }));
    expect(await digestOf([alone.notificationId, ...past.ids])).toBe(digest);
    const asked = await send(user, type, "asked for");
    await key.batches.closeBatch({ id: asked.batchId });
    expect(await digestOf([alone.notificationId, asked.notificationId, ...past.ids])).toBe(digest);
    nowMs = (Math.floor(nowMs / HOUR) + 1) * HOUR;
    await reached(alone.notificationId, Status.DELIVERED);
    expect(await titles(user)).toEqual(["5 notifications"]);
  });

  test("without what would expire before, and is forgotten with the last", async () => {
    const user = await satisfied();
    const type = await newType(three);
    const brief = { expiry: { case: "ttl", value: { seconds: 2700n } } } as const;
    const some = await filled(user, type, [brief]);
    await digestOf(some.ids, 2);
    const [vain = ""] = some.ids;
    expect(await get(vain)).toMatchObject({ status: Status.EXPIRED, reason: Reason.HOURLY_CAP });
    const { timeline } = await key.send.getNotification({ id: vain });
    expect(timeline.filter(({ status }) => status === Status.EXPIRED)).toMatchObject([
      { rateLimit: { window: Reason.HOURLY_CAP, maxPerHour: 1 } },
    ]);
    const none = await filled(user, type, [brief, brief, brief]);
    for (const id of none.ids) expect(await reached(id, Status.EXPIRED)).toMatchObject({ reason: Reason.HOURLY_CAP });
    expect((await refusalOf(key.batches.getBatch({ id: none.id }))).reason).toBe("NOT_FOUND");
    await digestOf(some.ids, 2);
  });

  test("but not a reminder that would come too late with it, which passes the cap", async () => {
    const user = await satisfied();
    const type = await newType({ batchable: true, maxSize: 2, window: { seconds: 300n } });
    const remind = async (name: string, leftMs: number) => {
      const time = timestampFromDate(new Date(nowMs + leftMs));
      const offset = { seconds: BigInt(leftMs / 1000 - 60) };
      const { deadline } = await key.schedules.upsertDeadline({
        deadline: {
          userId: user,
          key: name,
          type,
          content: { title: name },
          time,
          reminderOffsets: { offsets: [offset] },
        },
      });
      return deadline?.reminders[0]?.notificationId ?? "";
    };
    const [urgent, easy] = [await remind("urgent", 80 * MINUTE), await remind("easy", 30 * HOUR)];
    nowMs += MINUTE;
    await reached(urgent, Status.DELIVERED);
    await digestOf([easy]);
    expect(await titles(user)).toEqual(["urgent"]);
  });

  test("and its user's streams are told of the batch, the digest and the members", async () => {
    const user = await satisfied();
    const type = await newType({ batchable: true, maxSize: 2 });
    await using app = openReader(await a.clientsFor(user), { includeStatus: true });
    await app.next("caughtUp");
    const first = await send(user, type, "a");
    const second = await send(user, type, "b");
    const digest = await digestOf([first.notificationId, second.notificationId]);
    const progress = await until(
      async () => app.all("batch").map(({ batchId, state, size }) => [batchId, state, size]),
      ({ length }) => length === 4,
    );
    expect(progress.slice(2)).toEqual([
      [first.batchId, BatchState.DISSOLVED, 0],
      [digest, BatchState.OPEN, 2],
    ]);
    expect(app.all("status").filter(({ reason }) => reason === Reason.HOURLY_CAP)).toHaveLength(2);
  });
});

describe("a digest that the cap has collected waits, open, for its turn", () => {
  /** In a zone where the digest's hour ends before the one that is full. */
  const collected = async () => {
    const user = await satisfied("Asia/Kolkata");
    const types = [await newType(undefined), await newType(undefined)] as const;
    const [a, b] = [await send(user, types[0], "a"), await send(user, types[1], "b")];
    const deadline = {
      ...{ userId: user, key: "task", type: types[0], content: { title: "reminder" } },
      time: timestampFromDate(new Date(nowMs + 26 * HOUR)),
      reminderOffsets: { offsets: [{ seconds: BigInt(26 * 3600 - 60) }] },
    };
    const made = await key.schedules.upsertDeadline({ deadline });
    nowMs += MINUTE;
    const reminder = await reached(made.deadline?.reminders[0]?.notificationId ?? "", Status.BATCHED);
    expect(new Set([b.batchId, reminder.batchId])).toEqual(new Set([a.batchId]));
    nowMs += 30 * MINUTE;
    const turn = await turnOf(a.batchId);
    const waiting = { user, types, turn, deadline, batchId: a.batchId };
    return { ...waiting, a: a.notificationId, b: b.notificationId, reminder: reminder.id };
  };

  test("without what its user switches off meanwhile", async () => {
    const { user, types, a, b, reminder, batchId } = await collected();
    const { reconciled } = await prefer(user, { types: { [types[1]]: { enabled: false } } });
    expect(reconciled).toMatchObject({ suppressed: 1 });
    expect(await get(b)).toMatchObject({ status: Status.SUPPRESSED, reason: Reason.TYPE_DISABLED });
    expect(await batchOf(batchId)).toMatchObject({ state: BatchState.DISSOLVED });
    // The turn of the digest that is no more stays empty.
    const isAgain = ({ batchId: now }: Notification) => now !== "" && now !== batchId;
    const [next] = await Promise.all([a, reminder].map((id) => until(() => get(id), isAgain)));
    nowMs += HOUR;
    nowMs = await turnOf(next?.batchId ?? "");
    for (const id of [a, reminder]) await reached(id, Status.DELIVERED);
    expect(await titles(user)).toEqual(["2 notifications"]);
  });

  test("without the reminder of a deadline that is deleted", async () => {
    const { user, turn, a, b, reminder, deadline } = await collected();
    expect(await key.schedules.deleteDeadline({ userId: user, key: deadline.key })).toMatchObject({ cancelled: 1 });
    expect((await get(reminder)).status).toBe(Status.CANCELLED);
    nowMs = turn;
    for (const id of [a, b]) await reached(id, Status.DELIVERED);
    expect(await titles(user)).toEqual(["2 notifications"]);
    expect((await entries(user))[0]?.content?.body).not.toContain("reminder");
  });

  test("without the reminder of a deadline that is moved, which comes by the new time", async () => {
    const { user, turn, a, b, reminder, deadline } = await collected();
    const later = timestampFromDate(new Date(nowMs + 50 * HOUR));
    const moved = await key.schedules.upsertDeadline({ deadline: { ...deadline, time: later } });
    expect(moved.deadline?.reminders.map(({ notificationId }) => notificationId)).toHaveLength(1);
    nowMs = turn;
    for (const id of [a, b]) await reached(id, Status.DELIVERED);
    expect(await titles(user)).toEqual(["2 notifications"]);
    expect([Status.SCHEDULED, Status.CANCELLED]).toContain((await get(reminder)).status);
  });

  test("without those of a type that is deleted", async () => {
    const { user, types, turn, a, b, reminder } = await collected();
    await key.types.deleteType({ key: types[1] });
    expect(await get(b)).toMatchObject({ status: Status.SUPPRESSED, reason: Reason.TYPE_DELETED });
    nowMs = turn;
    for (const id of [a, reminder]) await reached(id, Status.DELIVERED);
    expect(await titles(user)).toEqual(["2 notifications"]);
  });
});
