import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Registry } from "prom-client";
import { expect, test } from "vitest";
import { Tenant_State } from "#gen/posthorn/v1/admin_service_pb.ts";
import { ContentSchema, Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { ScheduleSchema, Schedule_State as State } from "#gen/posthorn/v1/schedule_service_pb.ts";
import { Fanout_State, SendRequestSchema } from "#gen/posthorn/v1/send_service_pb.ts";
import { takeSteps } from "#src/breathe.ts";
import type { AcceptDeps } from "#src/pipeline/accept/accept.ts";
import { cancelFanoutsWith } from "#src/pipeline/accept/fanout.ts";
import { sendOccurrences } from "#src/schedule/occurrences.ts";
import { followType, insertSchedule } from "#src/schedules/queries.ts";
import { checkTiming, definitionOf, standing } from "#src/schedules/schedule.ts";
import type { Store } from "#src/store/store.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { createMetrics } from "#src/telemetry/metrics.ts";
import { updateTenant } from "#src/tenants/tenants.ts";
import { seedGeneralType } from "#src/types/seed.ts";
import { onPostgres } from "../support/on-postgres.ts";

const { store, sql, time, clock, newId, tenant, invalidations } = await onPostgres();
const log = createLogger({ serviceName: "test", logLevel: "silent", logFormat: "json" });
const metrics = createMetrics(new Registry());
const HOUR = 3_600_000;
const scheduler = (over: Store) => {
  const accept: AcceptDeps = {
    store: over,
    queue: { enqueue: async () => undefined, enqueueFanout: async () => undefined },
    clock,
    newId,
    metrics,
    findType: () => undefined,
    dedupWindowMs: 1000,
    reloadType: async () => undefined,
    recipientsOf: async () => new Map(),
    payloadsOf: async () => ({}),
    superseded: () => undefined,
  };
  return { accept, slot: 1, log };
};

/** Dies in the n-th transaction: before its commit, which undoes it, or after, when nobody is told. */
function dying(at: number, when: "before" | "after"): Store {
  let count = 0;
  return {
    ...store,
    tenant: async (tenantId, work) => {
      const mine = ++count === at;
      const result = await store.tenant(tenantId, async (tx) => {
        const done = await work(tx, () => undefined);
        if (mine && when === "before") throw new Error("killed before the commit");
        return done;
      });
      if (mine) throw new Error("killed after the commit");
      return result;
    },
  };
}

/** Schedules `<prefix>0`, `<prefix>1` … of a tenant, first due in an hour. */
async function schedules(
  tenantId: string,
  count: number,
  recurrence: string,
  { prefix = "s", priority = Priority.UNSPECIFIED as Priority, dedupKey = "" } = {},
) {
  const now = clock();
  const localStartTime = new Date(now.getTime() + HOUR).toISOString().slice(0, 19);
  const request = { to: { userIds: ["ann", "ben", "cat"] }, content: { title: "Hi" }, priority, dedupKey };
  const made = Array.from({ length: count }, (_, n) => {
    const asked = { key: `${prefix}${n}`, request, recurrence, localStartTime, timeZone: "UTC" };
    return definitionOf(create(ScheduleSchema, asked));
  });
  const [first] = made;
  if (first === undefined) return;
  const begun = await takeSteps(standing(await takeSteps(checkTiming(first, now)), now, null));
  await store.tenantDb(tenantId, async (db) => {
    await seedGeneralType(db, tenantId, now);
    for (const definition of made) await insertSchedule(db, tenantId, definition, begun, now);
  });
}

/** Copies a tenant's only schedule, so that there are `count`, each to a user of its own. */
const copies = (tenantId: string, count: number) => sql`
  insert into schedules (tenant_id, key, request, user_ids, users_only, type, priority, lane, rule, start_time, time_zone,
    state, occurrence, fires_at, not_before, revision, created_at, updated_at)
  select tenant_id, key || '-' || n, request, array['u' || n], users_only, type, priority, lane, rule, start_time, time_zone,
    state, occurrence, fires_at, not_before, revision, created_at, updated_at
  from schedules, generate_series(2, ${count}::int) as n where tenant_id = ${tenantId}`;
/** Has it send until there is nothing more to do. */
const toTheEnd = async (each: ReturnType<typeof scheduler>, limit: number) => {
  while ((await sendOccurrences(each, clock(), limit)) > 0);
};

test("every occurrence is stored once, whatever is killed between its claim and its commit, and however many look", async () => {
  const { tenantId } = tenant();
  await schedules(tenantId, 12, "FREQ=HOURLY;COUNT=4");
  for (let hour = 0; hour < 4; hour++) {
    time.now = new Date(time.now.getTime() + HOUR);
    const mortal = Array.from({ length: 4 }, (_, n) =>
      scheduler(dying(1 + (n >> 1), n % 2 === 0 ? "before" : "after")),
    );
    const ends = await Promise.allSettled(mortal.map((each) => toTheEnd(each, 1)));
    expect(ends.some(({ status }) => status === "rejected")).toBe(true);
    await Promise.all([1, 2, 3].map(() => sendOccurrences(scheduler(store), clock(), 200)));
    expect(await sendOccurrences(scheduler(store), clock(), 200)).toBe(0);
    const sent = await sql`
      select tags[1] as tag, user_id, count(*)::int as n from notifications where tenant_id = ${tenantId}
      group by 1, 2 having count(*) <> ${hour + 1}`;
    expect(sent).toEqual([]);
  }
  const [total] = await sql`select count(*)::int as n from notifications where tenant_id = ${tenantId}`;
  expect(total).toEqual({ n: 12 * 3 * 4 });
  const ends = await sql`
    select distinct state, fired::int, missed::int from schedules where tenant_id = ${tenantId}`;
  expect(ends).toEqual([{ state: State.ENDED, fired: 4, missed: 0 }]);
});

test("one that cannot be sent keeps no other from it", async () => {
  const { tenantId } = tenant();
  await schedules(tenantId, 6, "FREQ=DAILY;COUNT=1");
  await sql`update schedules set request = 'broken' where tenant_id = ${tenantId} and key = 's2'`;
  time.now = new Date(time.now.getTime() + HOUR);
  expect(await sendOccurrences(scheduler(store), clock(), 200)).toBe(6);
  const left = await sql`select key from schedules where tenant_id = ${tenantId} and fires_at is not null`;
  expect(left).toEqual([{ key: "s2" }]);
  await sql`delete from schedules where tenant_id = ${tenantId}`;
});

test("ones that can never be sent as they are do not stand in front of the others, and miss their occurrences", async () => {
  const { tenantId } = tenant();
  await schedules(tenantId, 4, "FREQ=DAILY");
  await sql`update schedules set start_time = 'never' where tenant_id = ${tenantId} and key in ('s0', 's1')`;
  time.now = new Date(time.now.getTime() + HOUR);
  await sql`update schedules set fires_at = fires_at - interval '1 s' where tenant_id = ${tenantId} and key in ('s0', 's1')`;
  expect(await sendOccurrences(scheduler(store), clock(), 2)).toBe(2);
  expect(await sendOccurrences(scheduler(store), clock(), 4)).toBe(2);
  expect(await sendOccurrences(scheduler(store), clock(), 4)).toBe(0);
  // Mended before it is looked at again: what was too late by then is missed, and it goes on.
  await sql`update schedules set start_time = '2020-01-01T00:00:00', rule = 'FREQ=HOURLY' where tenant_id = ${tenantId} and key = 's0'`;
  time.now = new Date(time.now.getTime() + HOUR + 1);
  await sendOccurrences(scheduler(store), clock(), 4);
  const ends = await sql`
    select key, missed > 0 as missed, fires_at > ${clock()} as ahead from schedules where tenant_id = ${tenantId} order by key`;
  expect(ends).toEqual([
    { key: "s0", missed: true, ahead: true },
    { key: "s1", missed: false, ahead: true },
    { key: "s2", missed: false, ahead: true },
    { key: "s3", missed: false, ahead: true },
  ]);
  await sql`delete from schedules where tenant_id = ${tenantId}`;
});

const suspended = async () => {
  const { tenantId } = tenant();
  await sql`insert into tenants (id, display_name, state, created_at)
    values (${tenantId}, 'Quiet', ${Tenant_State.SUSPENDED}, ${clock()})`;
  return tenantId;
};
const resume = (tenantId: string) =>
  updateTenant({ store, newId, clock, invalidations }, "operator", tenantId, {
    displayName: undefined,
    state: Tenant_State.ACTIVE,
  });

test("those of suspended tenants are looked at once, and are sent when their tenant is resumed", async () => {
  const tenantId = await suspended();
  await schedules(tenantId, 3, "FREQ=DAILY");
  time.now = new Date(time.now.getTime() + HOUR);
  expect(await sendOccurrences(scheduler(store), clock(), 200)).toBe(3);
  expect(await sendOccurrences(scheduler(store), clock(), 200)).toBe(0);
  const sent = () => sql`select id from notifications where tenant_id = ${tenantId}`;
  expect(await sent()).toEqual([]);
  await resume(tenantId);
  expect(await sendOccurrences(scheduler(store), clock(), 200)).toBe(3);
  expect(await sent()).toHaveLength(9);
  const state = await sql`select distinct fired::int, missed::int from schedules where tenant_id = ${tenantId}`;
  expect(state).toEqual([{ fired: 1, missed: 0 }]);
  await sql`delete from schedules where tenant_id = ${tenantId}`;
});

test("none is left aside when its tenant is resumed at the moment it is put there", async () => {
  for (let round = 0; round < 10; round++) {
    const tenantId = await suspended();
    await schedules(tenantId, 2, "FREQ=DAILY");
    time.now = new Date(time.now.getTime() + HOUR);
    await Promise.all([
      sendOccurrences(scheduler(store), clock(), 200),
      resume(tenantId),
      sendOccurrences(scheduler(store), clock(), 200),
    ]);
    await sendOccurrences(scheduler(store), clock(), 200);
    const left = await sql`select key from schedules where tenant_id = ${tenantId} and (fires_at is null or fired = 0)`;
    expect(left).toEqual([]);
    await sql`delete from schedules where tenant_id = ${tenantId}`;
  }
});

test("one that is deleted and made again while it is about to be sent is sent as it is now", async () => {
  const { tenantId } = tenant();
  await schedules(tenantId, 1, "FREQ=DAILY");
  time.now = new Date(time.now.getTime() + HOUR);
  const request = create(SendRequestSchema, { content: { title: "Other" } });
  let count = 0;
  const replacing: Store = {
    ...store,
    async tenant(id, work) {
      // After the look, before the claim. The new one is like the old one to the millisecond, but for what it sends.
      if (++count === 1) {
        const [row] = await sql`delete from schedules where tenant_id = ${tenantId} returning *`;
        const other = { ...row, request: Buffer.from(toBinary(SendRequestSchema, request)) };
        await sql`insert into schedules ${sql(other)}`;
      }
      return store.tenant(id, work);
    },
  };
  await sendOccurrences(scheduler(replacing), clock(), 200);
  const sent = await sql<{ content: Uint8Array }[]>`select content from notifications where tenant_id = ${tenantId}`;
  expect(sent.map(({ content }) => fromBinary(ContentSchema, content).title)).toEqual(["Other", "Other", "Other"]);
  await sql`delete from schedules where tenant_id = ${tenantId}`;
});

test("a send to a topic that is under way stops with its schedule's, and no other", async () => {
  const { tenantId } = tenant();
  await schedules(tenantId, 2, "FREQ=DAILY");
  const request = create(SendRequestSchema, { to: { topics: ["team"] }, content: { title: "Hi" } });
  await sql`update schedules set users_only = false, request = ${Buffer.from(toBinary(SendRequestSchema, request))}
    where tenant_id = ${tenantId}`;
  time.now = new Date(time.now.getTime() + HOUR);
  await sendOccurrences(scheduler(store), clock(), 200);
  await store.tenant(tenantId, (tx) => cancelFanoutsWith(tx, tenantId, "schedule:s1", clock()));
  const rows = await sql<{ state: number; request: Uint8Array }[]>`
    select state, request from fanouts where tenant_id = ${tenantId}`;
  const states = rows.map((row) => [fromBinary(SendRequestSchema, row.request).tags[0], row.state]);
  expect(states.toSorted()).toEqual([
    ["schedule:s0", Fanout_State.RUNNING],
    ["schedule:s1", Fanout_State.CANCELLED],
  ]);
  await sql`delete from schedules where tenant_id = ${tenantId}`;
});

test("thousands of two tenants are sent once each by two nodes at the same time, one of them killed half-way", async () => {
  const tenants = [tenant().tenantId, tenant().tenantId];
  for (const tenantId of tenants) {
    await schedules(tenantId, 1, "FREQ=DAILY");
    await copies(tenantId, 1000);
  }
  time.now = new Date(time.now.getTime() + HOUR);
  const nodes = [scheduler(dying(7, "before")), scheduler(store)];
  const ends = await Promise.allSettled(nodes.map((node) => toTheEnd(node, 200)));
  expect(ends.map(({ status }) => status)).toEqual(["rejected", "fulfilled"]);
  const again = await Promise.allSettled([dying(3, "after"), store].map((over) => toTheEnd(scheduler(over), 200)));
  expect(again[1]?.status).toBe("fulfilled");
  await toTheEnd(scheduler(store), 200);
  for (const tenantId of tenants) {
    const [stored] = await sql`select count(*)::int as n, count(distinct tags[1])::int as schedules
      from notifications where tenant_id = ${tenantId}`;
    // The first has three recipients.
    expect(stored).toEqual({ n: 1002, schedules: 1000 });
    const moved = await sql`select fired::int, missed::int, fires_at > ${clock()} as ahead, count(*)::int as n
      from schedules where tenant_id = ${tenantId} group by 1, 2, 3`;
    expect(moved).toEqual([{ fired: 1, missed: 0, ahead: true, n: 1000 }]);
    await sql`delete from schedules where tenant_id = ${tenantId}`;
  }
});

test("a critical one, and another tenant's, do not wait behind a thousand that were due before them", async () => {
  const [{ tenantId: many }, { tenantId: few }] = [tenant(), tenant()];
  await schedules(many, 1, "FREQ=DAILY", { priority: Priority.LOW });
  await copies(many, 1000);
  time.now = new Date(time.now.getTime() + 1000);
  await schedules(many, 1, "FREQ=DAILY", { prefix: "critical", priority: Priority.CRITICAL });
  await schedules(few, 2, "FREQ=DAILY", { priority: Priority.LOW });
  time.now = new Date(time.now.getTime() + HOUR);
  const sent = async () => {
    const rows = await sql<{ tenantId: string; priority: number; n: number }[]>`
      select tenant_id as "tenantId", priority, count(distinct tags[1])::int as n from notifications
      where tenant_id in (${many}, ${few}) group by 1, 2`;
    const count = (of: string, priority: number) =>
      rows.find((row) => row.tenantId === of && row.priority === priority)?.n ?? 0;
    return { critical: count(many, Priority.CRITICAL), few: count(few, Priority.LOW), many: count(many, Priority.LOW) };
  };
  expect(await sendOccurrences(scheduler(store), clock(), 1)).toBe(1);
  expect(await sent()).toEqual({ critical: 1, few: 0, many: 0 });
  expect(await sendOccurrences(scheduler(store), clock(), 10)).toBe(10);
  expect(await sent()).toEqual({ critical: 1, few: 2, many: 8 });
  await sql`delete from schedules where tenant_id in (${many}, ${few})`;
});

test("two that claim the same dedup key are sent together, the second to nobody who has it from the first", async () => {
  const { tenantId } = tenant();
  await schedules(tenantId, 2, "FREQ=DAILY", { dedupKey: "same" });
  await schedules(tenantId, 1, "FREQ=DAILY", { prefix: "other", dedupKey: "other" });
  time.now = new Date(time.now.getTime() + HOUR);
  expect(await sendOccurrences(scheduler(store), clock(), 200)).toBe(3);
  const sent = await sql`select tags[1] as tag, count(*)::int as n from notifications
    where tenant_id = ${tenantId} group by 1 order by 1`;
  expect(sent).toEqual([
    { tag: "schedule:other0", n: 3 },
    { tag: "schedule:s0", n: 3 },
  ]);
  const moved = await sql`select distinct fired::int from schedules where tenant_id = ${tenantId}`;
  expect(moved).toEqual([{ fired: 1 }]);
  await sql`delete from schedules where tenant_id = ${tenantId}`;
});

test("one that Postgres will not store is put off, and those that were claimed with it are sent", async () => {
  const { tenantId } = tenant();
  await schedules(tenantId, 4, "FREQ=DAILY");
  const request = create(SendRequestSchema, { content: { title: "Hi" }, senderId: "not\0text" });
  await sql`update schedules set request = ${Buffer.from(toBinary(SendRequestSchema, request))}
    where tenant_id = ${tenantId} and key = 's1'`;
  time.now = new Date(time.now.getTime() + HOUR);
  expect(await sendOccurrences(scheduler(store), clock(), 200)).toBe(4);
  const left = await sql`select key, fires_at > ${clock()} as ahead, fired::int from schedules
    where tenant_id = ${tenantId} order by key`;
  expect(left).toEqual(["s0", "s1", "s2", "s3"].map((key) => ({ key, ahead: true, fired: key === "s1" ? 0 : 1 })));
  await sql`delete from schedules where tenant_id = ${tenantId}`;
});

test("one that goes by its type's priority is sent in the order of that, as it is by then", async () => {
  const { tenantId } = tenant();
  await schedules(tenantId, 2, "FREQ=DAILY", { prefix: "own", priority: Priority.HIGH });
  await schedules(tenantId, 1, "FREQ=DAILY", { prefix: "type" });
  const lanes = () => sql`select key, lane::int from schedules where tenant_id = ${tenantId} order by key`;
  expect(await lanes()).toEqual([
    { key: "own0", lane: Priority.HIGH },
    { key: "own1", lane: Priority.HIGH },
    { key: "type0", lane: Priority.NORMAL },
  ]);
  await store.tenantDb(tenantId, (db) => followType(db, tenantId, "general", Priority.CRITICAL));
  time.now = new Date(time.now.getTime() + HOUR);
  expect(await sendOccurrences(scheduler(store), clock(), 1)).toBe(1);
  const [first] = await sql`select distinct tags[1] as tag from notifications where tenant_id = ${tenantId}`;
  expect(first).toEqual({ tag: "schedule:type0" });
  // The type was not changed, after all: sent once, it stands where it belongs.
  expect((await lanes()).at(-1)).toEqual({ key: "type0", lane: Priority.NORMAL });
  await sql`delete from schedules where tenant_id = ${tenantId}`;
});
