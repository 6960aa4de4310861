import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { Channel } from "#gen/posthorn/v1/notification_pb.ts";
import type { OutsideChannel } from "#src/channels/channel.ts";
import { platformOfFile } from "../../support/platform.ts";
import { openReader } from "../../support/stream-reader.ts";
import { canaries, foundIn } from "./canaries.ts";
import { postgresContent, redisContent } from "./places.ts";

// Whatever is handed over stays to be handed over: its channel never has the time.
const busy: OutsideChannel = { deliver: async () => ({ kind: "retry", cause: new Error("busy") }) };
const channels = () => new Map([Channel.EMAIL, Channel.SMS].map((channel) => [channel, busy]));
const node = await platformOfFile({ between: { channels } });
const { key } = node;

const contact = canaries("displayName", "email", "attribute", "attributeName", "wish");
const written = canaries("title", "body", "senderId", "dedupKey", "groupKey", "tag");
const userId = Object.values(canaries("userId"))[0] ?? "";

/** Which tables a canary is in, by its name. */
async function tablesHolding(all: Record<string, string>): Promise<Record<string, string[]>> {
  const content = await postgresContent(node.services.databaseUrl);
  const holding = Object.entries(content).map(([table, rows]) => [table, foundIn(rows, all)] as const);
  return Object.fromEntries(holding.filter(([, found]) => found.length > 0));
}

test("of a deleted user no contact data is left, and what is left of them is known", async () => {
  const attributes = { [contact.attributeName]: contact.attribute };
  const user = {
    id: userId,
    displayName: contact.displayName,
    email: `${contact.email}@example.com`,
    roles: ["r"],
    attributes,
  };
  await key.users.upsertUser({ user });
  await key.topics.upsertTopic({ topic: { key: "news" } });
  await key.topics.addMembers({ key: "news", userIds: [userId] });
  await key.preferences.updatePreferences({ userId, preferences: { timeZone: "UTC" }, reason: "test" });
  const subscription = {
    target: { case: "category", value: "jobs" },
    filter: `data.city == "${contact.wish}"`,
  } as const;
  await key.preferences.createSubscription({ userId, subscription, reason: "test" });
  const content = { title: written.title, body: written.body };
  const { senderId, dedupKey, groupKey, tag } = written;
  const to = { userIds: [userId] };
  const decided = { waitForDecision: { seconds: 10n } };
  await key.send.send({ to, content, senderId, dedupKey, groupKey, tags: [tag], ...decided });
  const steps = [{ channel: Channel.SMS, after: { seconds: 3600n } }];
  await key.send.send({ to, content, groupKey, channels: [Channel.EMAIL], escalation: { steps }, ...decided });
  await key.types.createType({ type: { key: "heap", batching: { batchable: true, window: { seconds: 7200n } } } });
  for (let n = 0; n < 2; n++) await key.send.send({ to, content, groupKey, type: "heap", ...decided });
  const later = { case: "scheduleTime", value: timestampFromMs(Date.now() + 3_600_000) } as const;
  await key.send.send({ to, content, schedule: later });
  const recurring = { recurrence: "FREQ=DAILY", localStartTime: "2026-01-01T09:00" };
  await key.schedules.createSchedule({ schedule: { key: "alone", request: { to, content }, ...recurring } });
  const both = { to: { userIds: [userId, "another"] }, content: { title: "Both" } };
  await key.schedules.createSchedule({ schedule: { key: "both", request: both, ...recurring } });
  await key.schedules.upsertDeadline({ deadline: { userId, key: "task", time: later.value, content } });
  const reader = openReader(await node.clientsFor(userId), { deviceId: "phone" });
  await reader.next("caughtUp");
  expect(Object.keys(await tablesHolding(contact))).toEqual(["subscriptions", "users"]);
  const all = ["batches", "escalations", "hand_overs", "inbox", "inbox_heads", "deadlines", "topic_members"];
  expect(Object.keys(await tablesHolding({ userId }))).toEqual(expect.arrayContaining(all));

  await key.users.deleteUser({ id: userId });
  await reader.ended;

  expect(await tablesHolding(contact)).toEqual({});
  const inRedis = await redisContent(node.services.redisUrl);
  expect(foundIn(inRedis, contact)).toEqual([]);
  // The record of what was sent stays until its month expires; DeleteUser does not promise to erase it.
  expect(await tablesHolding(written)).toEqual({
    dedup_keys: ["dedupKey"],
    notifications: ["title", "body", "senderId", "dedupKey", "groupKey", "tag"],
  });
  const { schedules } = await key.schedules.listSchedules({});
  expect(schedules.map(({ key, request }) => [key, request?.to?.userIds])).toEqual([["both", ["another"]]]);
  expect(Object.keys(await tablesHolding({ userId }))).toEqual([
    "audit_entries",
    "dedup_keys",
    "notifications",
    "token_revocations",
  ]);
});
