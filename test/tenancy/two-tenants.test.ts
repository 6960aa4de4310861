import { expect, test } from "vitest";
import { platformOfFile } from "../support/platform.ts";
import { refusalOf } from "../support/refusal.ts";
import { openReader } from "../support/stream-reader.ts";
import { until } from "../support/until.ts";

const node = await platformOfFile({ roles: ["api", "stream", "worker"] });
const mine = node.key;
const other = await node.newTenant();
const theirs = node.clients(other.apiKey);

test("the same idempotency key in two tenants is two keys", async () => {
  const request = { to: { userIds: ["twin"] }, content: { title: "one" }, idempotencyKey: "order-1" };
  const [a, b] = await Promise.all([
    mine.send.send(request),
    theirs.send.send({ ...request, content: { title: "two" } }),
  ]);
  const [idA, idB] = [a.results[0]?.notificationId, b.results[0]?.notificationId];
  expect(idA).not.toBe(idB);
  // Each is answered its own again, and refused another request under it.
  expect((await mine.send.send(request)).results[0]?.notificationId).toBe(idA);
  expect((await theirs.send.send({ ...request, content: { title: "two" } })).results[0]?.notificationId).toBe(idB);
  expect(await refusalOf(theirs.send.send(request))).toMatchObject({ reason: "IDEMPOTENCY_KEY_REUSED" });
});

test("the same deduplication and collapse keys in two tenants suppress nothing", async () => {
  const request = { to: { userIds: ["twin"] }, content: { title: "dedup" }, dedupKey: "d", collapseKey: "c" };
  const answers = await Promise.all([mine, theirs].map((clients) => clients.send.send(request)));
  expect(answers.map(({ results }) => results[0]?.deduplicated)).toEqual([false, false]);
  const again = await Promise.all([mine, theirs].map((clients) => clients.send.send(request)));
  expect(again.map(({ results }) => results[0]?.deduplicated)).toEqual([true, true]);
  expect(again.map(({ results }) => results[0]?.notificationId)).toEqual(
    answers.map(({ results }) => results[0]?.notificationId),
  );
});

test("users, topics and devices of the same name hear their own tenant only", async () => {
  for (const clients of [mine, theirs]) {
    await clients.topics.upsertTopic({ topic: { key: "news" } });
    await clients.topics.addMembers({ key: "news", userIds: ["listener"] });
  }
  const request = { userId: "listener", deviceId: "phone", includeStatus: true };
  const [ear, theirEar] = [openReader(mine, request), openReader(theirs, request)];
  await Promise.all([ear.next("caughtUp"), theirEar.next("caughtUp")]);
  const content = { title: "loud" };
  await mine.stream.broadcast({ audience: { case: "tenant", value: true }, content });
  await mine.stream.broadcast({ audience: { case: "topic", value: "news" }, content });
  await mine.stream.broadcast({ audience: { case: "userId", value: "listener" }, content });
  const { results } = await mine.send.send({ to: { userIds: ["listener"] }, content });
  await mine.send.send({ to: { topics: ["news"] }, content });
  await ear.next("notification");
  await ear.next("notification");
  await mine.inbox.markRead({ userId: "listener", notificationIds: [results[0]?.notificationId ?? ""] });
  await mine.preferences.updatePreferences({ userId: "listener", preferences: { minimumPriority: 1 }, reason: "test" });
  await ear.next("preferences");
  expect(ear.all("announcement")).toHaveLength(3);

  // What the other tenant sends last comes first to its stream.
  await theirs.stream.broadcast({ audience: { case: "userId", value: "listener" }, content: { title: "quiet" } });
  await theirEar.next("announcement");
  // However long it took, and however many heartbeats came meanwhile.
  const kinds = theirEar.events.map(({ case: kind }) => kind).filter((kind) => kind !== "heartbeat");
  expect(kinds).toEqual(["hello", "caughtUp", "announcement"]);
  expect(theirEar.all("announcement").map((each) => each.content?.title)).toEqual(["quiet"]);
  await Promise.all([ear.close(), theirEar.close()]);
});

test("the operator's broadcast to all tenants reaches both", async () => {
  const ears = [mine, theirs].map((clients) => openReader(clients, { userId: "listener" }));
  await Promise.all(ears.map((ear) => ear.next("hello")));
  const { OPERATOR_KEY } = await import("../support/platform.ts");
  const audience = { case: "allTenants", value: true } as const;
  await node.clients(OPERATOR_KEY).stream.broadcast({ audience, content: { title: "maintenance" } });
  for (const ear of ears) expect((await ear.next("announcement")).content?.title).toBe("maintenance");
  await Promise.all(ears.map((ear) => ear.close()));
});

test("a cursor of one tenant tells nothing in another", async () => {
  await mine.send.send({ to: { userIds: ["cursor"] }, content: { title: "secret" } });
  const ear = openReader(mine, { userId: "cursor" });
  const { cursor } = await ear.next("caughtUp");
  await ear.close();
  const stranger = openReader(theirs, { userId: "cursor", cursor });
  await stranger.next("caughtUp");
  expect(stranger.all("notification")).toEqual([]);
  await stranger.close();
});

test("presence is of one's own tenant", async () => {
  const ear = openReader(mine, { userId: "present", deviceId: "phone" });
  await ear.next("hello");
  const of = async (clients: typeof mine) => (await clients.stream.getPresence({ userIds: ["present"] })).presences[0];
  // It is written down beside the stream, which does not wait for it.
  await until(
    () => of(mine),
    (presence) => presence?.online === true,
  );
  expect(await of(theirs)).toMatchObject({ online: false, devices: [] });
  await ear.close();
});

test("a user's token is worth nothing for the same user of another tenant", async () => {
  const { results } = await mine.send.send({ to: { userIds: ["same"] }, content: { title: "secret" } });
  const same = await node.clientsFor("same", other);
  expect((await same.inbox.listEntries({})).entries).toEqual([]);
  const notificationId = results[0]?.notificationId ?? "";
  expect(await refusalOf(same.inbox.getEntry({ notificationId }))).toMatchObject({ reason: "NOT_FOUND" });
});

test("revoking a user's tokens, suspending or a rotated key in one tenant leaves the other alone", async () => {
  const [one, two] = await Promise.all([node.clientsFor("pair"), node.clientsFor("pair", other)]);
  await mine.admin.revokeUserTokens({ userId: "pair" });
  await expect.poll(() => refusalOf(one.admin.whoAmI({})).catch(() => undefined)).toBeDefined();
  expect(await two.admin.whoAmI({})).toMatchObject({ tenantId: other.tenantId, userId: "pair" });
});
