import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { Channel, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { Deadline } from "#gen/posthorn/v1/schedule_service_pb.ts";
import { HOUR, steppedClock } from "../batches/setup.ts";
import { escalating } from "../escalation/setup.ts";
import { holding } from "../notifications/holding.ts";
import { obedientChannels } from "../support/obedient-channels.ts";
import { platformOfFile } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { openReader } from "../support/stream-reader.ts";

// A deadline that moves when its reminder is decided, and the limit of a channel holds it.

const services = await testServices();
const { clock, step: pass } = steppedClock();
const { channels, given, of } = obedientChannels();
const { IN_APP, SMS } = Channel;
const node = await platformOfFile({ services, clock, between: { channels } });
const { key } = node;
const { newUser, get, told, reached } = escalating(node);
const { on, satisfied } = holding(node, pass);
const within = (ms: number) => timestampFromDate(new Date(clock().getTime() + ms));
for (const [name, defaultChannels] of Object.entries({ texted: [SMS], both: [IN_APP, SMS] }))
  await key.types.createType({ type: { key: name, displayName: name, defaultChannels } });

async function upsert(userId: string, type: string, hours: number, title: string): Promise<Deadline> {
  const reminderOffsets = { offsets: [{ seconds: 95n * 3600n }] };
  const asked = { userId, key: "report", type, content: { title }, time: within(hours * HOUR), reminderOffsets };
  const { deadline } = await key.schedules.upsertDeadline({ deadline: asked });
  if (deadline === undefined) throw new Error("no deadline");
  return deadline;
}

/** The reminder of a user's deadline in four days, which is decided, and held until tomorrow. */
async function held(type: string): Promise<{ user: string; id: string }> {
  const user = await satisfied(newUser());
  const { reminders } = await upsert(user, type, 95.001, "in four days");
  const id = reminders[0]?.notificationId ?? "";
  pass(4_000);
  await told(id, ({ reason }) => reason === Reason.CHANNEL_DAY_LIMIT);
  return { user, id };
}

const titles = (user: string) =>
  given.flatMap(({ userId, content }) => (userId === user && content.title !== "Server down" ? [content.title] : []));

test("what is held of its reminder is stopped when it moves on, and comes for the new time alone", async () => {
  const { user, id } = await held("texted");
  const { reminders } = await upsert(user, "texted", 120, "in five days");
  expect(await get(id)).toMatchObject({ status: Status.CANCELLED, reason: Reason.CANCELLED });
  expect((await get(id)).timeline.at(-1)?.actor).toMatch(/^key:/);
  expect(reminders.map(({ notificationId }) => notificationId)).not.toContain(id);
  await on(26 * HOUR);
  for (let day = 0; day < 2; day++) await on(24 * HOUR);
  await reached(reminders[0]?.notificationId ?? "", Status.DELIVERED);
  expect(titles(user)).toEqual(["in five days"]);
});

test("what has come of it stays", async () => {
  const { user, id } = await held("both");
  await upsert(user, "both", 120, "in five days");
  const { status, verdicts } = await get(id);
  expect([status, verdicts.find(({ channel }) => channel === SMS)?.reason]).toEqual([
    Status.DELIVERED,
    Reason.CANCELLED,
  ]);
  await on(24 * HOUR);
  expect(of(id)).toEqual([]);
});

test("one that nobody has got, and that would be due already at the new time, is made anew at once", async () => {
  const { user, id } = await held("texted");
  const { reminders } = await upsert(user, "texted", 88, "sooner");
  expect((await get(id)).status).toBe(Status.CANCELLED);
  const [made] = reminders;
  expect(reminders).toHaveLength(1);
  for (let day = 0; day < 3; day++) await on(24 * HOUR);
  await reached(made?.notificationId ?? "", Status.DELIVERED);
  expect(titles(user)).toEqual(["sooner"]);
});

test("one that has come, and would be due already at the new time, is stopped outside and not made anew", async () => {
  const { user, id } = await held("both");
  const { reminders } = await upsert(user, "both", 88, "sooner");
  expect(reminders).toEqual([]);
  expect((await get(id)).status).toBe(Status.DELIVERED);
  await on(25 * HOUR);
  expect(of(id)).toEqual([]);
  expect(titles(user)).toEqual([]);
});

/** Gives the deadline anew, for the same time. */
async function again(user: string, changes: { title: string; type?: string }) {
  const { deadline } = await key.schedules.getDeadline({ userId: user, key: "report" });
  const { time = within(0), type = "", reminderOffsets = {} } = deadline ?? {};
  const asked = { userId: user, key: "report", type: changes.type ?? type, time, reminderOffsets };
  return key.schedules.upsertDeadline({ deadline: { ...asked, content: { title: changes.title } } });
}

test("what is held of one whose deadline is given anew for the same time comes as that says now", async () => {
  const { user, id } = await held("texted");
  const { deadline } = await again(user, { title: "still" });
  expect(deadline?.reminders.map(({ notificationId }) => notificationId)).toEqual([id]);
  expect((await get(id)).content?.title).toBe("still");
  await on(25 * HOUR);
  await reached(id, Status.DELIVERED);
  expect(titles(user)).toEqual(["still"]);
  // What has come by all of its channels is as it came.
  await again(user, { title: "too late" });
  expect((await get(id)).content?.title).toBe("still");
});

test("and what of it is in the inbox shows that too, which streams are told", async () => {
  const { user, id } = await held("both");
  await using reader = openReader(await node.clientsFor(user));
  await reader.next("caughtUp");
  await again(user, { title: "still" });
  const { entry } = await reader.next("notification");
  expect(entry).toMatchObject({ notificationId: id, sequence: 2n, content: { title: "still" } });
  expect((await key.inbox.listEntries({ userId: user })).entries).toEqual([entry]);
  await on(25 * HOUR);
  expect(titles(user)).toEqual(["still"]);
});

test("as another type's, or as urgent as another, it comes as it was", async () => {
  const { user, id } = await held("texted");
  await again(user, { title: "another", type: "both" });
  await on(25 * HOUR);
  await reached(id, Status.DELIVERED);
  expect(titles(user)).toEqual(["in four days"]);
});
