import { expect, test } from "vitest";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { TopicService } from "#gen/posthorn/v1/topic_service_pb.ts";
import { UserService } from "#gen/posthorn/v1/user_service_pb.ts";
import { commitDecisions } from "#src/pipeline/route/commit.ts";
import { topicService } from "#src/services/topic-service.ts";
import { userService } from "#src/services/user-service.ts";
import { arrive } from "../support/arrive.ts";
import { fakeCall } from "../support/call.ts";
import { invoke } from "../support/invoke.ts";
import { onPostgres } from "../support/on-postgres.ts";
import { wrongInboxes } from "../support/recount.ts";
import { faultOf } from "../support/rejection.ts";
import { until } from "../support/until.ts";
import { wait, wrongSuppressions } from "../support/waiting.ts";

const setup = await onPostgres();
const { store, sql, time, newId, tenant, invalidations } = setup;
const left: [string, string, readonly string[]][] = [];
const deps = {
  ...setup,
  membershipChanged: (...change: [string, string, readonly string[]]) => void left.push(change),
};
const service = userService(deps);
const topics = topicService(deps);
const { upsertUser, getUser, deleteUser } = UserService.method;

const count = async (table: string, tenantId: string, userId: string): Promise<number> => {
  const [row] = await sql<{ count: number }[]>`
    select count(*)::int as count from ${sql(table)} where tenant_id = ${tenantId} and user_id = ${userId}`;
  return row?.count ?? -1;
};

test("a deleted user is gone with roles, memberships, preferences and inbox, and their tokens are revoked", async () => {
  const call = tenant();
  const { tenantId } = call;
  for (const id of ["ann", "bob"]) {
    await invoke(service, upsertUser, { user: { id, roles: ["staff"] } }, call);
    await sql`insert into preferences values (${tenantId}, ${id}, ${sql.json({})}, 1, ${time.now})`;
    await sql`insert into looks values (${tenantId}, ${id}, '{1}', ${time.now}, ${time.now})`;
    await sql`insert into subscriptions values (${tenantId}, ${id}, ${newId()}, 2, 'job', '', ${time.now}, ${time.now})`;
  }
  for (const key of ["news", "sales"]) {
    await invoke(topics, TopicService.method.upsertTopic, { topic: { key } }, call);
    await invoke(topics, TopicService.method.addMembers, { key, userIds: ["ann", "bob"] }, call);
  }
  await arrive({ store, newId, now: time.now }, tenantId, [
    ...Array.from({ length: 2100 }, () => ({ userId: "ann" })),
    { userId: "bob" },
    ...["ann", "bob"].map((userId) => ({ userId, group: { key: "k", maxSize: 10, windowMs: 60_000 } })),
  ]);

  await invoke(service, deleteUser, { id: "ann" }, call);

  expect((await faultOf(invoke(service, getUser, { id: "ann" }, call))).reason).toBe(ErrorReason.NOT_FOUND);
  for (const table of [
    "user_roles",
    "topic_members",
    "preferences",
    "looks",
    "subscriptions",
    "inbox",
    "inbox_heads",
    "inbox_groups",
  ]) {
    expect([table, await count(table, tenantId, "ann")]).toEqual([table, 0]);
    expect([table, await count(table, tenantId, "bob")]).not.toEqual([table, 0]);
  }
  expect(await wrongInboxes(sql)).toEqual([]);
  expect(await sql`select user_id, not_before from token_revocations where tenant_id = ${tenantId}`).toEqual([
    { user_id: "ann", not_before: time.now },
  ]);
  const counts = await sql`select key, member_count::int from topics where tenant_id = ${tenantId} order by key`;
  expect(counts).toEqual([
    { key: "news", member_count: 1 },
    { key: "sales", member_count: 1 },
  ]);
  expect(left.slice(-2)).toEqual([
    [tenantId, "news", ["ann"]],
    [tenantId, "sales", ["ann"]],
  ]);
  const audit = await sql`select actor, action, target from audit_entries where tenant_id = ${tenantId}`;
  expect(audit).toEqual([{ actor: call.actor, action: "user.delete", target: "user:ann" }]);
  const published = invalidations.published.filter(([, tenant, key]) => tenant === tenantId && key.includes("ann"));
  expect(new Set(published.map(([kind]) => kind))).toEqual(new Set(["user", "preferences", "credential"]));
});

test("what waits for a deleted user is suppressed once, with history and counters, and nothing else is", async () => {
  const call = tenant();
  const { tenantId } = call;
  const now = time.now;
  const waiting = await wait(setup, tenantId, [
    ...Array.from({ length: 2500 }, () => ({ userId: "ann", type: "news" })),
    ...Array.from({ length: 40 }, () => ({ userId: "ann", type: "orders", status: Status.SCHEDULED })),
    { userId: "ann", type: "orders", status: Status.HELD },
  ]);
  const [cancelled = "", bobs = ""] = await wait(setup, tenantId, [
    { userId: "ann", type: "news", status: Status.CANCELLED },
    { userId: "bob", type: "news" },
  ]);
  time.now = new Date(now.getTime() + 60_000);
  await invoke(service, deleteUser, { id: "ann" }, call);
  await invoke(service, deleteUser, { id: "ann" }, call);

  const rows = await sql`
    select id, status, reason, due_at, updated_at from notifications where tenant_id = ${tenantId} order by id`;
  const suppressed = rows.filter((row) => row.status === Status.SUPPRESSED);
  expect(suppressed.map((row) => row.id)).toEqual(waiting);
  expect(suppressed.every((row) => row.reason === Reason.USER_DELETED && row.due_at === null)).toBe(true);
  expect(suppressed.every((row) => row.updated_at.getTime() === time.now.getTime())).toBe(true);
  expect(rows.find((row) => row.id === cancelled)?.status).toBe(Status.CANCELLED);
  expect(rows.find((row) => row.id === bobs)?.status).toBe(Status.ACCEPTED);
  const told = await sql`
    select at, channel, reason, actor, count(*)::int as entries from timeline where tenant_id = ${tenantId}
    group by 1, 2, 3, 4`;
  expect(told).toEqual([
    { at: time.now, channel: 0, reason: Reason.USER_DELETED, actor: call.actor, entries: waiting.length },
  ]);
  expect(await sql`select type, count::int from counters where tenant_id = ${tenantId} order by type`).toEqual([
    { type: "news", count: 2500 },
    { type: "orders", count: 41 },
  ]);
  expect(await wrongSuppressions(sql, tenantId)).toEqual([]);
});

test("a deletion among decisions ends or delivers each notification, and the inbox agrees with its head", async () => {
  const call = tenant();
  const { tenantId } = call;
  const outcomes = new Set<number>();
  for (let round = 0; round < 6; round++) {
    const userId = `user-${round}`;
    const ids = await wait(
      setup,
      tenantId,
      Array.from({ length: 300 }, () => ({ userId })),
    );
    await wait(
      setup,
      tenantId,
      Array.from({ length: 300 }, () => ({ userId: "other" })),
    );
    const decide = (part: string[]) =>
      store.tenant(tenantId, (tx) =>
        commitDecisions(
          tx,
          tenantId,
          part.map((id) => ({ id, status: Status.DELIVERED, reason: 0, dueAt: undefined, detail: undefined })),
          { now: time.now, slot: 1, epoch: round },
        ),
      );
    // One after the other, so that the deletion comes among them.
    const decideAll = async () => {
      for (let from = 0; from < ids.length; from += 5) await decide(ids.slice(from, from + 5));
    };
    await Promise.all([decideAll(), invoke(service, deleteUser, { id: userId }, call)]);
    const rows =
      await sql`select distinct status from notifications where tenant_id = ${tenantId} and user_id = ${userId}`;
    for (const { status } of rows) outcomes.add(status);
    expect(await wrongInboxes(sql)).toEqual([]);
    expect(await wrongSuppressions(sql, tenantId)).toEqual([]);
  }
  expect([...outcomes].sort()).toEqual([Status.SUPPRESSED, Status.DELIVERED].sort());
});

test("what is delivered while the deletion waits for its lock stays delivered", async () => {
  const call = tenant();
  const [delivered = "", waiting = ""] = await wait(setup, call.tenantId, [{ userId: "ann" }, { userId: "ann" }]);
  let deletion: Promise<unknown> = Promise.resolve();
  await sql.begin(async (tx) => {
    await tx`update notifications set status = ${Status.DELIVERED} where id = ${delivered}`;
    deletion = invoke(service, deleteUser, { id: "ann" }, call);
    for (let blocked = false; !blocked; ) {
      blocked =
        (await sql`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`)
          .length > 0;
    }
  });
  await deletion;
  expect(await sql`select id, status from notifications where tenant_id = ${call.tenantId} order by id`).toEqual([
    { id: delivered, status: Status.DELIVERED },
    { id: waiting, status: Status.SUPPRESSED },
  ]);
  expect(await wrongSuppressions(sql, call.tenantId)).toEqual([]);
});

test("a deletion waits for a change of subscriptions without standing in its way, and takes what it made", async () => {
  const call = tenant();
  const { tenantId } = call;
  await invoke(service, upsertUser, { user: { id: "ann" } }, call);
  const subscribe = (tx: typeof sql, key: string) =>
    tx`insert into subscriptions values (${tenantId}, 'ann', ${newId()}, 2, ${key}, '', ${time.now}, ${time.now})`;
  await sql`insert into preferences values (${tenantId}, 'ann', ${sql.json({})}, 1, ${time.now})`;
  await subscribe(sql, "job");
  let deletion: Promise<unknown> | undefined;
  await sql.begin(async (tx) => {
    await tx`select from preferences where tenant_id = ${tenantId} and user_id = 'ann' for update`;
    deletion = invoke(service, deleteUser, { id: "ann" }, call);
    await until(
      () => sql`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
      (waiting) => waiting.length > 0,
    );
    await tx`set local lock_timeout = '500ms'`;
    await tx`update subscriptions set filter = 'true' where tenant_id = ${tenantId} and user_id = 'ann'`;
    await subscribe(tx as unknown as typeof sql, "news");
  });
  await deletion;
  expect(await count("subscriptions", tenantId, "ann")).toBe(0);
});

test("a deletion that was given up is completed by its repetition", async () => {
  const call = tenant();
  await invoke(service, upsertUser, { user: { id: "ann" } }, call);
  await wait(setup, call.tenantId, [{ userId: "ann" }]);
  const given = AbortSignal.abort(new Error("gave up"));
  const hasty = fakeCall({ tenantId: call.tenantId, signal: given });
  await expect(invoke(service, deleteUser, { id: "ann" }, hasty)).rejects.toThrow("gave up");
  const status = async () =>
    (await sql`select status from notifications where tenant_id = ${call.tenantId}`)[0]?.status;
  expect(await status()).toBe(Status.ACCEPTED);
  await invoke(service, deleteUser, { id: "ann" }, call);
  expect(await status()).toBe(Status.SUPPRESSED);
});

test("a deletion takes hand-overs before escalations, as whoever notes what came of them does, or cancels", async () => {
  const call = tenant();
  const { tenantId } = call;
  const id = newId();
  await invoke(service, upsertUser, { user: { id: "ann" } }, call);
  await sql`insert into escalations (tenant_id, notification_id, user_id, steps, confirmation_required, state, taken)
    values (${tenantId}, ${id}, 'ann', ${sql.json([])}, false, 1, 0)`;
  await sql`insert into hand_overs (tenant_id, notification_id, user_id, step, channel, attempts, due_at)
    values (${tenantId}, ${id}, 'ann', 0, 2, 0, ${time.now})`;
  const { deletion } = await sql.begin(async (noting) => {
    await noting`select from hand_overs where tenant_id = ${tenantId} and notification_id = ${id} for update`;
    const [own] = await noting<{ pid: number }[]>`select pg_backend_pid() as pid`;
    const deletion = invoke(service, deleteUser, { id: "ann" }, call);
    await until(
      () => sql`select from pg_stat_activity where ${own?.pid ?? 0}::int = any(pg_blocking_pids(pid))`,
      (rows) => rows.length > 0,
    );
    await noting`select from escalations where tenant_id = ${tenantId} and notification_id = ${id} for update nowait`;
    return { deletion };
  });
  await deletion;
  for (const table of ["escalations", "hand_overs"]) expect(await count(table, tenantId, "ann")).toBe(0);
});
