import { expect, test } from "vitest";
import type { AuditEntry } from "#gen/posthorn/v1/admin_service_pb.ts";
import { Exemption } from "#gen/posthorn/v1/explain_pb.ts";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { platformOfFile } from "../support/platform.ts";
import { until } from "../support/until.ts";

// Who sends past the limits is written down: once for what one call does, and beside every notification.

const node = await platformOfFile();
const { key } = node;
const content = { title: "Hi" };

let made = 0;
const someone = () => `user-${++made}`;

/** A tenant of its own, so that its audit log is the test's. */
async function fresh() {
  const { apiKey } = await node.newTenant();
  const own = node.clients(apiKey);
  const bypasses = async (): Promise<AuditEntry[]> => {
    const { entries } = await own.admin.listAuditEntries({});
    return entries.filter(({ action }) => action === "send.bypass_rate_limit").reverse();
  };
  return { own, bypasses };
}

test("a Send has one entry, and says who it was in its explanation and its timeline", async () => {
  const { own, bypasses } = await fresh();
  const { results } = await own.send.send({
    to: { userIds: [someone()] },
    content,
    bypassRateLimit: true,
    waitForDecision: { seconds: 10n },
  });
  const id = results[0]?.notificationId ?? "";
  const [entry, ...others] = await bypasses();
  expect(others).toEqual([]);
  expect(entry).toMatchObject({ target: `notification:${id}`, actor: expect.stringMatching(/^key:/), reason: "" });
  const { bypassedBy, notification, timeline } = await own.send.explainNotification({ id });
  expect({ bypassedBy, passes: notification?.bypassRateLimit }).toEqual({ bypassedBy: entry?.actor, passes: true });
  expect(timeline.map((each) => [each.entry?.status, each.entry?.actor])).toEqual([
    [Status.ACCEPTED, entry?.actor],
    [Status.DELIVERED, "posthorn"],
  ]);
  expect(timeline[1]?.decision?.channels[0]?.gates.at(-1)?.rule?.exemption).toBe(Exemption.BYPASS);
  expect((await own.send.getNotification({ id })).timeline.map(({ status, actor }) => [status, actor])).toEqual([
    [Status.ACCEPTED, entry?.actor],
    [Status.DELIVERED, "posthorn"],
  ]);
});

test("one to many users has one entry, with the first, the last and how many", async () => {
  const { own, bypasses } = await fresh();
  const userIds = Array.from({ length: 40 }, someone);
  const { results } = await own.send.send({ to: { userIds }, content, bypassRateLimit: true });
  const ids = results.map(({ notificationId }) => notificationId).sort();
  expect(await bypasses()).toMatchObject([
    { target: `notifications:${ids[0]}..${ids.at(-1)}`, reason: "40 notifications" },
  ]);
});

test("of a batch those that pass are counted together, others not, and it makes few entries", async () => {
  const { own, bypasses } = await fresh();
  const items = Array.from({ length: 1200 }, (_, n) => ({
    to: { userIds: [someone()] },
    content,
    bypassRateLimit: n % 3 > 0,
  }));
  const { results } = await own.send.sendBatch({ items });
  const ids = results.flatMap(({ result }, n) =>
    result.case === "response" && n % 3 > 0 ? [result.value.results[0]?.notificationId ?? ""] : [],
  );
  const entries = await bypasses();
  expect(entries.length).toBeGreaterThan(0);
  expect(entries.length).toBeLessThanOrEqual(5);
  const counts = entries.map(({ reason }) => Number(/^(\d+) notifications$/.exec(reason)?.[1]));
  expect(counts.reduce((sum, count) => sum + count, 0)).toBe(800);
  const named = entries.flatMap(({ target }) => target.replace("notifications:", "").split(".."));
  const sorted = ids.toSorted();
  expect(named.toSorted()[0]).toBe(sorted[0]);
  expect(named.toSorted().at(-1)).toBe(sorted.at(-1));
});

test("chunks of a stream and repeats of a key: what was stored is written down, once", async () => {
  const { own, bypasses } = await fresh();
  const item = { to: { userIds: [someone()] }, content, bypassRateLimit: true, idempotencyKey: "once" };
  async function* chunks() {
    yield { chunkId: 1n, items: [item] };
    yield { chunkId: 2n, items: [item] };
  }
  for await (const _ of own.send.sendStream(chunks()));
  await own.send.send(item);
  expect(await bypasses()).toMatchObject([{ target: expect.stringMatching(/^notification:/) }]);
});

test("a fan-out has its own entry, and its notifications name who sent it", async () => {
  const { own, bypasses } = await fresh();
  const [named, member] = [someone(), someone()];
  await own.users.upsertUser({ user: { id: member, roles: ["staff"] } });
  const { fanoutId, results } = await own.send.send({
    to: { userIds: [named], roles: ["staff"] },
    content,
    bypassRateLimit: true,
  });
  const entries = await bypasses();
  expect(entries.map(({ target }) => target).sort()).toEqual([
    `fanout:${fanoutId}`,
    `notification:${results[0]?.notificationId}`,
  ]);
  const { notifications } = await until(
    () => own.send.listNotifications({ filter: { fanoutId } }),
    (found) => found.notifications.length === 1,
  );
  const { bypassedBy } = await own.send.explainNotification({ id: notifications[0]?.id ?? "" });
  expect(bypassedBy).toBe(entries[0]?.actor);
});

test("what passes no limit costs no entry, and a schedule cannot have it", async () => {
  const { own, bypasses } = await fresh();
  await own.send.send({ to: { userIds: [someone()] }, content });
  expect(await bypasses()).toEqual([]);
  const request = { to: { userIds: [someone()] }, content, bypassRateLimit: true };
  const schedule = { key: "daily", request, recurrence: "FREQ=DAILY", localStartTime: "2026-01-01T09:00" };
  await expect(key.schedules.createSchedule({ schedule })).rejects.toThrow(/bypass_rate_limit/);
});
