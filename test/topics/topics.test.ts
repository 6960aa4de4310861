import { expect, test } from "vitest";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { TopicService } from "#gen/posthorn/v1/topic_service_pb.ts";
import { UserService } from "#gen/posthorn/v1/user_service_pb.ts";
import { topicService } from "#src/services/topic-service.ts";
import { userService } from "#src/services/user-service.ts";
import { fakeCall, userOf } from "../support/call.ts";
import { invoke } from "../support/invoke.ts";
import { onPostgres } from "../support/on-postgres.ts";
import { faultOf } from "../support/rejection.ts";

const setup = await onPostgres();
const { sql, time, tenant } = setup;
const changes: { tenantId: string; topic: string; userIds: readonly string[] }[] = [];
const deps = {
  ...setup,
  membershipChanged: (tenantId: string, topic: string, userIds: readonly string[]) =>
    void changes.push({ tenantId, topic, userIds }),
};
const service = topicService(deps);
const users = userService(deps);
const { upsertTopic, getTopic, listTopics, deleteTopic, addMembers, removeMembers, listMembers, listUserTopics } =
  TopicService.method;

const names = (count: number) => Array.from({ length: count }, (_, n) => `user-${String(n).padStart(4, "0")}`);

/** Topics whose member_count is not the number of their members. */
function miscounted(): Promise<readonly unknown[]> {
  return sql`
    select t.tenant_id, t.key, t.member_count::int, count(m.user_id)::int as members
    from topics t full join topic_members m on m.tenant_id = t.tenant_id and m.topic = t.key
    group by t.tenant_id, t.key, t.member_count having t.member_count is distinct from count(m.user_id)`;
}

test("a topic is created, described anew, and keeps its members", async () => {
  const call = tenant();
  const created = await invoke(
    service,
    upsertTopic,
    { topic: { key: "news", description: "Old", memberCount: 9n } },
    call,
  );
  expect(created.topic).toMatchObject({ key: "news", description: "Old", memberCount: 0n });
  await invoke(service, addMembers, { key: "news", userIds: ["ann", "bob"] }, call);
  time.now = new Date(time.now.getTime() + 1000);
  const changed = await invoke(service, upsertTopic, { topic: { key: "news", description: "New" } }, call);
  expect(changed.topic).toEqual({ ...created.topic, description: "New", memberCount: 2n });
  expect((await invoke(service, getTopic, { key: "news" }, call)).topic).toEqual(changed.topic);
});

test("who joins or leaves is counted once, and told to those who listen", async () => {
  const call = tenant();
  const { tenantId } = call;
  await invoke(service, upsertTopic, { topic: { key: "news" } }, call);
  changes.length = 0;
  const join = (userIds: string[]) => invoke(service, addMembers, { key: "news", userIds }, call);
  const leave = (userIds: string[]) => invoke(service, removeMembers, { key: "news", userIds }, call);
  expect((await join(["ann", "bob", "ann"])).added).toBe(2);
  expect((await join(["bob", 'od{d"\\,', "eve"])).added).toBe(2);
  expect((await join(["bob"])).added).toBe(0);
  expect((await leave(["ann", "ann", "nobody"])).removed).toBe(1);
  expect((await leave(["ann"])).removed).toBe(0);
  expect(changes.map((change) => [change.topic, [...change.userIds].sort()])).toEqual([
    ["news", ["ann", "bob"]],
    ["news", ["eve", 'od{d"\\,']],
    ["news", ["ann"]],
  ]);
  expect(changes.every((change) => change.tenantId === tenantId)).toBe(true);
  expect((await invoke(service, getTopic, { key: "news" }, call)).topic?.memberCount).toBe(3n);
  expect(await miscounted()).toEqual([]);
});

test("a topic that does not exist, or is another tenant's, is not found", async () => {
  const [call, other] = [tenant(), tenant()];
  await invoke(service, upsertTopic, { topic: { key: "news" } }, other);
  for (const refused of [
    () => invoke(service, getTopic, { key: "news" }, call),
    () => invoke(service, addMembers, { key: "news", userIds: ["ann"] }, call),
    () => invoke(service, removeMembers, { key: "news", userIds: ["ann"] }, call),
    () => invoke(service, listMembers, { key: "news" }, call),
  ]) {
    expect((await faultOf(refused())).reason).toBe(ErrorReason.NOT_FOUND);
  }
  await invoke(service, deleteTopic, { key: "news" }, call);
  expect((await invoke(service, getTopic, { key: "news" }, other)).topic?.key).toBe("news");
});

test("members, topics and a user's topics are listed in order, each once", async () => {
  const call = tenant();
  const everyone = names(23);
  const keys = Array.from({ length: 12 }, (_, n) => `t${String(n).padStart(2, "0")}`);
  for (const key of keys) await invoke(service, upsertTopic, { topic: { key } }, call);
  await invoke(service, addMembers, { key: "t05", userIds: everyone.toReversed() }, call);
  for (const key of keys.slice(3)) await invoke(service, addMembers, { key, userIds: ["user-0007"] }, call);

  const all = async <T>(read: (pageToken: string) => Promise<{ items: T[]; nextPageToken: string }>) => {
    const found: T[] = [];
    for (let page = await read(""); ; page = await read(page.nextPageToken)) {
      found.push(...page.items);
      if (page.nextPageToken === "") return found;
    }
  };
  const members = await all(async (pageToken) => {
    const page = await invoke(service, listMembers, { key: "t05", pageSize: 5, pageToken }, call);
    return { items: page.userIds, nextPageToken: page.nextPageToken };
  });
  expect(members).toEqual(everyone);
  const listed = await all(async (pageToken) => {
    const page = await invoke(service, listTopics, { pageSize: 5, pageToken }, call);
    return { items: page.topics.map((topic) => topic.key), nextPageToken: page.nextPageToken };
  });
  expect(listed).toEqual(keys);
  const own = fakeCall({ tenantId: call.tenantId, principal: userOf(call.tenantId, "user-0007") });
  for (const [userId, by] of [
    ["user-0007", call],
    ["", own],
  ] as const) {
    const theirs = await all(async (pageToken) => {
      const page = await invoke(service, listUserTopics, { userId, pageSize: 4, pageToken }, by);
      return { items: page.topics, nextPageToken: page.nextPageToken };
    });
    expect(theirs).toEqual(keys.slice(3));
  }
});

test("a list's token is refused by another topic's list", async () => {
  const call = tenant();
  for (const key of ["a", "b"]) {
    await invoke(service, upsertTopic, { topic: { key } }, call);
    await invoke(service, addMembers, { key, userIds: names(3) }, call);
  }
  const { nextPageToken: pageToken } = await invoke(service, listMembers, { key: "a", pageSize: 1 }, call);
  const refused = await faultOf(invoke(service, listMembers, { key: "b", pageSize: 1, pageToken }, call));
  expect(refused.reason).toBe(ErrorReason.INVALID_PAGE_TOKEN);
});

test("a deleted topic takes its thousands of memberships with it, and its end is told", async () => {
  const call = tenant();
  const everyone = names(2500);
  await invoke(service, upsertTopic, { topic: { key: "big" } }, call);
  await invoke(service, upsertTopic, { topic: { key: "other" } }, call);
  for (let from = 0; from < everyone.length; from += 1000) {
    await invoke(service, addMembers, { key: "big", userIds: everyone.slice(from, from + 1000) }, call);
  }
  await invoke(service, addMembers, { key: "other", userIds: everyone.slice(0, 5) }, call);
  changes.length = 0;
  await invoke(service, deleteTopic, { key: "big" }, call);
  await invoke(service, deleteTopic, { key: "big" }, call);
  expect(changes.flatMap((change) => change.userIds).sort()).toEqual(everyone);
  expect((await faultOf(invoke(service, getTopic, { key: "big" }, call))).reason).toBe(ErrorReason.NOT_FOUND);
  expect(await miscounted()).toEqual([]);
  expect((await invoke(service, listUserTopics, { userId: "user-0000" }, call)).topics).toEqual(["other"]);
});

test("the count is exact whoever joins, leaves, is deleted or deletes the topic at once", async () => {
  const call = tenant();
  const everyone = names(40);
  const orNotFound = (work: Promise<unknown>) =>
    work.catch((error: unknown) => {
      if ((error as { reason?: unknown }).reason !== ErrorReason.NOT_FOUND) throw error;
    });
  for (let round = 0; round < 6; round++) {
    const keys = ["a", "b", "c"];
    for (const key of keys) await invoke(service, upsertTopic, { topic: { key } }, call);
    await Promise.all(
      Array.from({ length: 30 }, (_, n) => {
        const key = keys[n % 3] ?? "";
        const userIds = everyone.slice(n, n + 10).toReversed();
        if (n === 13 && round % 2 === 1) return invoke(service, deleteTopic, { key }, call);
        if (n % 10 === 9) return invoke(users, UserService.method.deleteUser, { id: userIds[0] ?? "" }, call);
        if (n % 3 === n % 2) return orNotFound(invoke(service, removeMembers, { key, userIds }, call));
        return orNotFound(invoke(service, addMembers, { key, userIds }, call));
      }),
    );
    expect(await miscounted()).toEqual([]);
  }
});
