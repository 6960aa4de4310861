import { expect, test } from "vitest";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { platformOfFile } from "../support/platform.ts";
import { openReader } from "../support/stream-reader.ts";

const node = await platformOfFile();

test("what is sent is decided, stored, counted and seen live", async () => {
  const alice = await node.clientsFor("alice");
  await using reader = openReader(alice);
  await reader.next("hello");
  await reader.next("caughtUp");
  const sent = await node.key.send.send({ to: { userIds: ["alice"] }, content: { title: "Hello" } });
  const [result] = sent.results;
  const arrived = await reader.next("notification");
  expect(arrived.entry?.notificationId).toBe(result?.notificationId);
  expect(arrived.entry?.content?.title).toBe("Hello");
  expect(arrived.counts?.unread).toBe(1);
  const { notification, timeline } = await node.key.send.getNotification({ id: result?.notificationId ?? "" });
  expect(notification?.status).toBe(Status.DELIVERED);
  expect(timeline.map((entry) => entry.status)).toEqual([Status.ACCEPTED, Status.DELIVERED]);
  expect((await alice.inbox.getCounts({})).counts?.unread).toBe(1);
});
