import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { Dimension } from "#gen/posthorn/v1/analytics_service_pb.ts";
import { Channel, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { HOUR, steppedClock } from "../batches/setup.ts";
import { escalating, seconds } from "../escalation/setup.ts";
import { obedientChannels } from "../support/obedient-channels.ts";
import { platformOfFile } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { openReader } from "../support/stream-reader.ts";
import { holding } from "./holding.ts";

// What streams that asked for statuses are told, and analytics count, of what a channel's limit holds: that a newer one takes
// its place, that it is put off, or that it comes to an end.

const services = await testServices();
const { clock, step: pass } = steppedClock();
const { channels } = obedientChannels();
const { IN_APP, SMS, PUSH } = Channel;
const node = await platformOfFile({ services, clock, between: { channels } });
const sql = postgres(services.databaseUrl, { max: 2, onnotice: () => undefined });
afterAll(() => sql.end());
const within = (ms: number) => timestampFromDate(new Date(clock().getTime() + ms));
const same = { collapseKey: "score" };

/** A tenant's own, so that all that is counted is the test's. */
async function alone() {
  const tenant = await node.newTenant();
  const key = node.clients(tenant.apiKey);
  const statuses = async (user: string) => {
    const reader = openReader(await node.clientsFor(user, tenant), { includeStatus: true });
    await reader.next("caughtUp");
    return reader;
  };
  return { ...escalating({ key }), ...holding({ key }, pass), key, tenant, statuses };
}

test("a newer one's taking its place is told, of what waits for its time, is held, or has come by another channel", async () => {
  const { key, newUser, satisfied, held, send, statuses } = await alone();
  const user = await satisfied(newUser());
  const scheduled = await send(user, {
    ...{ ...same, channels: [SMS], waitForDecision: seconds(0) },
    schedule: { case: "scheduleTime", value: within(HOUR) },
  });
  await using reader = await statuses(user);
  const outside = await held(user, same);
  expect(await reader.next("status", ({ notificationId }) => notificationId === scheduled)).toMatchObject({
    ...{ status: Status.CANCELLED, channel: Channel.UNSPECIFIED, reason: Reason.SUPERSEDED },
  });
  const both = await held(user, { ...same, channels: [IN_APP, SMS] });
  const cancelled = (id: string) =>
    reader.next("status", ({ notificationId, status }) => notificationId === id && status === Status.CANCELLED);
  expect(await cancelled(outside)).toMatchObject({ channel: Channel.UNSPECIFIED, reason: Reason.SUPERSEDED });
  const newest = await held(user, same);
  const told = await reader.next("status", ({ notificationId, reason }) => {
    return notificationId === both && reason === Reason.SUPERSEDED;
  });
  expect(told).toMatchObject({ status: Status.DELIVERED, channel: SMS });
  expect(told.retryTime).toBeUndefined();
  // A fan-out's too.
  await key.topics.upsertTopic({ topic: { key: "matches" } });
  await key.topics.addMembers({ key: "matches", userIds: [user] });
  await key.send.send({ to: { topics: ["matches"] }, content: { title: "2:1" }, channels: [IN_APP], ...same });
  expect((await cancelled(newest)).reason).toBe(Reason.SUPERSEDED);
});

test("being put off is told, with the time that it waits for now", async () => {
  const { key, newUser, satisfied, held, statuses } = await alone();
  const user = await satisfied(newUser());
  const id = await held(user);
  await using reader = await statuses(user);
  for (const hours of [72, 96]) {
    const scheduleTime = within(hours * HOUR);
    await key.send.updateNotification({ id, scheduleTime });
    expect(await reader.next("status")).toMatchObject({
      ...{ notificationId: id, status: Status.SCHEDULED, channel: Channel.UNSPECIFIED, reason: Reason.SCHEDULED },
      retryTime: scheduleTime,
    });
  }
  // What changes nothing of when it comes is no other status.
  await key.send.updateNotification({ id, content: { title: "changed" } });
  await key.send.cancelNotification({ id });
  expect(await reader.next("status")).toMatchObject({ notificationId: id, status: Status.CANCELLED });
  expect(reader.all("status")).toHaveLength(3);
});

test("an end by expiry is told of the whole, or of the channel where it has come by another", async () => {
  const { key, newUser, satisfied, held, statuses } = await alone();
  const user = await satisfied(newUser());
  const [outside, both] = [await held(user), await held(user, { channels: [IN_APP, SMS] })];
  await using reader = await statuses(user);
  await key.send.updateNotification({ id: outside, expireTime: within(1000) });
  expect(await reader.next("status")).toMatchObject({
    ...{
      notificationId: outside,
      status: Status.EXPIRED,
      channel: Channel.UNSPECIFIED,
      reason: Reason.CHANNEL_DAY_LIMIT,
    },
  });
  await key.send.updateNotification({ id: both, expireTime: within(1000) });
  const told = await reader.next("status");
  expect(told).toMatchObject({
    ...{ notificationId: both, status: Status.DELIVERED, channel: SMS, reason: Reason.CHANNEL_DAY_LIMIT },
  });
  expect(told.retryTime).toBeUndefined();
});

test("the counters are what a recount says, and of all that was sent each has one end", async () => {
  const { key, tenant, newUser, satisfied, held, on, reached } = await alone();
  const from = within(-HOUR);
  const users = [await satisfied(newUser()), await satisfied(newUser()), await satisfied(newUser())] as const;
  const older = await held(users[0], same);
  const newer = await held(users[0], same);
  const putOff = await held(users[1], { escalation: { steps: [{ channel: PUSH, after: seconds(100 * 3600) }] } });
  await key.send.updateNotification({ id: putOff, scheduleTime: within(30 * HOUR) });
  const expired = await held(users[2]);
  await key.send.updateNotification({ id: expired, expireTime: within(1000) });
  await reached(expired, Status.EXPIRED);
  for (let day = 0; day < 3; day++) await on(24 * HOUR);
  for (const id of [newer, putOff]) await reached(id, Status.DELIVERED);
  await reached(older, Status.CANCELLED);

  const { counters } = await key.analytics.queryCounters({
    ...{ startTime: from, groupBy: [Dimension.STATUS, Dimension.CHANNEL] },
  });
  const counted = counters.map(({ status, channel, count }) => [status, channel, Number(count)]);
  const recounted = await sql<{ status: number; channel: number; many: number }[]>`
    select status, channel, count(*)::int as many from timeline
    where tenant_id = ${tenant.tenantId} and status not in (0, 1) group by status, channel`;
  const rows = recounted.map(({ status, channel, many }) => [status, channel, many]);
  const byKey = (a: number[], b: number[]) => (a[1] ?? 0) - (b[1] ?? 0) || (a[0] ?? 0) - (b[0] ?? 0);
  expect(counted.filter(([status]) => status !== Status.ACCEPTED).toSorted(byKey)).toEqual(rows.toSorted(byKey));
  const of = (...statuses: Status[]) =>
    counted.reduce((sum, [status, channel, many = 0]) => {
      return statuses.includes(status as Status) && channel !== PUSH ? sum + many : sum;
    }, 0);
  const ends = of(Status.DELIVERED, Status.CANCELLED, Status.EXPIRED, Status.FAILED, Status.SUPPRESSED);
  expect([of(Status.ACCEPTED), of(Status.CANCELLED), of(Status.EXPIRED), of(Status.SCHEDULED)]).toEqual([
    ends,
    1,
    1,
    1,
  ]);
});
