import { create, type DescMessage, fromBinary, type JsonObject, toBinary } from "@bufbuild/protobuf";
import { anyPack, timestampFromDate } from "@bufbuild/protobuf/wkt";
import postgres from "postgres";
import { afterAll, describe, expect, test } from "vitest";
import { Status } from "#gen/posthorn/v1/notification_pb.ts";
import { compile } from "#src/types/payload/contract.ts";
import { readDescriptorSet } from "#src/types/payload/descriptor-set.ts";
import { judging } from "#src/types/payload/judging.ts";
import { shipped } from "../../support/descriptors.ts";
import { platformOfFile } from "../../support/platform.ts";
import { refusalOf } from "../../support/refusal.ts";
import { testServices } from "../../support/services.ts";
import { openReader } from "../../support/stream-reader.ts";
import { until } from "../../support/until.ts";

const services = await testServices();
const a = await platformOfFile({ services });
const b = await platformOfFile({ services, tenant: a.tenant });
const onB = b.clients(a.tenant.apiKey);
const sql = postgres(services.databaseUrl, { max: 2, onnotice: () => undefined });
afterAll(() => sql.end());

const FIELDS = `string order = 1 [(buf.validate.field).string.min_len = 3];
  int32 parcels = 2 [(buf.validate.field).int32.gt = 0];`;
const message = "acme.Shipped";
/** What a sender's generated class is. */
const Shipped = classOf(shipped(`${FIELDS} string later = 99;`));
const good: JsonObject = { order: "A-17", parcels: 2 };
const packed = (value: object) => anyPack(Shipped, create(Shipped, value as never));
const wait = { waitForDecision: { seconds: 10n } };
const to = (...userIds: string[]) => ({ userIds });

function classOf(set: Uint8Array): DescMessage {
  return compile(readDescriptorSet(set, message).files, message, judging()).desc;
}

let types = 0;
async function newType(more: object = {}): Promise<string> {
  const key = `shipped-${++types}`;
  await a.key.types.createType({ type: { key, ...more } });
  await a.key.types.pushPayload({ type: key, descriptorSet: shipped(FIELDS), message });
  return key;
}

test("a packed message and its JSON arrive as the same: data for everybody, the bytes for who has the class", async () => {
  const type = await newType();
  const reader = openReader(a.key, { userId: "ann" });
  await reader.next("caughtUp");
  const bytes = toBinary(Shipped, create(Shipped, { ...good, later: "than the contract" } as never));
  const title = "On its way";
  const payload = { typeUrl: `type.googleapis.com/${message}`, value: bytes };
  const first = await a.key.send.send({ to: to("ann"), type, content: { title, payload }, ...wait });
  await onB.send.send({ to: to("ann"), type, content: { title, data: { parcels: 2, order: "A-17" } }, ...wait });
  const { entries } = await a.key.inbox.listEntries({ userId: "ann" });
  const [fromData, fromAny] = entries.map(({ content }) => content);
  for (const content of [fromAny, fromData]) {
    expect(content?.data).toEqual(good);
    expect(content?.payload).toBeUndefined();
    expect(content?.typed).toMatchObject({ message, version: 1 });
    expect(fromBinary(Shipped, content?.typed?.value ?? new Uint8Array())).toMatchObject({ order: "A-17", parcels: 2 });
  }
  expect(Buffer.from(fromAny?.typed?.value ?? [])).toEqual(Buffer.from(bytes));
  const { notification } = await a.key.send.getNotification({ id: first.results[0]?.notificationId ?? "" });
  expect(notification?.content).toEqual(fromAny);
  const event = await reader.next("notification");
  expect(event.entry?.content).toEqual(fromAny);
  await reader.close();
});

describe("a payload that breaks the contract is refused, by its fields", () => {
  const send = (content: object, type: string) =>
    refusalOf(a.key.send.send({ to: to("bea"), type, content: { title: "t", ...content } }));
  test("in each of its forms", async () => {
    const type = await newType();
    expect(await send({ payload: packed({ order: "A" }) }, type)).toMatchObject({
      reason: "INVALID_REQUEST",
      fields: ["content.payload.order", "content.payload.parcels"],
      message: "content.payload.order: must be at least 3 characters (string.min_len) (and 1 more)",
    });
    expect((await send({ data: { ...good, order: "A" } }, type)).fields).toEqual(["content.data.order"]);
    expect((await send({ data: { ...good, parcel: 2 } }, type)).message).toBe(
      "content.data.parcel: is unknown to acme.Shipped (version 1)",
    );
    expect((await send({ payload: { typeUrl: "type.googleapis.com/acme.Other" } }, type)).message).toBe(
      "content.payload: must be a acme.Shipped, not acme.Other",
    );
    expect((await send({}, type)).fields).toEqual(["content.payload"]);
    expect((await send({ payload: packed(good), data: good }, type)).fields).toEqual(["content.payload"]);
  });

  test("and so is one of a type without a contract", async () => {
    expect((await send({ payload: packed(good) }, "general")).message).toMatch(/has no payload contract: send data/);
  });

  test("one item of a batch by itself", async () => {
    const type = await newType();
    const item = (data: JsonObject) => ({ to: to("cay"), type, content: { title: "t", data } });
    const { results } = await a.key.send.sendBatch({ items: [item(good), item({ ...good, parcels: 0 }), item(good)] });
    expect(results.map(({ result }) => result.case)).toEqual(["response", "error", "response"]);
    expect(results[1]?.result.value).toMatchObject({ fieldViolations: [{ field: "content.data.parcels" }] });
  });

  test("of thousands of its fields, in an answer that a client can read", async () => {
    const type = `shipped-${++types}`;
    await a.key.types.createType({ type: { key: type } });
    const many = "repeated int32 parcels = 2 [(buf.validate.field).repeated.items.int32.gt = 0];";
    await a.key.types.pushPayload({ type, descriptorSet: shipped(many), message });
    const items = Array.from({ length: 20 }, () => ({
      ...{ to: to("flo"), type },
      content: { title: "t", data: { parcels: Array(5000).fill(0) } },
    }));
    const { results } = await a.key.send.sendBatch({ items });
    for (const { result } of results) {
      expect(result.case === "error" && result.value.fieldViolations).toHaveLength(25);
      expect(result.value).toMatchObject({ message: expect.stringMatching(/\(and 4999 more\)$/) });
    }
  });

  test("in an update, a schedule and a deadline", async () => {
    const type = await newType();
    const value = timestampFromDate(new Date(Date.now() + 86_400_000));
    const content = { title: "t", data: good };
    const bad = { title: "t", data: { order: "A-17" } };
    const schedule = { case: "scheduleTime", value } as const;
    const { results } = await a.key.send.send({ to: to("dan"), type, content, schedule });
    const id = results[0]?.notificationId ?? "";
    expect((await refusalOf(a.key.send.updateNotification({ id, content: bad }))).fields).toEqual([
      "content.data.parcels",
    ]);
    const { notification } = await a.key.send.updateNotification({
      id,
      content: { title: "new", payload: packed({ ...good, parcels: 5 }) },
    });
    expect(notification?.content).toMatchObject({ title: "new", data: { ...good, parcels: 5 }, typed: { version: 1 } });
    const recurring = (of: object) =>
      a.key.schedules.createSchedule({
        schedule: {
          key: type,
          request: { to: to("dan"), type, content: of },
          recurrence: "FREQ=DAILY",
          localStartTime: "2026-01-01T09:00",
        },
      });
    expect((await refusalOf(recurring(bad))).fields).toEqual(["schedule.request.content.data.parcels"]);
    await recurring(content);
    const deadline = (of: object) =>
      a.key.schedules.upsertDeadline({ deadline: { userId: "dan", key: type, type, time: value, content: of } });
    expect((await refusalOf(deadline(bad))).fields).toEqual(["deadline.content.data.parcels"]);
    expect((await deadline(content)).deadline?.content?.typed).toMatchObject({ message, version: 1 });
  });
});

test("over Connect JSON data is the way; a packed message is refused as what it is", async () => {
  const type = await newType();
  const post = async (content: object) => {
    const response = await fetch(`${a.platform.httpUrl}/posthorn.v1.SendService/Send`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${a.tenant.apiKey}` },
      body: JSON.stringify({ to: to("eve"), type, content: { title: "t", ...content }, waitForDecision: "10s" }),
    });
    return { status: response.status, body: (await response.json()) as JsonObject };
  };
  expect((await post({ data: good })).status).toBe(200);
  const refused = await post({ payload: { "@type": `type.googleapis.com/${message}`, ...good } });
  expect(refused.status).toBe(400);
  expect(refused.body.code).toBe("invalid_argument");
  expect(JSON.stringify(refused.body)).toContain("content.payload");
  const { entries } = await a.key.inbox.listEntries({ userId: "eve" });
  const listed = await fetch(`${a.platform.httpUrl}/posthorn.v1.InboxService/ListEntries`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${a.tenant.apiKey}` },
    body: JSON.stringify({ userId: "eve" }),
  });
  const value = Buffer.from(entries[0]?.content?.typed?.value ?? []).toString("base64");
  expect(await listed.json()).toMatchObject({
    entries: [{ content: { data: good, typed: { message, version: 1, value } } }],
  });
});

test("a fan-out's members all get the payload that was judged with it", async () => {
  const type = await newType();
  await a.key.topics.upsertTopic({ topic: { key: "parcels" } });
  await a.key.topics.addMembers({ key: "parcels", userIds: ["fay", "gus"] });
  await a.key.send.send({ to: { topics: ["parcels"] }, type, content: { title: "t", payload: packed(good) } });
  for (const userId of ["fay", "gus"]) {
    const { entries } = await until(
      () => a.key.inbox.listEntries({ userId }),
      ({ entries }) => entries.length === 1,
    );
    expect(entries[0]?.content).toMatchObject({ data: good, typed: { version: 1 } });
  }
});

test("whatever is sent after a push has answered is judged by it, on every server, while sends go on", async () => {
  const type = await newType();
  const seen: { since: number; id: string }[] = [];
  let current = 1;
  let done = false;
  const sending = [a.key, onB, a.key, onB].map(async (clients) => {
    while (!done) {
      const since = current;
      const items = [1, 2, 3].map(() => ({ to: to("hal"), type, content: { title: "t", data: good } }));
      const { results } = await clients.send.sendBatch({ items });
      for (const { result } of results) {
        if (result.case !== "response") throw new Error(`refused: ${result.value?.message}`);
        seen.push({ since, id: result.value.results[0]?.notificationId ?? "" });
      }
    }
  });
  for (let version = 2; version <= 6; version++) {
    const more = Array.from({ length: version }, (_, n) => `string more${n} = ${10 + n};`).join(" ");
    const pushed = await a.key.types.pushPayload({ type, descriptorSet: shipped(FIELDS + more), message });
    expect(pushed.contract?.version).toBe(version);
    current = version;
  }
  done = true;
  await Promise.all(sending);
  const rows = await sql<{ id: string; content: Uint8Array }[]>`
    select id, content from notifications where tenant_id = ${a.tenant.tenantId} and type = ${type}`;
  const { notifications } = await a.key.send.listNotifications({ filter: { types: [type] }, pageSize: 200 });
  expect(rows.length).toBe(seen.length);
  const versions = new Map(notifications.map(({ id, content }) => [id, content?.typed?.version ?? 0]));
  for (const { id, since } of seen) if (versions.has(id)) expect(versions.get(id)).toBeGreaterThanOrEqual(since);
  expect(new Set(versions.values()).size).toBeGreaterThan(1);
});

test("a notification of a type keeps its payload when the type is gone", async () => {
  const type = await newType();
  const { results } = await a.key.send.send({ to: to("ida"), type, content: { title: "t", data: good }, ...wait });
  await a.key.types.deleteType({ key: type });
  const { notification } = await a.key.send.getNotification({ id: results[0]?.notificationId ?? "" });
  expect(notification).toMatchObject({ status: Status.DELIVERED, content: { data: good, typed: { version: 1 } } });
});
