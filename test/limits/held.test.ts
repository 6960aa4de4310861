import { Redis } from "ioredis";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { Priority, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { phaseOf } from "#src/limits/phase.ts";
import { type Clients, platformOfFile, startTestPlatform } from "../support/platform.ts";
import { wrongInboxes } from "../support/recount.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

// Two nodes whose clock stands still until the test moves it: what waits for a window waits for the test.
const HOUR_MS = 3_600_000;
const start = Math.ceil(Date.now() / HOUR_MS) * HOUR_MS;
let nowMs = start;
const clock = () => new Date(nowMs);
const env = {
  POSTHORN_USER_BURST: "5",
  POSTHORN_USER_MAX_PER_MINUTE: "10",
  POSTHORN_USER_MAX_PER_HOUR: "1000",
  POSTHORN_USER_MAX_PER_DAY: "10000",
};
const services = await testServices();
const a = await platformOfFile({ services, env, clock });
const node = () => startTestPlatform({ services, env, clock, tenant: a.tenant });
const { tenantId } = a.tenant;
const sql = postgres(services.databaseUrl, { max: 1, onnotice: () => undefined });
afterAll(() => sql.end());

const content = { title: "Hi" };
const to = (userId: string) => ({ to: { userIds: [userId] }, content });
const sendMany = (clients: Clients, userId: string, count: number) =>
  clients.send.sendBatch({ items: Array.from({ length: count }, () => to(userId)) });

type Row = { id: string; status: number; reason: number; due: number; attempts: number; seq: number | null };
const rowsOf = (userId: string) => sql<Row[]>`
  select id, status, reason, (extract(epoch from due_at) * 1000)::float8 as due, attempts, inbox_seq::int as seq
  from notifications where tenant_id = ${tenantId} and user_id = ${userId} order by id`;
const decided = (userId: string) =>
  until(
    () => rowsOf(userId),
    (rows) => rows.every(({ status }) => status !== Status.ACCEPTED),
  );
const heldOf = (rows: readonly Row[]) => rows.filter(({ status }) => status === Status.HELD);
/** Moves the clock from turn to turn and waits for each to be used, until `left` are held. */
async function release(userId: string, left: number): Promise<void> {
  for (;;) {
    const held = heldOf(await decided(userId));
    if (held.length <= left) return;
    nowMs = Math.max(nowMs, Math.min(...held.map(({ due }) => due)));
    const due = held.filter((row) => row.due <= nowMs).map(({ id }) => id);
    await until(
      () => rowsOf(userId),
      (rows) => rows.every(({ id, status }) => !due.includes(id) || status === Status.DELIVERED),
    );
  }
}
const dropSlots = async () => {
  const redis = new Redis(services.redisUrl);
  const keys = await redis.keys(`${services.namespace}:places:*`);
  if (keys.length > 0) await redis.del(keys);
  redis.disconnect();
  return keys.length;
};

test("200 for one user go over the windows in the order in which they came, with two decisions each, whatever happens", async () => {
  const user = "ann";
  let b = await node();
  await sendMany(a.key, user, 200);
  const first = await decided(user);
  const held = heldOf(first);
  expect(first.filter(({ status }) => status === Status.DELIVERED)).toHaveLength(5);
  // The first five only had to wait for the second ten seconds.
  expect(held.map(({ reason }) => reason)).toEqual(
    held.map((_, n) => (n < 5 ? Reason.USER_BURST_LIMIT : Reason.USER_MINUTE_LIMIT)),
  );
  // One after the other in the order of acceptance, ten a minute.
  const turns = held.map(({ due }) => due);
  expect(turns).toEqual([...new Set(turns)].toSorted((x, y) => x - y));
  for (const inMinute of Map.groupBy(turns, (due) => Math.floor(due / 60_000)).values()) {
    expect(inMinute.length).toBeLessThanOrEqual(10);
  }
  expect(Math.floor(((turns.at(-1) ?? 0) - start) / 60_000)).toBe(19);

  // The answers say it: the window that is full, when it ends, and when one's own turn comes.
  const [nth] = held.slice(100);
  const { notification } = await b.key.send.getNotification({ id: nth?.id ?? "" });
  expect(notification?.rateLimit).toMatchObject({
    window: Reason.USER_MINUTE_LIMIT,
    usage: 10,
    limit: 10,
    resetTime: { seconds: BigInt((start + 60_000) / 1000) },
    retryAfter: { seconds: BigInt(Math.floor(((nth?.due ?? 0) - start) / 1000)) },
  });

  await release(user, 150);
  // Past the limits they go at once, and the others keep their turns; a newcomer stands behind them.
  const before = heldOf(await rowsOf(user)).map(({ id, due }) => ({ id, due }));
  await b.key.send.send({ ...to(user), priority: Priority.CRITICAL });
  await b.key.send.send({ ...to(user), bypassRateLimit: true });
  const [newcomer] = (await b.key.send.send(to(user))).results;
  const now = await decided(user);
  expect(now.filter(({ status }) => status === Status.DELIVERED)).toHaveLength(52);
  const last = now.find(({ id }) => id === newcomer?.notificationId);
  expect(last?.due).toBeGreaterThan(before.at(-1)?.due ?? 0);
  expect(heldOf(now).filter(({ id }) => id !== last?.id)).toMatchObject(before);

  // Redis forgets everything, and a node is replaced: who has a turn keeps it.
  expect(await dropSlots()).toBeGreaterThan(0);
  await b[Symbol.asyncDispose]();
  await release(user, 100);
  b = await node();
  await release(user, 0);
  await b[Symbol.asyncDispose]();

  const rows = await rowsOf(user);
  expect(rows).toHaveLength(203);
  for (const { id, attempts } of rows) {
    expect(attempts).toBe(held.some((each) => each.id === id) || id === last?.id ? 2 : 1);
  }
  const inOrder = rows.filter(({ id }) => first.some((each) => each.id === id)).map(({ seq }) => seq ?? 0);
  expect(inOrder).toEqual(inOrder.toSorted((x, y) => x - y));
  expect(await wrongInboxes(sql)).toEqual([]);
}, 240_000);

test("two nodes that take at the same time give each turn once, and no window overflows", async () => {
  await using b = await node();
  nowMs = Math.ceil(nowMs / HOUR_MS) * HOUR_MS;
  const users = ["bob", "eve", "joe"];
  await Promise.all(Array.from({ length: 24 }, (_, n) => sendMany(n % 2 === 0 ? a.key : b.key, users[n % 3] ?? "", 5)));
  for (const user of users) {
    const rows = await decided(user);
    const turns = heldOf(rows).map(({ due }) => due);
    expect(rows.filter(({ status }) => status === Status.DELIVERED)).toHaveLength(5);
    expect(new Set(turns).size).toBe(35);
    const minutes = Map.groupBy(turns, (due) => Math.floor((due - nowMs) / 60_000));
    expect([...minutes].map(([minute, { length }]) => [minute, length]).toSorted()).toEqual([
      [0, 5],
      [1, 10],
      [2, 10],
      [3, 10],
    ]);
    // Each user's turns begin a little later or earlier than others'.
    expect(Math.min(...turns)).toBe(nowMs + 10_000 + Math.floor((phaseOf(user) / 65_536) * 1600));
  }
  await release("bob", 0);
  for (const { attempts } of await rowsOf("bob")) expect(attempts).toBeLessThanOrEqual(2);
});

test("a change of preferences leaves turns alone where it does not matter, and they end where it does", async () => {
  const user = "max";
  const mine = await a.clientsFor(user);
  nowMs = Math.ceil(nowMs / HOUR_MS) * HOUR_MS;
  await sendMany(a.key, user, 8);
  const held = heldOf(await decided(user));
  expect(held).toHaveLength(3);
  const turns = async () => (await rowsOf(user)).slice(5);

  // Both are done with the change: it decides what waits anew.
  await mine.preferences.updatePreferences({ preferences: { types: { other: { enabled: false } } } });
  expect(await turns()).toMatchObject(held.map(({ id, due, reason }) => ({ id, due, reason, status: Status.HELD })));

  // Quiet hours that begin before the turns and end after: they stand in the queue again then.
  const hhmm = (ms: number) => new Date(ms).toISOString().slice(11, 16);
  const ended = nowMs + HOUR_MS;
  const quiet = { enabled: true, startTime: hhmm(nowMs), endTime: hhmm(ended) };
  await mine.preferences.updatePreferences({ preferences: { timeZone: "UTC", quietHours: quiet } });
  expect(await turns()).toMatchObject(held.map(() => ({ reason: Reason.QUIET_HOURS, due: ended })));
  nowMs = ended;
  await until(turns, (rows) => rows.every(({ status }) => status === Status.DELIVERED), 10_000);

  nowMs += 1000;
  await sendMany(a.key, user, 8);
  expect(heldOf(await decided(user)).length).toBeGreaterThan(0);
  // The first token has expired.
  const again = await a.clientsFor(user);
  await again.preferences.updatePreferences({ preferences: { enabled: false } });
  const final = await until(
    () => rowsOf(user),
    (rows) => rows.every(({ status }) => status !== Status.HELD && status !== Status.ACCEPTED),
  );
  expect(new Set(final.map(({ status }) => status))).toEqual(new Set([Status.DELIVERED, Status.SUPPRESSED]));
});

test("a schedule is later than a turn: it is taken then", async () => {
  const user = "sue";
  nowMs = Math.ceil(nowMs / HOUR_MS) * HOUR_MS;
  await sendMany(a.key, user, 6);
  const [held] = heldOf(await decided(user));
  const later = Math.floor(((held?.due ?? 0) + 120_000) / 1000);
  await a.key.send.updateNotification({
    id: held?.id ?? "",
    scheduleTime: { seconds: BigInt(later) },
  });
  nowMs = later * 1000;
  const rows = await until(
    () => rowsOf(user),
    (all) => all.every(({ status }) => status === Status.DELIVERED),
  );
  expect(rows).toHaveLength(6);
});
