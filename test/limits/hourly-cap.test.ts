import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { BatchKind, BatchState } from "#gen/posthorn/v1/batch_service_pb.ts";
import { Priority, Reason, Status, VerdictKind } from "#gen/posthorn/v1/notification_pb.ts";
import { PreferenceLevel as Level } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { BatchRule_Mode, DigestRule } from "#gen/posthorn/v1/type_service_pb.ts";
import { batching, HOUR, MINUTE } from "../batches/setup.ts";
import { platformOfFile, type TestPlatform } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

// Two nodes whose clock stands still until the test moves it, and users whose cap is the one that is built in.
let nowMs = Math.ceil(Date.now() / HOUR) * HOUR;
const clock = () => new Date(nowMs);
const services = await testServices();
const a = await platformOfFile({ services, clock, hourlyCap: true });
const b = await platformOfFile({ services, clock, hourlyCap: true, tenant: a.tenant });
const { key } = a;
const { newType, newUser, get, timeline, send, batchOf, closed, reached, entries, prefer } = batching(a);
const nextHour = () => {
  nowMs = (Math.floor(nowMs / HOUR) + 1) * HOUR;
};
const notificationsOf = async (userId: string) =>
  (await key.send.listNotifications({ filter: { userId }, pageSize: 200 })).notifications;
const many = (userId: string, status: Status) =>
  notificationsOf(userId).then((all) => all.filter((each) => each.status === status).length);
const decided = (userId: string) =>
  until(
    () => notificationsOf(userId),
    (all) => all.every(({ status }) => status !== Status.ACCEPTED),
  );
const fill = async (userId: string, count = 10) => {
  const items = Array.from({ length: count }, (_, n) => ({ to: { userIds: [userId] }, content: { title: `${n}` } }));
  await key.send.sendBatch({ items });
  await until(
    () => many(userId, Status.DELIVERED),
    (delivered) => delivered === count,
  );
};

test("ten come in an hour, from whomever and of whatever type; the eleventh goes into a digest and says why", async () => {
  nextHour();
  const user = newUser();
  await prefer(user, { timeZone: "Asia/Kolkata" });
  const types = [await newType(undefined, { category: "tasks" }), await newType(undefined, { category: "news" })];
  for (let n = 0; n < 10; n++) {
    const { status } = await send(user, types[n % 2] ?? "", `${n}`, { senderId: `sender-${n}` });
    expect(status).toBe(Status.DELIVERED);
  }
  nowMs += 7 * MINUTE;
  const eleventh = await send(user, types[0] ?? "", "eleventh", { senderId: "another" });
  expect(eleventh).toMatchObject({
    status: Status.BATCHED,
    verdicts: [{ kind: VerdictKind.BATCH, reason: Reason.HOURLY_CAP, batchId: eleventh.batchId }],
    rateLimit: { window: Reason.HOURLY_CAP, usage: 10, limit: 10, maxPerHour: 10 },
  });
  const end = Math.ceil(nowMs / HOUR) * HOUR;
  // The next full hour there is half an hour before the next one here.
  const due = new Date(end - 30 * MINUTE);
  const batch = await batchOf(eleventh.batchId);
  expect(batch.kind).toBe(BatchKind.DIGEST);
  expect(batch.flushTime && timestampDate(batch.flushTime)).toEqual(due);
  const found = await get(eleventh.notificationId);
  expect(found).toMatchObject({ reason: Reason.HOURLY_CAP, rateLimit: { usage: 10, limit: 10, maxPerHour: 10 } });
  expect(found.rateLimit?.resetTime && timestampDate(found.rateLimit.resetTime)).toEqual(new Date(end));
  expect((await timeline(eleventh.notificationId)).at(-1)).toMatchObject({
    status: Status.BATCHED,
    reason: Reason.HOURLY_CAP,
    rateLimit: { window: Reason.HOURLY_CAP, retryAfter: { seconds: BigInt(23 * 60) } },
  });

  // CRITICAL passes; what passes the platform's limits does not pass the user's own.
  const critical = await send(user, types[0] ?? "", "fire", { priority: Priority.CRITICAL });
  expect(critical.status).toBe(Status.DELIVERED);
  const bypassing = await send(user, types[1] ?? "", "ad", { bypassRateLimit: true });
  expect(bypassing).toMatchObject({ status: Status.BATCHED, batchId: eleventh.batchId });
  const vain = await send(user, types[0] ?? "", "vain", { expiry: { case: "ttl", value: { seconds: 60n } } });
  expect(vain).toMatchObject({ status: Status.EXPIRED, verdicts: [{ reason: Reason.HOURLY_CAP }] });

  // The digest is due in the hour that is full, and is put into no other: it stays open for its turn in the next.
  nowMs = due.getTime();
  const turn = await until(
    () => batchOf(eleventh.batchId).then(({ flushTime }) => (flushTime ? timestampDate(flushTime).getTime() : 0)),
    (flush) => flush > nowMs,
  );
  expect(turn - end).toBeGreaterThanOrEqual(0);
  expect(turn - end).toBeLessThan(10_000);
  expect((await get(eleventh.notificationId)).status).toBe(Status.BATCHED);
  nowMs = turn;
  const { notificationId } = await closed(eleventh.batchId);
  await reached(notificationId, Status.DELIVERED);
  await reached(eleventh.notificationId, Status.DELIVERED);
  expect((await entries(user)).map(({ content }) => content?.title)).toContain("2 notifications");
  // It counts once.
  await fill(newUser(), 1);
  for (let n = 0; n < 9; n++) expect((await send(user, types[0] ?? "", `${n}`)).status).toBe(Status.DELIVERED);
  expect((await send(user, types[0] ?? "", "more")).status).toBe(Status.BATCHED);
});

test("however many nodes send at once, no more than the cap come in an hour", async () => {
  nextHour();
  const users = [newUser(), newUser()];
  const types = [await newType(undefined), await newType({ batchable: false }), await newType(undefined)];
  const priorities = [Priority.LOW, Priority.NORMAL, Priority.HIGH];
  const flood = () =>
    Promise.all(
      Array.from({ length: 60 }, (_, n) => {
        const node: TestPlatform = n % 2 === 0 ? a : b;
        const { key } = node;
        return key.send.send({
          to: { userIds: [users[n % 4 < 2 ? 0 : 1] ?? ""] },
          type: types[n % 3] ?? "",
          priority: priorities[(n >> 1) % 3] ?? 0,
          senderId: `sender-${n}`,
          content: { title: `${n}` },
        });
      }),
    );
  await flood();
  for (const user of users) {
    await decided(user);
    expect([await many(user, Status.DELIVERED), await many(user, Status.BATCHED)]).toEqual([10, 20]);
  }
  const before = nowMs;
  nextHour();
  for (const user of users) {
    await until(
      () => entries(user),
      ({ length }) => length === 11,
    );
    expect(await many(user, Status.BATCHED)).toBe(0);
  }
  await flood();
  for (const user of users) {
    await decided(user);
    // The digest was the first of this hour.
    expect(await many(user, Status.BATCHED)).toBe(21);
    const arrived = (await entries(user)).map(({ arriveTime }) => arriveTime && timestampDate(arriveTime).getTime());
    expect(arrived.filter((at) => at === before)).toHaveLength(10);
    expect(arrived).toHaveLength(20);
  }
});

test("what is worth little has its share, and of what is decided together the most worth comes first", async () => {
  nextHour();
  const user = newUser();
  const little = await newType(undefined, { value: 1, urgency: 2 });
  const much = await newType(undefined, { value: 5, urgency: 5 });
  expect((await key.types.getType({ key: little })).type).toMatchObject({ value: 1, urgency: 2 });
  for (let n = 0; n < 5; n++) expect((await send(user, little, `${n}`)).status).toBe(Status.DELIVERED);
  const sixth = await send(user, little, "sixth");
  expect(sixth).toMatchObject({ status: Status.BATCHED, rateLimit: { usage: 5, limit: 5, maxPerHour: 10 } });
  for (let n = 0; n < 4; n++) expect((await send(user, much, `${n}`)).status).toBe(Status.DELIVERED);

  const other = newUser();
  const items = [little, little, "general", "general", much, much, little].map((type, n) => ({
    to: { userIds: [other] },
    type,
    content: { title: `${n}` },
  }));
  await prefer(other, { hourlyCap: { maxPerHour: 4 } });
  await key.send.sendBatch({ items });
  const all = await decided(other);
  const delivered = all.filter(({ status }) => status === Status.DELIVERED).map(({ content }) => content?.title);
  expect(delivered.sort()).toEqual(["2", "3", "4", "5"]);

  // What a type is worth counts for what waits too: it asks anew.
  await key.types.updateType({ type: { key: little, value: 4, urgency: 4 } });
  await reached(sixth.notificationId, Status.DELIVERED);
  expect((await send(user, much, "eleventh")).status).toBe(Status.BATCHED);
});

test("what its type keeps out of digests is held, and has its turn in the next hour that has room", async () => {
  nextHour();
  const user = newUser();
  const code = await newType(undefined, { digest: DigestRule.NEVER });
  await prefer(user, { hourlyCap: { maxPerHour: 2 } });
  await fill(user, 2);
  const codes = [];
  for (let n = 0; n < 3; n++) codes.push(await send(user, code, `${n}`));
  for (const { status, verdicts } of codes) {
    expect(status).toBe(Status.HELD);
    expect(verdicts).toMatchObject([{ kind: VerdictKind.HOLD, reason: Reason.HOURLY_CAP }]);
  }
  const vain = await send(user, code, "vain", { expiry: { case: "ttl", value: { seconds: 60n } } });
  expect(vain).toMatchObject({
    status: Status.EXPIRED,
    verdicts: [{ kind: VerdictKind.HOLD, reason: Reason.HOURLY_CAP }],
  });
  expect((await timeline(vain.notificationId)).at(-1)).toMatchObject({
    status: Status.EXPIRED,
    reason: Reason.HOURLY_CAP,
    rateLimit: { window: Reason.HOURLY_CAP, usage: 2, limit: 2, maxPerHour: 2 },
  });
  const turns = codes.map(({ estimatedDeliveryTime: at }) => (at ? timestampDate(at).getTime() : 0));
  expect(turns.map((turn) => Math.floor((turn - nowMs) / HOUR))).toEqual([1, 1, 2]);
  expect(turns).toEqual(turns.toSorted((x, y) => x - y));
  const [first, second, third] = codes.map(({ notificationId }) => notificationId);

  // A change that leaves the cap alone leaves them their turns.
  await prefer(user, { types: { other: { enabled: false } } });
  const kept = await until(
    () => get(first ?? ""),
    ({ status, attempts }) => status === Status.HELD && attempts > 1,
  );
  expect(kept.holdTime && timestampDate(kept.holdTime).getTime()).toBe(turns[0]);

  // Their turns come, and newcomers find the hour used.
  nowMs = turns[1] ?? 0;
  for (const id of [first, second]) await reached(id ?? "", Status.DELIVERED);
  const late = await send(user, "general", "late");
  expect(late.status).toBe(Status.BATCHED);

  // With more room the third comes at once.
  await prefer(user, { hourlyCap: { maxPerHour: 3 } });
  await until(
    () => many(user, Status.DELIVERED),
    (delivered) => delivered === 5,
  );
  await prefer(user, { hourlyCap: { enabled: false } });
  for (const id of [third, late.notificationId]) await reached(id ?? "", Status.DELIVERED);
});

test("a reminder that would come too late for its deadline passes, and is counted", async () => {
  nextHour();
  const user = newUser();
  await prefer(user, { hourlyCap: { maxPerHour: 2 } });
  await fill(user, 2);
  const never = await newType(undefined, { digest: DigestRule.NEVER });
  const remind = async (type: string, leftMs: number) => {
    const { deadline } = await key.schedules.upsertDeadline({
      deadline: {
        ...{ userId: user, key: `${type}-${leftMs}`, type, content: { title: `${leftMs}` } },
        time: timestampFromDate(new Date(nowMs + leftMs)),
        reminderOffsets: { offsets: [{ seconds: BigInt(leftMs / 1000 - 1) }] },
      },
    });
    return deadline?.reminders[0]?.notificationId ?? "";
  };
  const ids = [await remind("general", HOUR / 2), await remind(never, HOUR / 2), await remind("general", 3 * HOUR)];
  nowMs += 1000;
  for (const id of ids.slice(0, 2)) await reached(id, Status.DELIVERED);
  expect(await reached(ids[2] ?? "", Status.BATCHED)).toMatchObject({ reason: Reason.HOURLY_CAP });
  const after = await send(user, "general", "after");
  expect(after).toMatchObject({ status: Status.BATCHED, rateLimit: { usage: 4, limit: 2 } });
});

test("a change of the cap, the user's or the tenant's, has decided anew what it collected", async () => {
  nextHour();
  const tenant = await a.newTenant();
  const { send: sending, preferences } = a.clients(tenant.apiKey);
  const user = "ann";
  const items = Array.from({ length: 14 }, (_, n) => ({ to: { userIds: [user] }, content: { title: `${n}` } }));
  await sending.sendBatch({ items });
  const count = (wanted: Status) =>
    sending
      .listNotifications({ filter: { userId: user }, pageSize: 50 })
      .then(({ notifications }) => notifications.filter(({ status }) => status === wanted).length);
  await until(
    () => count(Status.BATCHED),
    (waiting) => waiting === 4,
  );
  const own = { userId: user, reason: "a test" };
  const { reconciled } = await preferences.updatePreferences({
    ...own,
    preferences: { hourlyCap: { maxPerHour: 12 } },
  });
  expect(reconciled).toMatchObject({ released: 4, unchanged: 0 });
  await until(
    async () => [await count(Status.DELIVERED), await count(Status.BATCHED)],
    ([delivered, waiting]) => delivered === 12 && waiting === 2,
  );
  const shown = await preferences.getEffectivePreferences({ userId: user });
  expect(shown.preferences?.hourlyCap).toMatchObject({ enabled: true, maxPerHour: 12 });
  expect(shown.origins).toMatchObject({
    "hourly_cap.enabled": Level.BUILT_IN,
    "hourly_cap.max_per_hour": Level.USER,
  });
  await preferences.updateDefaultPreferences({ reason: "a test", preferences: { hourlyCap: { enabled: false } } });
  await until(
    () => count(Status.DELIVERED),
    (delivered) => delivered === 14,
  );
  for (const maxPerHour of [0, 101]) {
    await expect(
      preferences.updatePreferences({ ...own, preferences: { hourlyCap: { maxPerHour } } }),
    ).rejects.toThrow();
  }
});

test("a batch counts as one", async () => {
  nextHour();
  const user = newUser();
  const type = await newType({ batchable: true, maxSize: 3 });
  await prefer(user, { hourlyCap: { maxPerHour: 2 } });
  const members = [await send(user, type, "a"), await send(user, type, "b"), await send(user, type, "c")];
  await closed(members[0]?.batchId ?? "");
  await reached(members[0]?.notificationId ?? "", Status.DELIVERED);
  expect((await send(user, "general", "d")).status).toBe(Status.DELIVERED);
  expect((await send(user, "general", "e")).status).toBe(Status.BATCHED);
});

test("a leader that the cap refuses leads nobody: what follows goes where it goes, until the cap has room", async () => {
  nextHour();
  const user = newUser();
  await prefer(user, { hourlyCap: { maxPerHour: 2 } });
  await fill(user, 2);
  const type = await newType({ batchable: true, mode: BatchRule_Mode.LEADING });
  const leader = await send(user, type, "leader");
  expect(leader).toMatchObject({ status: Status.BATCHED, rateLimit: { window: Reason.HOURLY_CAP } });
  expect(await send(user, type, "second")).toMatchObject({ status: Status.BATCHED, batchId: leader.batchId });
  // Of one chunk.
  await key.send.sendBatch({
    items: Array.from({ length: 3 }, (_, n) => ({ to: { userIds: [user] }, type, content: { title: `${n}` } })),
  });
  await until(
    () => batchOf(leader.batchId),
    ({ size }) => size === 5,
  );
  expect((await key.batches.listBatches({ userId: user })).batches).toMatchObject([{ kind: BatchKind.DIGEST }]);
  nextHour();
  await closed(leader.batchId);
  expect(await send(user, type, "first")).toMatchObject({ status: Status.DELIVERED });
  expect((await batchOf((await send(user, type, "next")).batchId)).kind).toBe(BatchKind.BATCH);
});

test("however many nodes decide at once, none waits behind a leader that the cap refused", async () => {
  nextHour();
  const user = newUser();
  await prefer(user, { hourlyCap: { maxPerHour: 1 } });
  await fill(user, 1);
  const type = await newType({ batchable: true, mode: BatchRule_Mode.LEADING, maxSize: 20 });
  const nodes = [key, b.clients(a.tenant.apiKey)];
  const request = { to: { userIds: [user] }, type, content: { title: "Hi" } };
  await Promise.all(Array.from({ length: 80 }, (_, n) => nodes[n % 2]?.send.send(request)));
  // Those that were decided before the leader was refused may have filled batches of the user's five: these are refused too.
  const inBatches = async () =>
    (await notificationsOf(user)).flatMap(({ status, batchId }) => (status === Status.BATCHED ? [batchId] : []));
  await until(inBatches, (ids) => ids.length === 80 && new Set(ids).size === 1);
  const { batches } = await key.batches.listBatches({ userId: user, pageSize: 100 });
  const standing = batches.filter(({ state }) => state !== BatchState.DISSOLVED);
  expect(standing).toMatchObject([{ kind: BatchKind.DIGEST, state: BatchState.OPEN, size: 80 }]);
  nextHour();
  await closed(standing[0]?.id ?? "");
  await until(
    () => many(user, Status.DELIVERED),
    (delivered) => delivered === 82,
  );
  expect((await entries(user)).map(({ content }) => content?.title)).toEqual(["80 notifications", "0"]);
});
