import postgres from "postgres";
import { afterAll, beforeEach, expect, test } from "vitest";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { Reset_Cause } from "#gen/posthorn/v1/stream_service_pb.ts";
import { newIds } from "#src/ids.ts";
import { maintainPartitions } from "#src/store/migrate.ts";
import { dropExpired } from "#src/store/retention.ts";
import { openStore } from "#src/store/store.ts";
import { encodeCursor } from "#src/stream/cursor.ts";
import { arrive } from "../support/arrive.ts";
import { platformOfTest } from "../support/platform.ts";
import { wrongInboxes } from "../support/recount.ts";
import { freshServices, type TestServices } from "../support/services.ts";
import { openReader } from "../support/stream-reader.ts";
import { months } from "../support/tenant-tables.ts";
import { wait } from "../support/waiting.ts";

const TENANT = "01890000-0000-7000-8000-00000000000a";
const NOW = new Date("2024-07-15T12:00:00Z");
const RETENTION = { days: 90, inboxDays: 60 };
const at = (text: string) => new Date(`${text}T12:00:00Z`);

let services: TestServices & AsyncDisposable;
let sql: postgres.Sql;
let store: ReturnType<typeof openStore>;
const closing: (() => Promise<unknown>)[] = [];
const close = async () => {
  for (const each of closing.splice(0)) await each();
};
afterAll(close);

beforeEach(async () => {
  await close();
  services = await freshServices();
  sql = postgres(services.databaseUrl, { max: 1, onnotice: () => undefined });
  store = openStore({
    url: services.databaseUrl,
    hotPoolSize: 2,
    poolSize: 1,
    statementTimeoutMs: 20_000,
    lockTimeoutMs: 10_000,
    prepare: true,
  });
  closing.push(
    async () => store[Symbol.asyncDispose](),
    () => sql.end(),
    async () => services[Symbol.asyncDispose](),
  );
  // January to September of 2024.
  for (const day of ["2024-02-01", "2024-04-01", "2024-07-01"]) await maintainPartitions(services.databaseUrl, at(day));
});

const left = async (table: string) =>
  (await months(sql))
    .filter((month) => month.table === table && month.name < `${table}_2025`)
    .map(({ name }) => name.slice(-2));
const deliver = (day: Date, userIds: string[], tenantId = TENANT) =>
  arrive(
    { store, newId: newIds(() => day), now: day },
    tenantId,
    userIds.map((userId) => ({ userId })),
  );
const head = async (userId: string) =>
  (
    await sql`select seq::int, trimmed_seq::int as trimmed, unread, total, archived, snoozed from inbox_heads where user_id = ${userId}`
  )[0];

const EXPIRING = ["inbox", "notifications", "timeline", "audit_entries"];
const monthsOf = (month: string, tables = EXPIRING) => tables.map((table) => `${table}_2024_${month}`);
const drop = async (now: Date) => (await dropExpired(services.databaseUrl, now, RETENTION)).toSorted();

test("months go when their last day is older, at the millisecond it is, and no others", async () => {
  // 90 days before the 30th of June March has ended; 60 days before it April.
  const due = new Date("2024-06-30T00:00:00.000Z");
  const before = [...monthsOf("01"), ...monthsOf("02"), "inbox_2024_03"].toSorted();
  expect(await drop(new Date(due.getTime() - 1))).toEqual(before);
  expect(await drop(due)).toEqual([
    "audit_entries_2024_03",
    "inbox_2024_04",
    "notifications_2024_03",
    "timeline_2024_03",
  ]);
  expect(await drop(due)).toEqual([]);
  expect(await left("notifications")).toEqual(["04", "05", "06", "07", "08", "09"]);
  expect(await left("inbox")).toEqual(["05", "06", "07", "08", "09"]);
});

test("inboxes' counts are those of what is left, in every state, and cursors before it know", async () => {
  const old = await deliver(at("2024-02-10"), ["alice", "alice", "alice", "alice", "bert"]);
  await deliver(at("2024-06-10"), ["alice", "alice"]);
  await deliver(at("2024-06-10"), ["carl"]);
  await sql`
    update inbox set read_at = case when seq = 1 then arrived_at end, archived_at = case when seq = 2 then arrived_at end,
      snoozed_until = case when seq = 3 then arrived_at end where user_id = 'alice' and seq <= 3`;
  await sql`update inbox_heads set unread = 3, total = 4, archived = 1, snoozed = 1 where user_id = 'alice'`;
  await sql`update notifications set status = ${Status.READ} where id = ${old[0] ?? ""}`;
  expect(await wrongInboxes(sql)).toEqual([]);

  await drop(NOW);
  expect(await wrongInboxes(sql)).toEqual([]);
  expect(await head("alice")).toEqual({ seq: 6, trimmed: 4, unread: 2, total: 2, archived: 0, snoozed: 0 });
  expect(await head("bert")).toEqual({ seq: 1, trimmed: 1, unread: 0, total: 0, archived: 0, snoozed: 0 });
  expect(await head("carl")).toEqual({ seq: 1, trimmed: 0, unread: 1, total: 1, archived: 0, snoozed: 0 });
});

test.each([Status.ACCEPTED, Status.SCHEDULED, Status.HELD])(
  "a month with a notification of status %i stays with its history until that has ended",
  async (status) => {
    const clock = () => at("2024-02-10");
    const [id] = await wait({ store, newId: newIds(clock), clock }, TENANT, [{ userId: "alice", status }]);
    const kept = monthsOf("02", ["notifications", "timeline"]);
    const dropped = await drop(NOW);
    for (const month of kept) expect(dropped).not.toContain(month);
    expect(dropped).toEqual(expect.arrayContaining([...monthsOf("01"), "inbox_2024_02", "audit_entries_2024_02"]));
    expect(await sql`select id from notifications`).toEqual([{ id }]);
    await sql`update notifications set status = ${Status.CANCELLED}, due_at = null`;
    expect(await drop(NOW)).toEqual(kept);
  },
);

test("a month whose notification was delivered long after stays while its entry is in the inbox", async () => {
  // Sent in February for July: the entry shows the content that the notification holds.
  const [id] = await deliver(at("2024-02-10"), ["alice"]);
  await sql`update inbox set arrived_at = ${at("2024-07-10")}`;
  expect(await drop(NOW)).not.toContain("notifications_2024_02");
  expect(await sql`select i.seq::int from inbox i join notifications n on n.id = i.notification_id`).toEqual([
    { seq: 1 },
  ]);
  expect(await wrongInboxes(sql)).toEqual([]);
  // When the entry has gone, so does the notification: in one run.
  const later = await drop(at("2024-10-15"));
  expect(later).toEqual(expect.arrayContaining(["inbox_2024_07", "notifications_2024_02", "timeline_2024_02"]));
  expect(await sql`select from notifications where id = ${id ?? ""}`).toEqual([]);
  expect(await head("alice")).toMatchObject({ trimmed: 1, total: 0 });
});

test.each(EXPIRING)(
  "a crash between detaching and dropping a month of %s is finished by the next run",
  async (table) => {
    await deliver(at("2024-02-10"), ["alice", "alice"]);
    await deliver(at("2024-06-10"), ["alice"]);
    await sql.unsafe(`alter table ${table} detach partition ${table}_2024_02 concurrently`);
    expect(await drop(NOW)).toContain(`${table}_2024_02`);
    expect(await sql`select to_regclass(${`${table}_2024_02`}) as there`).toEqual([{ there: null }]);
    expect(await wrongInboxes(sql)).toEqual([]);
    expect(await head("alice")).toMatchObject({ trimmed: 2, total: 1 });
  },
);

test("several that drop at once drop everything once", async () => {
  await deliver(at("2024-02-10"), ["alice", "alice"]);
  await deliver(at("2024-06-10"), ["alice"]);
  const dropped = await Promise.all([drop(NOW), drop(NOW), drop(NOW)]);
  expect(new Set(dropped.flat()).size).toBe(dropped.flat().length);
  expect(dropped.flat()).toContain("inbox_2024_02");
  expect(await head("alice")).toEqual({ seq: 3, trimmed: 2, unread: 1, total: 1, archived: 0, snoozed: 0 });
});

test("a stream that resumes before what was trimmed is told so, one after it is not", async () => {
  const node = await platformOfTest({ services, roles: ["api", "stream"] });
  const { tenantId } = node.tenant;
  await deliver(at("2024-02-10"), ["alice", "alice"], tenantId);
  await deliver(at("2024-06-10"), ["alice", "alice"], tenantId);
  await drop(NOW);
  const from = (seq: number) => openReader(node.key, { userId: "alice", cursor: encodeCursor({ epoch: 7, seq }) });
  await using before = from(1);
  expect(await before.next("reset")).toMatchObject({ cause: Reset_Cause.TRIMMED });
  await using after = from(2);
  await after.next("caughtUp");
  expect(after.all("reset")).toEqual([]);
  expect(after.sequences()).toEqual([3, 4]);
});
