import { expect, test } from "vitest";
import { platformOfFile } from "../support/platform.ts";
import { until } from "../support/until.ts";

const { key, clientsFor } = await platformOfFile();

/** Sends one after the other, each decided before the next. */
async function send(userId: string, ...sends: { type?: string; groupKey?: string; senderId?: string }[]) {
  for (const each of sends) {
    const content = { title: `from ${each.senderId ?? "nobody"}` };
    await key.send.send({ to: { userIds: [userId] }, content, waitForDecision: { seconds: 10n }, ...each });
  }
}

test("comments on one thing are one line, those of a type that says so too, and the rest stays as it is", async () => {
  await key.types.createType({ type: { key: "like", displayName: "Like", category: "social", group: true } });
  const ann = await clientsFor("ann");
  await send("ann", { groupKey: "comments:7", senderId: "bob" }, { senderId: "zoe" });
  await send("ann", { groupKey: "comments:7", senderId: "cleo" }, { type: "like", senderId: "bob" });
  await send("ann", { type: "like", senderId: "dora" }, { type: "like", groupKey: "comments:7", senderId: "bob" });
  const { entries, counts } = await ann.inbox.listEntries({ grouped: true });
  expect(entries.map(({ sequence, group }) => [sequence, group?.key, group?.size, group?.senders])).toEqual([
    [6n, "comments:7", 3, ["bob", "cleo"]],
    [5n, "type:like", 2, ["dora", "bob"]],
    [2n, undefined, undefined, undefined],
  ]);
  expect(counts).toMatchObject({ unread: 6, total: 6 });
  const plain = await ann.inbox.listEntries({});
  expect(plain.entries.map(({ sequence, group }) => [sequence, group])).toEqual(
    [6n, 5n, 4n, 3n, 2n, 1n].map((sequence) => [sequence, undefined]),
  );
  const first = entries[0]?.group?.firstSequence ?? 0n;
  expect(await ann.inbox.markAllRead({ filter: { group: first } })).toMatchObject({ changed: 3 });
  const { notification } = await key.send.getNotification({ id: entries[1]?.notificationId ?? "" });
  expect(notification?.groupKey).toBe("type:like");
});

test("groups are as large as their user wants, or are not", async () => {
  const bob = await clientsFor("bob");
  const sizes = async () => {
    await send("bob", { groupKey: "k" }, { groupKey: "k" }, { groupKey: "k" });
    const { entries } = await bob.inbox.listEntries({ grouped: true });
    await bob.inbox.clear({});
    return entries.map(({ group }) => group?.size);
  };
  await bob.preferences.updatePreferences({ preferences: { grouping: { maxSize: 2 } } });
  expect(await bob.preferences.getEffectivePreferences({})).toMatchObject({
    preferences: { grouping: { enabled: true, maxSize: 2, window: { seconds: 3600n } } },
  });
  await until(sizes, (all) => all.length === 2 && all.every((size) => (size ?? 0) <= 2), 10_000);
  await bob.preferences.updatePreferences({ preferences: { grouping: { enabled: false } } });
  await until(sizes, (all) => all.length === 3 && all.every((size) => size === undefined), 10_000);
});

test("what is sent to a topic is grouped for each of its members", async () => {
  await key.topics.upsertTopic({ topic: { key: "club" } });
  await key.topics.addMembers({ key: "club", userIds: ["cid", "dan"] });
  for (const title of ["one", "two"])
    await key.send.send({ to: { topics: ["club"] }, content: { title }, groupKey: "g" });
  for (const userId of ["cid", "dan"]) {
    const list = () => key.inbox.listEntries({ userId, grouped: true });
    // Not until the counts say so: they are read after the page, and the second may come between.
    const { entries } = await until(list, (answer) => answer.entries[0]?.group?.size === 2);
    expect(entries).toMatchObject([{ group: { key: "g", size: 2, senders: [], senderCount: 0 } }]);
  }
});
