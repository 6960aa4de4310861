import type { JsonObject } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import postgres from "postgres";
import { afterAll, describe, expect, test } from "vitest";
import { Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { shipped } from "../../support/descriptors.ts";
import { platformOfFile } from "../../support/platform.ts";
import { refusalOf } from "../../support/refusal.ts";
import { testServices } from "../../support/services.ts";
import { until } from "../../support/until.ts";

const services = await testServices();
const node = await platformOfFile({ services });
const { key } = node;
/** What a node does in raw transactions waits: before it begins one, or before it commits. */
const hold: { before?: Promise<void>; commit?: Promise<void> } = {};
const held = await platformOfFile({
  services,
  tenant: node.tenant,
  roles: ["api"],
  between: {
    store: (store) => ({
      ...store,
      [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
      async tenant(tenantId, work) {
        await hold.before;
        return store.tenant(tenantId, async (tx) => {
          const result = await work(tx, () => undefined);
          await hold.commit;
          return result;
        });
      },
    }),
  },
});
const sql = postgres(services.databaseUrl, { max: 1, onnotice: () => undefined });
afterAll(() => sql.end());
const message = "acme.Shipped";
const LOOSE = shipped("string order = 1;");
/** Breaks nothing by itself; only payloads that wait may not be valid under it. */
const STRICT = shipped("string order = 1 [(buf.validate.field).string.min_len = 4];");
const later = { case: "scheduleTime", value: timestampFromDate(new Date(Date.now() + 86_400_000)) } as const;
/** So that no occurrence is stored ahead. */
const inAMonth = new Date(Date.now() + 30 * 86_400_000).toISOString().slice(0, 16);
const content = (order: string): { title: string; data: JsonObject } => ({ title: "t", data: { order } });

let types = 0;
async function newType(more: object = {}): Promise<string> {
  const type = `evolves-${++types}`;
  await key.types.createType({ type: { key: type, ...more } });
  await key.types.pushPayload({ type, descriptorSet: LOOSE, message });
  return type;
}
const check = (type: string, descriptorSet: Uint8Array) => key.types.checkPayload({ type, descriptorSet, message });
const push = (type: string, descriptorSet: Uint8Array) => key.types.pushPayload({ type, descriptorSet, message });

test("a version that breaks the current one is refused with everything it breaks, and so says the check", async () => {
  const type = await newType();
  const other = shipped("bytes order = 1;");
  const { breaks, version, unchanged } = await check(type, other);
  expect({ version, unchanged }).toEqual({ version: 1, unchanged: false });
  expect(breaks).toMatchObject([
    {
      rule: "FIELD_WIRE_JSON_COMPATIBLE_TYPE",
      path: "acme.Shipped.order",
      description: "was of type string, is bytes now",
      file: "acme/shipped.proto",
    },
  ]);
  expect(await refusalOf(push(type, other))).toMatchObject({
    reason: "PAYLOAD_INCOMPATIBLE",
    fields: ["acme.Shipped.order"],
    metadata: { breaks: "1" },
  });
  expect((await key.types.getPayload({ type })).contract?.version).toBe(1);
  expect(await check(type, LOOSE)).toMatchObject({ unchanged: true, breaks: [] });
});

describe("a stricter rule is refused for what waits and would not be valid", () => {
  const breaksOf = async (type: string) =>
    (await check(type, STRICT)).breaks.map(({ rule, path, description }) => `${rule} ${path} ${description}`);
  const wrong = "order: must be at least 4 characters (string.min_len)";

  test("whoever asks is told nothing of what the payloads hold, whatever the rules of the version put into words", async () => {
    const type = await newType();
    await push(type, shipped("string order = 1; map<string, string> notes = 2;"));
    const secret = "canary4711";
    const data = { order: secret, notes: { [secret]: secret } };
    const { results } = await key.send.send({
      ...{ to: { userIds: ["ann"] }, type, content: { title: "t", data }, schedule: later },
    });
    await key.schedules.createSchedule({
      schedule: {
        ...{ key: "talk", recurrence: "FREQ=DAILY", localStartTime: inAMonth, timeZone: "UTC" },
        request: { to: { userIds: ["ann"] }, type, content: { title: "t", data } },
      },
    });
    const notes = "map<string, string> notes = 2";
    const cel = (expression: string) => `[(buf.validate.field).cel = {id: "own.words", expression: "${expression}"}]`;
    for (const [body, wrong] of [
      [`string order = 1 ${cel("this")}; ${notes};`, "order: breaks a rule (own.words)"],
      [`string order = 1; ${notes} ${cel("this.map(key, key)[0]")};`, "notes: breaks a rule (own.words)"],
      [
        `string order = 1; ${notes} [(buf.validate.field).map.values.string.max_len = 3];`,
        'notes["…"]: must be at most 3 characters (string.max_len)',
      ],
      [
        `string order = 1; ${notes} [(buf.validate.field).map.keys.string.max_len = 3];`,
        'notes["…"]: must be at most 3 characters (string.max_len)',
      ],
      [
        `option (buf.validate.message).cel = {id: "own", expression: "this.order"}; string order = 1; ${notes};`,
        "breaks a rule (own)",
      ],
    ] as const) {
      const set = shipped(body);
      const { breaks } = await check(type, set);
      expect(breaks.map(({ path, description }) => `${path} ${description}`)).toEqual([
        `notification:${results[0]?.notificationId} ${wrong}`,
        `schedule:talk ${wrong}`,
      ]);
      expect(JSON.stringify(await refusalOf(push(type, set)))).not.toContain(secret);
    }
    // Who sends it, and has written it, is told in the contract's words.
    const own = await newType();
    await push(own, shipped(`string order = 1 ${cel("this")};`));
    const sent = key.send.send({ to: { userIds: ["ann"] }, type: own, content: content("my words") });
    expect((await refusalOf(sent)).message).toBe("content.data.order: my words (own.words)");
  });

  test("a notification that is scheduled; not one that has a payload that is, nor one that was delivered", async () => {
    const type = await newType();
    const send = (order: string, more: object = {}) =>
      key.send.send({ to: { userIds: ["ann"] }, type, content: content(order), ...more });
    await send("abc", { waitForDecision: { seconds: 10n } });
    await send("abcdef", { schedule: later });
    expect(await breaksOf(type)).toEqual([]);
    const { results } = await send("abc", { schedule: later });
    const id = results[0]?.notificationId ?? "";
    expect(await breaksOf(type)).toEqual([`PAYLOAD_WAITING notification:${id} ${wrong}`]);
    expect((await refusalOf(push(type, STRICT))).fields).toEqual([`notification:${id}`]);
    await key.send.cancelNotification({ id });
    expect((await push(type, STRICT)).reach).toMatchObject({ notifications: 1, batched: 0, capped: false });
  });

  test("a member of an open batch, of a schedule, of a deadline and of a fan-out whose notifications wait", async () => {
    const batching = { batchable: true, window: { seconds: 7200n } };
    const type = await newType({ batching });
    const to = { userIds: ["bea"] };
    const batched = await key.send.send({
      ...{ to, type, content: content("abc"), priority: Priority.NORMAL },
      waitForDecision: { seconds: 10n },
    });
    expect(batched.results[0]?.status).toBe(Status.BATCHED);
    await key.schedules.createSchedule({
      schedule: {
        ...{ key: type, recurrence: "FREQ=DAILY", localStartTime: inAMonth },
        request: { to, type, content: content("abc") },
      },
    });
    await key.schedules.upsertDeadline({
      deadline: { userId: "bea", key: type, type, time: later.value, content: content("abc"), reminderOffsets: {} },
    });
    await key.topics.upsertTopic({ topic: { key: type } });
    await key.topics.addMembers({ key: type, userIds: ["cay", "dan"] });
    const { fanoutId } = await key.send.send({
      to: { topics: [type] },
      type,
      content: content("abc"),
      schedule: later,
    });
    await until(
      () => key.send.getFanout({ id: fanoutId }),
      ({ fanout }) => fanout?.created === 2n,
    );
    expect((await breaksOf(type)).toSorted()).toEqual(
      [
        `PAYLOAD_WAITING notification:${batched.results[0]?.notificationId} ${wrong}`,
        `PAYLOAD_WAITING schedule:${type} ${wrong}`,
        `PAYLOAD_WAITING deadline:bea/${type} ${wrong}`,
        `PAYLOAD_WAITING fanout:${fanoutId} ${wrong}`,
      ].toSorted(),
    );
    expect((await check(type, STRICT)).reach).toMatchObject({ notifications: 2, batched: 1, planned: 2 });
  });

  test("a schedule without a payload, when a type gets its first contract", async () => {
    const type = `evolves-${++types}`;
    await key.types.createType({ type: { key: type } });
    const request = { to: { userIds: ["eve"] }, type, content: { title: "t" } };
    await key.schedules.createSchedule({
      schedule: { key: type, request, recurrence: "FREQ=DAILY", localStartTime: "2026-01-01T09:00" },
    });
    await key.send.send({ ...request, schedule: later });
    expect(await breaksOf(type)).toEqual([`PAYLOAD_WAITING schedule:${type} sends no payload`]);
    await key.schedules.deleteSchedule({ key: type });
    expect((await push(type, STRICT)).contract?.version).toBe(1);
  });
});

describe("of a send that is being stored and a push that refuses it", () => {
  const sendHeld = (type: string) =>
    held.key.send.send({ to: { userIds: ["gus"] }, type, content: content("abc"), schedule: later });

  test("the send is judged anew when the push was first", async () => {
    const type = await newType();
    // So that the node has judged by the first version before.
    await sendHeld(type).then(({ results }) => key.send.cancelNotification({ id: results[0]?.notificationId ?? "" }));
    const opened = Promise.withResolvers<void>();
    hold.before = opened.promise;
    const sent = refusalOf(sendHeld(type));
    expect((await push(type, STRICT)).contract?.version).toBe(2);
    delete hold.before;
    opened.resolve();
    expect((await sent).fields).toEqual(["content.data.order"]);
  });

  test("the send is judged anew when the type was deleted and made anew, with the same number of versions", async () => {
    const type = await newType();
    await sendHeld(type).then(({ results }) => key.send.cancelNotification({ id: results[0]?.notificationId ?? "" }));
    const opened = Promise.withResolvers<void>();
    hold.before = opened.promise;
    const sent = refusalOf(sendHeld(type));
    await key.types.deleteType({ key: type });
    await key.types.createType({ type: { key: type } });
    expect((await push(type, STRICT)).contract?.version).toBe(1);
    delete hold.before;
    opened.resolve();
    expect((await sent).fields).toEqual(["content.data.order"]);
  });

  test("the push waits for the send that was first, and is refused for it", async () => {
    const type = await newType();
    const opened = Promise.withResolvers<void>();
    hold.commit = opened.promise;
    const sent = sendHeld(type);
    const stored = () => sql`
      select from pg_stat_activity where datname = current_database() and state = 'idle in transaction'
      and query like '%payload_id as id from types%'`;
    await until(stored, (rows) => rows.length > 0);
    let settled = false;
    const pushed = push(type, STRICT).finally(() => {
      settled = true;
    });
    pushed.catch(() => undefined);
    const waits = () => sql`
      select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and wait_event = 'advisory'
        and pid in (select pid from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock' and not granted)`;
    await until(waits, (rows) => rows.length > 0 || settled);
    expect(settled).toBe(false);
    delete hold.commit;
    opened.resolve();
    const id = (await sent).results[0]?.notificationId;
    expect((await refusalOf(pushed)).fields).toEqual([`notification:${id}`]);
  });
});

test("of a send and a push that refuses it only one succeeds, whichever is first", async () => {
  for (let round = 0; round < 24; round++) {
    const type = await newType();
    const sent = () => key.send.send({ to: { userIds: ["fay"] }, type, content: content("abc"), schedule: later });
    // A push looks for some milliseconds, and a send comes anywhere in them.
    const race = [push(type, STRICT), ...Array.from({ length: 4 }, sent)];
    const [pushed, ...sends] = (await Promise.allSettled(race)).map(({ status }) => status === "fulfilled");
    const { notifications } = await key.send.listNotifications({ filter: { types: [type] } });
    expect(notifications).toHaveLength(sends.filter(Boolean).length);
    if (pushed) expect(notifications).toEqual([]);
  }
});
