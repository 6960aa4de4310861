import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { newIds } from "#src/ids.ts";
import { type Clients, platformOfFile } from "../../support/platform.ts";
import { testServices } from "../../support/services.ts";
import { smallStore } from "../../support/small-store.ts";
import { openReader } from "../../support/stream-reader.ts";
import { until } from "../../support/until.ts";
import { wait, wrongSuppressions } from "../../support/waiting.ts";

const services = await testServices();
const node = await platformOfFile({ services });
const { key } = node;
const sql = postgres(services.databaseUrl, { max: 1, onnotice: () => undefined });
afterAll(() => sql.end());

const now = () => new Date();
const store = smallStore(services.databaseUrl);
afterAll(() => store[Symbol.asyncDispose]());

const HOUR_MS = 3_600_000;
const ALWAYS_QUIET = { enabled: true, startTime: "00:00", endTime: "00:00" };
const clock = (hours: number) => new Date(Date.now() + hours * HOUR_MS).toISOString().slice(11, 16);
const reason = "a test";

async function send(userId: string, more: object = {}): Promise<string> {
  const { results } = await key.send.send({ to: { userIds: [userId] }, content: { title: "Hi" }, ...more });
  return results[0]?.notificationId ?? "";
}
const inHours = (hours: number) =>
  ({ case: "scheduleTime", value: timestampFromDate(new Date(Date.now() + hours * HOUR_MS)) }) as const;
const find = async (id: string) => {
  const { notification } = await key.send.getNotification({ id });
  if (notification === undefined) throw new Error("it is not there");
  return notification;
};
const becomes = (id: string, status: Status) =>
  until(
    () => find(id),
    (found) => found.status === status,
  );
const statuses = (userId: string, tenantId = node.tenant.tenantId) =>
  sql`select status, count(*)::int as count from notifications
    where tenant_id = ${tenantId} and user_id = ${userId} group by status order by status`;

async function typesOf(clients: Clients, ...keys: string[]) {
  for (const type of keys) await clients.types.createType({ type: { key: type, category: "news" } });
}

test("an update answers what became of everything that waits, tells the streams, and each is where it says", async () => {
  await typesOf(key, "wanted", "unwanted");
  const user = await node.clientsFor("ann");
  await user.preferences.updatePreferences({ preferences: { quietHours: ALWAYS_QUIET } });
  const held = await send("ann", { type: "wanted" });
  const dropped = await send("ann", { type: "unwanted" });
  const later = await send("ann", { type: "wanted", schedule: inHours(3) });
  const never = await send("ann", { type: "unwanted", schedule: inHours(3) });
  await becomes(held, Status.HELD);
  await becomes(dropped, Status.HELD);

  const reader = openReader(user, { includeStatus: true });
  await reader.next("caughtUp");
  const off = { types: { unwanted: { enabled: false } }, quietHours: { startTime: clock(-1), endTime: clock(2) } };
  const { reconciled } = await user.preferences.updatePreferences({ preferences: off });
  expect(reconciled).toMatchObject({ suppressed: 2, moved: 1, released: 0, unchanged: 1, more: false });
  // At once, with nothing to wait for.
  for (const id of [dropped, never])
    expect(await find(id)).toMatchObject({ status: Status.SUPPRESSED, reason: Reason.TYPE_DISABLED });
  const { holdTime, status } = await find(held);
  expect(status).toBe(Status.HELD);
  expect(holdTime && timestampDate(holdTime).toISOString().slice(11, 16)).toBe(off.quietHours.endTime);
  expect((await find(later)).status).toBe(Status.SCHEDULED);
  const told = await reader.next("preferences");
  expect(told.reconciled).toMatchObject({ suppressed: 2, moved: 1, unchanged: 1 });
  expect(told.changedFields).toContain("types.unwanted.enabled");

  const reset = await user.preferences.resetPreferences({});
  expect(reset.reconciled).toMatchObject({ suppressed: 0, moved: 0, released: 1, unchanged: 1 });
  await becomes(held, Status.DELIVERED);
  const { timeline } = await key.send.getNotification({ id: never });
  expect(timeline.map((entry) => entry.status)).toEqual([Status.ACCEPTED, Status.SCHEDULED, Status.SUPPRESSED]);
  expect((await user.preferences.resetPreferences({})).reconciled).toBeUndefined();
  expect(await wrongSuppressions(sql, node.tenant.tenantId)).toEqual([]);
});

test("of more than a thousand the first end with the call and the rest soon after", async () => {
  const user = await node.clientsFor("busy");
  const rows = Array.from({ length: 2300 }, (_, n) => ({
    userId: "busy",
    status: n % 2 === 0 ? Status.SCHEDULED : Status.HELD,
  }));
  await wait({ store, newId: newIds(now), clock: now }, node.tenant.tenantId, rows);
  const { reconciled } = await user.preferences.updatePreferences({ preferences: { enabled: false } });
  expect(reconciled).toMatchObject({ suppressed: 1000, more: true });
  await until(
    () => statuses("busy"),
    (found) => found.length === 1 && found[0]?.status === Status.SUPPRESSED,
  );
  expect(await wrongSuppressions(sql, node.tenant.tenantId)).toEqual([]);
  await until(
    () => sql`select from rule_changes`,
    (left) => left.length === 0,
  );
});

test("the tenant's defaults, and a type that must be asked for, reach what waits for everybody", async () => {
  const tenant = await node.newTenant();
  const other = node.clients(tenant.apiKey);
  await typesOf(other, "news");
  const users = ["u1", "u2", "u3"];
  const sent = await Promise.all(
    ["news", "general"].map((type) =>
      other.send.send({ to: { userIds: users }, type, content: { title: "Hi" }, schedule: inHours(3) }),
    ),
  );
  expect(sent.flatMap(({ results }) => results)).toHaveLength(6);
  const ended = () => sql`select type, reason, count(*)::int as count from notifications
    where tenant_id = ${tenant.tenantId} and status = ${Status.SUPPRESSED} group by type, reason order by type`;
  const type = { key: "news", optIn: true };
  await other.types.updateType({ type, updateMask: { paths: ["opt_in"] } });
  await until(ended, (found) => found[0]?.count === 3);
  expect(await ended()).toEqual([{ type: "news", reason: Reason.TYPE_DISABLED, count: 3 }]);
  await other.preferences.updateDefaultPreferences({ preferences: { enabled: false }, reason });
  await until(ended, (found) => found.length === 2 && found[0]?.count === 3);
  expect(await ended()).toContainEqual({ type: "general", reason: Reason.USER_OPTED_OUT, count: 3 });
  expect(await wrongSuppressions(sql, tenant.tenantId)).toEqual([]);
});

test("local times and clock rules follow the user to another zone, by preference and by profile", async () => {
  await key.users.upsertUser({ user: { id: "zoe", timeZone: "UTC" } });
  const user = await node.clientsFor("zoe");
  const day = new Date(Date.now() + 3 * 24 * HOUR_MS).toISOString().slice(0, 10);
  const schedule = { case: "localScheduleTime", value: `${day}T09:00` } as const;
  const expiry = { case: "ttl", value: { seconds: 3600n } } as const;
  const local = await send("zoe", { schedule, expiry });
  const moved = await send("zoe", { schedule });
  const scheduleTime = timestampFromDate(new Date(`${day}T09:00:00Z`));
  await key.send.updateNotification({ id: moved, scheduleTime, updateMask: { paths: ["schedule_time"] } });
  const times = async (id: string) => {
    const { scheduleTime, expireTime } = await find(id);
    return [scheduleTime, expireTime].map((time) => time && timestampDate(time).toISOString().slice(11, 16));
  };
  expect(await times(local)).toEqual(["09:00", "10:00"]);

  const reader = openReader(user, { includeStatus: true });
  await reader.next("caughtUp");
  await key.users.updateUser({ user: { id: "zoe", timeZone: "Asia/Tokyo" }, updateMask: { paths: ["time_zone"] } });
  expect(await reader.next("preferences")).toMatchObject({
    changedFields: ["time_zone"],
    reconciled: { moved: 1, unchanged: 1 },
  });
  expect(await times(local)).toEqual(["00:00", "01:00"]);
  expect(await times(moved)).toEqual(["09:00", undefined]);

  const { reconciled } = await user.preferences.updatePreferences({ preferences: { timeZone: "Asia/Kolkata" } });
  expect(reconciled).toMatchObject({ moved: 1, unchanged: 1 });
  expect(await times(local)).toEqual(["03:30", "04:30"]);

  // The profile does not count while a preference stands above it.
  await key.users.upsertUser({ user: { id: "zoe", timeZone: "America/New_York" } });
  expect(await times(local)).toEqual(["03:30", "04:30"]);
  await user.preferences.resetPreferences({});
  expect((await times(local))[0]).toMatch(/^1[34]:00$/);
});

test("an import moves what waits for the users whose zone it changes", async () => {
  const users = Array.from({ length: 20 }, (_, n) => ({ id: `imported-${n}`, timeZone: "UTC" }));
  const importing = async (zone: (n: number) => string) => {
    const chunk = users.map((user, n) => ({ ...user, timeZone: zone(n) }));
    for await (const _ of key.users.importUsers(chunks(chunk)));
  };
  await importing(() => "UTC");
  const day = new Date(Date.now() + 3 * 24 * HOUR_MS).toISOString().slice(0, 10);
  const schedule = { case: "localScheduleTime", value: `${day}T09:00` } as const;
  await key.send.send({ to: { userIds: users.map(({ id }) => id) }, content: { title: "Hi" }, schedule });
  await importing((n) => (n % 2 === 0 ? "Asia/Tokyo" : "UTC"));
  const found = await sql`select to_char(scheduled_at at time zone 'UTC', 'HH24:MI') as time, count(*)::int as count
    from notifications where tenant_id = ${node.tenant.tenantId} and user_id like 'imported-%' group by 1 order by 1`;
  expect(found).toEqual([
    { time: "00:00", count: 10 },
    { time: "09:00", count: 10 },
  ]);
});

async function* chunks<T>(users: T) {
  yield { users };
}

test("what is held and what is switched on and off by two at once ends once, and nothing is left behind", async () => {
  const user = await node.clientsFor("flip");
  const quiet = (enabled: boolean) =>
    user.preferences.updatePreferences({ preferences: { quietHours: { ...ALWAYS_QUIET, enabled } } });
  for (let round = 0; round < 8; round++) {
    await Promise.all([quiet(true), quiet(false), ...Array.from({ length: 10 }, () => send("flip"))]);
  }
  await quiet(true);
  await quiet(false);
  const [delivered] = await until(
    () => statuses("flip"),
    (found) => found.length === 1 && found[0]?.status === Status.DELIVERED,
  );
  expect(delivered?.count).toBe(80);
});
