import { describe, expect, test } from "vitest";
import { Code } from "#src/errors.ts";
import { platformOfFile } from "../support/platform.ts";
import { refusalOf } from "../support/refusal.ts";
import { openReader } from "../support/stream-reader.ts";
import { until } from "../support/until.ts";

const node = await platformOfFile({ roles: ["api", "stream", "worker"] });
const { key } = node;

/** User ids that mean something to NATS, Redis, SQL, JSON or JavaScript, or are a part of one another. */
const NAMES = [
  "*",
  ">",
  "**",
  "a",
  "a.b",
  "a.*",
  "a.>",
  ".",
  "..",
  "a.b.c",
  "a:b",
  "a/b",
  "{a}",
  "}",
  "%",
  "_",
  "\\",
  "'",
  '"',
  "';--",
  '","',
  "null",
  "NULL",
  "undefined",
  "__proto__",
  "constructor",
  "0",
  "-1",
  "$1",
  "live.all",
  "#",
  "!",
  "=",
  "KG",
];

test("an id with wildcards, dots or quotes hears its own events only", async () => {
  const readers = NAMES.map((userId) => ({ userId, reader: openReader(key, { userId, includeStatus: true }) }));
  await Promise.all(readers.map(({ reader }) => reader.next("hello")));
  await key.send.send({ to: { userIds: NAMES }, content: { title: "all" } });
  // What is sent later may be decided sooner, so that one comes first.
  await Promise.all(readers.map(({ reader }) => reader.next("notification")));
  for (const userId of NAMES) {
    await key.send.send({ to: { userIds: [userId] }, content: { title: `to ${userId}` } });
    await key.stream.broadcast({ audience: { case: "userId", value: userId }, content: { title: `for ${userId}` } });
  }
  // Comes after all that was sent to each.
  await key.stream.broadcast({ audience: { case: "tenant", value: true }, content: { title: "the end" } });
  for (const { userId, reader } of readers) {
    await reader.next("notification", ({ entry }) => entry?.content?.title === `to ${userId}`);
    const titles = () => reader.all("announcement").map(({ content }) => content?.title);
    if (!titles().includes("the end")) await reader.next("announcement", ({ content }) => content?.title === "the end");
    expect(reader.all("notification").map(({ entry }) => entry?.content?.title)).toEqual(["all", `to ${userId}`]);
    expect(titles()).toEqual([`for ${userId}`, "the end"]);
    await reader.close();
  }
});

test("an id finds its own inbox, profile and preferences only", async () => {
  for (const id of NAMES) {
    await key.users.upsertUser({ user: { id, displayName: `I am ${id}` } });
    await key.preferences.updatePreferences({ userId: id, preferences: { minimumPriority: 1 }, reason: "test" });
  }
  for (const [index, id] of NAMES.entries()) {
    const { entries } = await key.inbox.listEntries({ userId: id });
    expect(entries.map(({ content }) => content?.title)).toEqual([`to ${id}`, "all"]);
    expect((await key.users.getUser({ id })).user).toMatchObject({ id, displayName: `I am ${id}` });
    await key.users.deleteUser({ id });
    const next = NAMES[index + 1];
    if (next === undefined) break;
    // Deleting one leaves the next alone.
    expect((await key.inbox.getCounts({ userId: next })).counts).toMatchObject({ total: 2 });
    expect((await key.preferences.getPreferences({ userId: next })).preferences).toMatchObject({ minimumPriority: 1 });
  }
});

test("a token for an id with wildcards is for nobody else", async () => {
  for (const userId of ["*", ">", "a.*", "%"]) {
    const own = await node.clientsFor(userId);
    expect(await own.admin.whoAmI({})).toMatchObject({ userId });
    for (const other of ["a", "a.b"]) {
      expect(await refusalOf(own.inbox.listEntries({ userId: other }))).toMatchObject({ code: Code.NOT_FOUND });
      expect(await refusalOf(own.stream.getPresence({ userIds: [other] }))).toMatchObject({ code: Code.NOT_FOUND });
    }
  }
});

test("devices and users whose names run together are told apart", async () => {
  const one = openReader(key, { userId: "join", deviceId: "a:b" });
  await one.next("hello");
  // It is written down beside the streams, which do not wait for it; nor do those of the test above, which have ended.
  const { presences } = await until(
    () => key.stream.getPresence({ userIds: ["join", "join:a", "join:a:b", "joi", "*"] }),
    (answer) => answer.presences.every(({ userId, online }) => online === (userId === "join")),
  );
  expect(presences.map(({ userId, online }) => [userId, online])).toEqual([
    ["join", true],
    ["join:a", false],
    ["join:a:b", false],
    ["joi", false],
    ["*", false],
  ]);
  expect(presences[0]?.devices.map(({ deviceId }) => deviceId)).toEqual(["a:b"]);
  await one.close();
});

describe("what no id may hold is refused before it reaches anything", () => {
  const content = { title: "x" };
  test.each(["a b", " ", "a\tb", "a\nb", "a\0b", "é", "用户", "😀", "\u202e", "a\u00a0b", "x".repeat(129)])(
    "user id %j",
    async (userId) => {
      for (const call of [
        key.send.send({ to: { userIds: [userId] }, content }),
        key.inbox.listEntries({ userId }),
        key.users.upsertUser({ user: { id: userId } }),
        key.admin.createUserToken({ userId }),
        key.stream.broadcast({ audience: { case: "userId", value: userId }, content }),
        key.stream.getPresence({ userIds: [userId] }),
      ])
        expect(await refusalOf(call)).toMatchObject({ reason: "INVALID_REQUEST" });
      expect((await openReader(key, { userId }).ended)?.code).toBe(Code.INVALID_ARGUMENT);
    },
  );

  test.each(["*", ">", "a.*", "a.b", "a b", "é", "{a}", "a:b"])("topic %j", async (topic) => {
    expect(await refusalOf(key.topics.upsertTopic({ topic: { key: topic } }))).toMatchObject({
      reason: "INVALID_REQUEST",
    });
    const audience = { case: "topic", value: topic } as const;
    expect(await refusalOf(key.stream.broadcast({ audience, content }))).toMatchObject({ reason: "INVALID_REQUEST" });
    const filtered = openReader(key, { userId: "a", filter: { topics: [topic] } });
    expect((await filtered.ended)?.code).toBe(Code.INVALID_ARGUMENT);
  });

  test.each(["*", ">", "a b", "é", "{a}", "'"])("device %j", async (deviceId) => {
    expect((await openReader(key, { userId: "a", deviceId }).ended)?.code).toBe(Code.INVALID_ARGUMENT);
  });
});
