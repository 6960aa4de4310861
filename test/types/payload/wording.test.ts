import { create, type JsonObject, type MessageInitShape } from "@bufbuild/protobuf";
import { anyPack, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import type { ContentSchema } from "#gen/posthorn/v1/notification_pb.ts";
import type { NotificationTypeSchema } from "#gen/posthorn/v1/type_service_pb.ts";
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
const node = await platformOfFile({ services });
const other = await platformOfFile({ services, tenant: node.tenant });
const { key } = node;
const onOther = other.clients(node.tenant.apiKey);

const message = "acme.Shipped";
const FIELDS = "Order order = 1; int32 parcels = 2 [(buf.validate.field).int32.gt = 0]; string note = 3;";
const ORDER = { more: "message Order { string number = 1; }" };
const SET = shipped(FIELDS, ORDER);
const good: JsonObject = { order: { number: "A-17" }, parcels: 2 };
const Shipped = compile(readDescriptorSet(SET, message).files, message, judging()).desc;
const payload = anyPack(Shipped, create(Shipped, good as never));
const WORDING = {
  title: "{order.number} is on its way",
  body: "{parcels} parcels",
  translations: { de: { title: "{order.number} ist unterwegs" } },
};
const wait = { waitForDecision: { seconds: 10n } };
const tomorrow = () => timestampFromDate(new Date(Date.now() + 86_400_000));

let types = 0;
async function newType(more: MessageInitShape<typeof NotificationTypeSchema> = { wording: WORDING }, push = true) {
  const type = `worded-${++types}`;
  await key.types.createType({ type: { key: type, ...more } });
  if (push) await key.types.pushPayload({ type, descriptorSet: SET, message });
  return type;
}
const send = (userId: string, type: string, content: MessageInitShape<typeof ContentSchema>) =>
  key.send.send({ to: { userIds: [userId] }, type, content, ...wait });
const newest = async (userId: string) =>
  (await key.inbox.listEntries({ userId, pageSize: 1 })).entries[0]?.content ?? expect.fail("an empty inbox");

async function speaking(userId: string, language: string): Promise<string> {
  await key.preferences.updatePreferences({
    userId,
    preferences: { language },
    updateMask: { paths: ["language"] },
    reason: "asked",
  });
  return userId;
}

test("a Send without a title reads as its type says, in the inbox, on the stream, to its sender and in a preview", async () => {
  const type = await newType();
  const reader = openReader(key, { userId: "ann" });
  await reader.next("caughtUp");
  const request = { to: { userIds: ["ann"] }, type, content: { data: good } };
  const { content: foreseen } = await key.send.previewSend({ request });
  const sent = await key.send.send({ ...request, ...wait });
  const content = await newest("ann");
  expect(content).toMatchObject({ title: "A-17 is on its way", body: "2 parcels", data: good });
  expect((await reader.next("notification")).entry?.content).toEqual(content);
  const { notification } = await key.send.getNotification({ id: sent.results[0]?.notificationId ?? "" });
  expect(notification?.content).toEqual(content);
  expect(foreseen).toEqual(content);
  await send("ann", type, { payload, body: "by hand" });
  expect(await newest("ann")).toMatchObject({ title: "A-17 is on its way", body: "by hand" });
  await send("ann", type, { payload, title: "By hand" });
  expect(await newest("ann")).toMatchObject({ title: "By hand", body: "" });
  await reader.close();
});

test("each recipient reads it in their language: named, of a topic, of a schedule, of a deadline and after an update", async () => {
  const type = await newType();
  const [bea, cay] = [await speaking("bea", "de-AT"), await speaking("cay", "fr")];
  const german = "A-17 ist unterwegs";
  const english = "A-17 is on its way";
  await key.send.send({ to: { userIds: [bea, cay] }, type, content: { data: good }, ...wait });
  expect([(await newest(bea)).title, (await newest(cay)).title]).toEqual([german, english]);
  expect(
    (await key.send.previewSend({ request: { to: { userIds: [bea] }, type, content: { payload } } })).content,
  ).toEqual(expect.objectContaining({ title: german }));

  await key.topics.upsertTopic({ topic: { key: type } });
  await key.topics.addMembers({ key: type, userIds: [bea, cay] });
  const { fanoutId } = await key.send.send({ to: { topics: [type] }, type, content: { payload } });
  const titlesOf = async (filter: object) =>
    (await key.send.listNotifications({ filter })).notifications
      .map(({ userId, content }) => `${userId}: ${content?.title}`)
      .toSorted();
  const both = [`bea: ${german}`, `cay: ${english}`];
  expect(
    await until(
      () => titlesOf({ fanoutId }),
      (titles) => titles.length === 2,
    ),
  ).toEqual(both);

  const at = new Date(Date.now() + 2_000).toISOString().slice(0, 19);
  const once = { key: type, recurrence: "FREQ=DAILY;COUNT=1", localStartTime: at, timeZone: "UTC" };
  await key.schedules.createSchedule({
    schedule: { ...once, request: { to: { userIds: [bea, cay] }, type, content: { payload } } },
  });
  expect(
    await until(
      () => titlesOf({ tag: `schedule:${type}` }),
      (titles) => titles.length === 2,
    ),
  ).toEqual(both);
  expect((await newest(bea)).typed).toMatchObject({ message, version: 1 });
  const { deadline } = await key.schedules.upsertDeadline({
    deadline: { userId: bea, key: type, type, time: tomorrow(), content: { data: good } },
  });
  expect(deadline?.content?.title).toBe(german);

  const scheduled = { case: "scheduleTime", value: tomorrow() } as const;
  const { results } = await key.send.send({
    ...{ to: { userIds: [bea] }, type, content: { title: "t", data: good }, schedule: scheduled },
  });
  const changed = await key.send.updateNotification({ id: results[0]?.notificationId ?? "", content: { payload } });
  expect(changed.notification?.content?.title).toBe(german);
});

describe("the title is required", () => {
  const both =
    /^content\.title: is required: give one, or give the type "worded-\d+" a payload contract .* and a wording/;
  test("of a type that has no contract or no wording, which the error says how to mend", async () => {
    const [untyped, unworded] = [await newType({ wording: WORDING }, false), await newType({})];
    expect((await refusalOf(send("dan", untyped, { data: good }))).message).toMatch(both);
    expect((await refusalOf(send("dan", unworded, { data: good }))).message).toMatch(both);
    const { results } = await key.send.sendBatch({
      items: [unworded, untyped].map((type) => ({ to: { userIds: ["dan"] }, type, content: { data: good } })),
    });
    for (const { result } of results)
      expect(result.value).toMatchObject({ fieldViolations: [{ field: "content.title" }] });
    expect((await refusalOf(key.send.send({ to: { userIds: ["dan"] }, content: {} }))).fields).toEqual([
      "content.title",
    ]);
    expect(
      (await refusalOf(key.stream.broadcast({ audience: { case: "tenant", value: true }, content: {} }))).fields,
    ).toEqual(["content.title"]);
  });

  test("where the wording makes nothing of a payload", async () => {
    const type = await newType({ wording: { title: "{note}" } });
    expect((await refusalOf(send("dan", type, { data: good }))).message).toMatch(/the wording of the type .* is empty/);
    await send("dan", type, { data: { ...good, note: "so" } });
    expect((await newest("dan")).title).toBe("so");
  });

  test("but not of its recipient's language: then it reads as without one, and nobody goes without", async () => {
    const type = await newType({ wording: { title: "{order.number}", translations: { de: { title: "{note}" } } } });
    const [eva, fay] = [await speaking("eva", "de"), "fay"];
    const item = (userId: string) => ({ to: { userIds: [userId] }, type, content: { data: good } });
    const { results } = await key.send.sendBatch({ items: [item(eva), item(fay)] });
    expect(results.map(({ result }) => result.case)).toEqual(["response", "response"]);
    await key.topics.upsertTopic({ topic: { key: type } });
    await key.topics.addMembers({ key: type, userIds: [eva, fay] });
    const { fanoutId } = await key.send.send({ to: { topics: [type] }, type, content: { data: good } });
    const { notifications } = await until(
      () => key.send.listNotifications({ filter: { fanoutId } }),
      (made) => made.notifications.length === 2,
    );
    expect(notifications.map(({ content }) => content?.title)).toEqual(["A-17", "A-17"]);
  });
});

describe("the fields of a wording are checked", () => {
  const update = (type: string, title: string, more: object = {}) =>
    key.types.updateType({ type: { key: type, wording: { title } }, updateMask: { paths: ["wording"] }, ...more });
  test("when it is written, against the contract that there is", async () => {
    const type = await newType();
    for (const more of [{}, { validateOnly: true }]) {
      expect(await refusalOf(update(type, "{order.nunber}", more))).toMatchObject({
        reason: "INVALID_REQUEST",
        fields: ["type.wording.title"],
        message: 'type.wording.title: "{order.nunber}": acme.Order has no field "nunber"',
      });
    }
    expect(
      (await refusalOf(key.types.createType({ type: { key: "braces", wording: { title: "{" } } }))).fields,
    ).toEqual(["type.wording.title"]);
    const { changes } = await update(type, "{note}");
    expect(changes.map(({ path }) => path)).toContain("wording.title");
    expect((await key.types.getType({ key: type })).type?.wording).toMatchObject({ title: "{note}" });
  });

  test("when a version is pushed or asked about: one that takes a field away is refused for it", async () => {
    const type = await newType();
    const descriptorSet = shipped('reserved 2; reserved "parcels"; Order order = 1; string note = 3;', ORDER);
    const found = { rule: "PAYLOAD_WORDING", path: "wording.body", file: "" };
    const { breaks } = await key.types.checkPayload({ type, descriptorSet, message });
    expect(breaks).toMatchObject([{ ...found, description: '"{parcels}": acme.Shipped has no field "parcels"' }]);
    expect(await refusalOf(key.types.pushPayload({ type, descriptorSet, message }))).toMatchObject({
      reason: "PAYLOAD_INCOMPATIBLE",
      fields: ["wording.body"],
    });
    await update(type, "{order.number}");
    expect((await key.types.pushPayload({ type, descriptorSet, message })).contract?.version).toBe(2);
    const first = await newType({ wording: { title: "{elsewhere}" } }, false);
    expect((await refusalOf(key.types.pushPayload({ type: first, descriptorSet, message }))).fields).toEqual([
      "wording.title",
    ]);
  });

  test("of a version that takes a field away and a wording that uses it only one succeeds", async () => {
    const without = shipped(
      'reserved 3; reserved "note"; Order order = 1; int32 parcels = 2 [(buf.validate.field).int32.gt = 0];',
      ORDER,
    );
    const won = new Set<string>();
    for (let round = 0; round < 16; round++) {
      const type = await newType({});
      const wording = { title: "{note}!" };
      const race = [
        key.types.pushPayload({ type, descriptorSet: without, message }),
        onOther.types.updateType({ type: { key: type, wording }, updateMask: { paths: ["wording"] } }),
      ];
      // A push looks before it locks.
      if (round % 2 === 1) race.reverse();
      const settled = await Promise.allSettled(race);
      const outcomes = settled.map(({ status }) => status);
      expect(outcomes.toSorted()).toEqual(["fulfilled", "rejected"]);
      const { type: stored } = await key.types.getType({ key: type });
      expect(stored?.payloadVersion === 1).toBe(stored?.wording !== undefined);
      won.add(stored?.wording === undefined ? "push" : "wording");
    }
    expect(won.size).toBeGreaterThan(0);
  });
});

test("a changed wording counts on every server for what is sent after it, and leaves what was sent as it is", async () => {
  const type = await newType();
  await send("eve", type, { data: good });
  await onOther.types.updateType({
    type: { key: type, wording: { title: "now {order.number}" } },
    updateMask: { paths: ["wording"] },
  });
  await until(
    async () => {
      await send("eve", type, { data: good });
      return newest("eve");
    },
    ({ title }) => title === "now A-17",
  );
  const { entries } = await key.inbox.listEntries({ userId: "eve" });
  expect(entries.at(-1)?.content?.title).toBe("A-17 is on its way");
});
