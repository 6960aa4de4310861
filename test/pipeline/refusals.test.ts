import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { platformOfFile } from "../support/platform.ts";
import { refusalOf } from "../support/refusal.ts";
import { until } from "../support/until.ts";

const { key, platform, tenant } = await platformOfFile();

const content = { title: "Hi" };
const inAnHour = () => ({ case: "scheduleTime" as const, value: timestampFromDate(new Date(Date.now() + 3_600_000)) });
const post = (method: string, body: object) =>
  fetch(`${platform.httpUrl}/posthorn.v1.${method}`, {
    method: "POST",
    headers: { authorization: `Bearer ${tenant.apiKey}`, "content-type": "application/json" },
    body: JSON.stringify(body),
  });

test("a misspelt field or value in JSON is refused, and widens nothing", async () => {
  const sent = await key.send.send({ to: { userIds: ["eve"] }, content, schedule: inAnHour() });
  for (const filter of [
    { userId: "eve", typs: ["nope"] },
    { userId: "eve", statuses: ["STATUS_HELDD"] },
  ]) {
    const answer = await post("SendService/CancelNotifications", { filter });
    expect(answer.status).toBe(400);
    expect(await answer.json()).toMatchObject({ code: "invalid_argument" });
  }
  expect((await post("InboxService/Clear", { userId: "eve", filter: {} })).status).toBe(400);
  const { notification } = await key.send.getNotification({ id: sent.results[0]?.notificationId ?? "" });
  expect(notification?.status).toBe(Status.SCHEDULED);
});

test("tags that say through which topic something came are the platform's", async () => {
  const tags = ["topic:apollo"];
  const forged = await refusalOf(key.send.send({ to: { userIds: ["tom"] }, content, tags }));
  expect(forged).toMatchObject({ reason: "INVALID_REQUEST" });

  await key.topics.upsertTopic({ topic: { key: "apollo" } });
  await key.topics.addMembers({ key: "apollo", userIds: ["tom"] });
  await key.send.send({ to: { topics: ["apollo"] }, content, tags: ["one"], schedule: inAnHour() });
  const listed = await until(
    () => key.send.listNotifications({ filter: { userId: "tom" } }),
    ({ notifications }) => notifications.length === 1,
  );
  const id = listed.notifications[0]?.id ?? "";
  expect(await refusalOf(key.send.updateNotification({ id, tags }))).toMatchObject({ reason: "INVALID_REQUEST" });
  const { notification } = await key.send.updateNotification({ id, tags: ["two"], updateMask: { paths: ["tags"] } });
  expect(notification?.tags).toEqual(["two", "topic:apollo"]);
});

test("clearing an inbox clears its badge", async () => {
  await key.send.send({ to: { userIds: ["amy"] }, content, waitForDecision: { seconds: 5n } });
  expect((await key.inbox.getCounts({ userId: "amy" })).counts).toMatchObject({ total: 1, unseen: 1 });
  expect((await key.inbox.clear({ userId: "amy" })).counts).toMatchObject({ total: 0, unseen: 0 });
});
