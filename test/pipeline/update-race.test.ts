import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { MINUTE, steppedClock } from "../batches/setup.ts";
import { escalating } from "../escalation/setup.ts";
import { platformOfFile } from "../support/platform.ts";
import { wrongInboxes } from "../support/recount.ts";
import { testServices } from "../support/services.ts";
import { stoppingStore } from "../support/stopping.ts";
import { openReader } from "../support/stream-reader.ts";
import { until } from "../support/until.ts";

// What is changed while it is being decided: a worker has read it, and has still to store what it made of it.

const services = await testServices();
const { clock, step: pass } = steppedClock();
const { stop, store } = stoppingStore();
const node = await platformOfFile({ services, clock, between: { store } });
const { key } = node;
const { newUser, get } = escalating(node);
const sql = postgres(services.databaseUrl, { max: 2, onnotice: () => undefined });
afterAll(() => sql.end());

const inMinutes = (minutes: number) => timestampFromDate(new Date(clock().getTime() + minutes * MINUTE));
const waitsForALock = () => sql`
  select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`;

const WHEN = {
  "before that is stored": async (change: () => Promise<unknown>, commit: ReturnType<typeof stop>) => {
    await change();
    commit.release();
  },
  "at the moment when that is stored": async (change: () => Promise<unknown>, commit: ReturnType<typeof stop>) => {
    const uncommitted = stop("updateOpen", "uncommitted");
    const changing = change();
    await uncommitted.reached;
    commit.release();
    await until(waitsForALock, ({ length }) => length > 0);
    uncommitted.release();
    await changing;
  },
};
const FROM = {
  accepted: () => ({}),
  "scheduled, and due": () => ({ schedule: { case: "scheduleTime" as const, value: inMinutes(1) } }),
};
const cases = Object.entries(FROM).flatMap(([from, more]) =>
  Object.entries(WHEN).map(([when, race]) => [from, when, more, race] as const),
);

async function readerOf(user: string) {
  const reader = openReader(await node.clientsFor(user), { includeStatus: true });
  await reader.next("caughtUp");
  return reader;
}

/** Sends one, and stops whoever has decided it. */
async function beingDecided(user: string, more: object) {
  const commit = stop("commitDecisions", "before");
  const content = { title: "old" };
  const { results } = await key.send.send({ to: { userIds: [user] }, content, tags: ["old"], ...more });
  pass(MINUTE + 1000);
  await commit.reached;
  return { id: results[0]?.notificationId ?? "", commit };
}

test.each(cases)("of what was %s, a change %s is what arrives", async (_from, _when, more, race) => {
  const user = newUser();
  await using reader = await readerOf(user);
  const { id, commit } = await beingDecided(user, more());
  const expireTime = inMinutes(5);
  const changes = { id, content: { title: "new" }, tags: ["new"], expireTime };
  await race(() => key.send.updateNotification(changes), commit);
  const { entry } = await reader.next("notification");
  expect(entry).toMatchObject({ notificationId: id, content: { title: "new" }, tags: ["new"], expireTime });
  const { entries } = await key.inbox.listEntries({ userId: user });
  expect(entries).toEqual([entry]);
  const { status, timeline } = await get(id);
  expect(status).toBe(Status.DELIVERED);
  expect(timeline.filter((each) => each.status === Status.DELIVERED)).toHaveLength(1);
  expect(reader.all("notification")).toHaveLength(1);
  expect((await wrongInboxes(sql)).filter((wrong) => JSON.stringify(wrong).includes(user))).toEqual([]);
});

test.each(cases)("of what was %s, another time given %s is when it comes", async (_from, _when, more, race) => {
  const user = newUser();
  await using reader = await readerOf(user);
  const { id, commit } = await beingDecided(user, more());
  const scheduleTime = inMinutes(3);
  await race(() => key.send.updateNotification({ id, scheduleTime }), commit);
  expect(await reader.next("status")).toMatchObject({
    ...{ notificationId: id, status: Status.SCHEDULED },
    retryTime: scheduleTime,
  });
  expect(await get(id)).toMatchObject({ status: Status.SCHEDULED, scheduleTime });
  // Whatever else was to be decided, is.
  await key.send.send({ to: { userIds: [newUser()] }, content: { title: "other" }, waitForDecision: { seconds: 10n } });
  expect([reader.all("notification"), (await key.inbox.listEntries({ userId: user })).entries]).toEqual([[], []]);
  pass(3 * MINUTE);
  const { entry } = await reader.next("notification");
  expect(entry?.notificationId).toBe(id);
  expect(timestampDate(entry?.arriveTime ?? inMinutes(0)).getTime()).toBeGreaterThanOrEqual(
    timestampDate(scheduleTime).getTime(),
  );
});
