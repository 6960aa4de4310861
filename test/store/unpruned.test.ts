import postgres from "postgres";
import { afterAll, expect, test, vi } from "vitest";
import { Channel, Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { expireEntries } from "#src/inbox/release.ts";
import { plain } from "#src/store/arrays.ts";
import { uuidFloor } from "#src/store/partitions.ts";
import { unpruned } from "#src/store/unpruned.ts";
import { steppedClock } from "../batches/setup.ts";
import { sinkFolder } from "../escalation/setup.ts";
import { lockingTemplates, oneLine } from "../support/locking-templates.ts";
import { platformOfTest } from "../support/platform.ts";
import { testServices } from "../support/services.ts";
import { smallStore } from "../support/small-store.ts";
import { until } from "../support/until.ts";

// What src/store/unpruned.ts says, of the statements that a node sends: their plans as Postgres makes them for its pools.

type Sent = { statement: string; role: string; settings: Record<string, string> };

/** Each statement that a store of this file has sent, once. */
const sent = vi.hoisted(() => new Map<string, Sent>());
vi.mock("postgres", async (original) => {
  const real = (await original<{ default: typeof postgres }>()).default;
  const recording = (url: string, options: postgres.Options<Record<string, never>>) => {
    const { role, plan_cache_mode, enable_seqscan } = (options.connection ?? {}) as Record<string, string>;
    const settings = plan_cache_mode === undefined ? {} : { plan_cache_mode, enable_seqscan: enable_seqscan ?? "on" };
    if (role === undefined) return real(url, options);
    const debug = (_: number, statement: string) => void sent.set(statement, { statement, role, settings });
    return real(url, { ...options, debug });
  };
  return { default: Object.assign(recording, real) };
});

const services = await testServices();
const sql = postgres(services.databaseUrl, { max: 2, onnotice: ({ detail }) => void told.push(detail ?? "") });
const told: string[] = [];
afterAll(() => sql.end());

test("no statement both locks rows and leaves out partitions while it runs", async () => {
  await allSortsOfWork();
  await fillMonths();
  const statements = [...sent.values()].filter(({ statement }) => /^\s*(with|select|update|delete)\s/i.test(statement));
  // All of the source that locks rows of partitioned tables, or changes them, was among them.
  const lines = statements.map(({ statement }) => oneLine(statement));
  const unseen = lockingTemplates().filter(({ pattern }) => !lines.some((line) => pattern.test(line)));
  expect(unseen.map(({ at }) => at)).toEqual([]);
  const risky: string[] = [];
  for (const each of statements) {
    const plan = await planOf(each);
    const locks = /\{LOCKROWS/.test(plan);
    const changes = /\{MODIFYTABLE\s+(?:(?!\{MODIFYTABLE)[\s\S])*?:operation [24]/.test(plan);
    if (!/:exec_pruning_steps \(/.test(plan)) continue;
    if (locks || (changes && !each.statement.includes("/* locked before */"))) risky.push(each.statement);
  }
  expect(risky).toEqual([]);
});

test("the plans tell: a join that is looked up row by row beside a lock does leave out partitions", async () => {
  const statement = `with l as (select id from notifications where id = any($1::uuid[]) order by id for update)
    update notifications n set updated_at = now() from l where n.id = l.id and n.tenant_id = $2`;
  const settings = { plan_cache_mode: "force_generic_plan", enable_seqscan: "off" };
  await fillMonths();
  expect(await planOf({ statement, role: "posthorn_system", settings })).toMatch(/:exec_pruning_steps \(/);
  const mended = statement.replace("from l where n.id = l.id", "where n.id = any(array(select id from l))");
  expect(await planOf({ statement: mended, role: "posthorn_system", settings })).not.toMatch(/:exec_pruning_steps \(/);
});

test("what is locked by a join is not passed over when it changes while its lock is waited for", async () => {
  await fillMonths();
  await using store = smallStore(services.databaseUrl);
  // Of each month the first, so that the one that changes and the last that is looked up are far apart.
  const rows = await sql<{ id: string }[]>`
    select min(id::text) as id from notifications where tenant_id = ${TENANT} group by tableoid order by 1`;
  const ids = rows.map(({ id }) => id);
  expect(ids.length).toBeGreaterThanOrEqual(3);
  const locked = await sql.begin(async (change) => {
    await change`update notifications set attempts = attempts + 1 where tenant_id = ${TENANT} and id = ${ids[0] ?? ""}`;
    const locking = store.system(async (tx) => {
      await tx`select set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)`;
      return tx<{ id: string }[]>`
        select n.id from unnest(${plain(ids)}::uuid[]) as t (id) join notifications n on n.id = ${unpruned(tx, tx`t.id`)}
        where n.tenant_id = ${TENANT} order by n.id for update of n`;
    });
    await until(
      async () =>
        (await sql`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`)
          .length,
      (waiting) => waiting > 0,
    );
    return { locking };
  });
  expect((await locked.locking).map(({ id }) => id)).toEqual(ids);
});

/** Whose rows fill the months. */
const TENANT = "01890000-0000-7000-8000-0000000000aa";
const WAIT = { seconds: 10n };
const HOUR = 3_600_000;
const REFUSED = { kind: "rejected", cause: "a test" } as const;

/** A little of everything that locks notifications. */
async function allSortsOfWork(): Promise<void> {
  const { clock, step } = steppedClock();
  const sink = await sinkFolder();
  await using store = smallStore(services.databaseUrl);
  const { key, tenant } = await platformOfTest({
    services,
    clock,
    env: { ...sink.env, POSTHORN_RECONCILE_INTERVAL_MS: "200", POSTHORN_RECONCILE_AFTER_MS: "1000" },
    between: { channels: (sunk) => new Map([...sunk, [Channel.PUSH, { deliver: async () => REFUSED }]]) },
  });
  const content = { title: "work" };
  const send = async (userId: string, more: object = {}) => {
    const { results } = await key.send.send({ to: { userIds: [userId] }, content, waitForDecision: WAIT, ...more });
    return results[0]?.notificationId ?? "";
  };
  const within = (ms: number) => ({ seconds: BigInt(Math.ceil((clock().getTime() + ms) / 1000)) });
  const at = (ms: number) => ({ case: "scheduleTime" as const, value: within(ms) });
  const reached = (id: string, wanted: Status) =>
    until(
      async () => (await key.send.getNotification({ id })).notification?.status,
      (status) => status === wanted,
      30_000,
    );
  await key.types.createType({ type: { key: "paged", displayName: "Paged", category: "ops" } });
  await key.types.createType({ type: { key: "several", batching: { batchable: true, maxSize: 10 } } });

  // Collapse, cancel, change, release.
  await send("ann", { collapseKey: "same", schedule: at(HOUR) });
  await send("ann", {
    collapseKey: "same",
    escalation: { steps: [{ channel: Channel.SMS, after: { seconds: 600n } }] },
  });
  await send("ann", { collapseKey: "same" });
  const changed = await send("ann", { schedule: at(HOUR) });
  await key.send.updateNotification({ id: changed, tags: ["changed"] });
  await key.send.cancelNotification({ id: changed });
  const released = await send("ben", { schedule: at(1000) });

  // Escalate: a change, a step that is taken, a confirmation, an end.
  const escalation = { steps: [{ channel: Channel.SMS, after: { seconds: 600n } }], confirmationRequired: true };
  const paged = { type: "paged", escalation, priority: Priority.HIGH };
  const stepped = await send("cleo", paged);
  await key.send.updateNotification({ id: stepped, content: { title: "changed" } });
  await key.send.confirmNotification({ id: await send("cleo", paged), reason: "a test" });
  await key.send.cancelEscalation({ id: await send("cleo", paged) });
  const outside = await send("cleo", { channels: [Channel.EMAIL] });
  await reached(outside, Status.DELIVERED);
  await reached(await send("cleo", { channels: [Channel.PUSH] }), Status.FAILED);

  // Read, put aside, bring back, remove.
  const ids = [await send("ann", paged), await send("ann")];
  await key.inbox.markRead({ userId: "ann", notificationIds: ids });
  await key.inbox.archive({ userId: "ann", notificationIds: ids });
  await key.inbox.deleteEntries({ userId: "ann", notificationIds: ids.slice(1) });
  const snoozed = await send("dan");
  await send("dan", { expiry: { case: "expireTime", value: within(600_000) } });
  await key.inbox.snooze({ userId: "dan", notificationIds: [snoozed], snoozeTime: within(60_000) });

  // Bring together: a batch that is closed, one that the hourly cap refuses, one that its user's rules end, and one that is
  // dissolved with its type's.
  const several = async (userId: string) => {
    const members = [await send(userId, { type: "several" }), await send(userId, { type: "several" })];
    const { notification } = await key.send.getNotification({ id: members[0] ?? "" });
    return { members, batch: notification?.batchId ?? "" };
  };
  const closed = await several("eve");
  await key.batches.closeBatch({ id: closed.batch });
  await reached(closed.members[0] ?? "", Status.DELIVERED);
  const full = { hourlyCap: { enabled: true, maxPerHour: 1 } };
  await key.preferences.updatePreferences({ userId: "lea", preferences: full, reason: "a test" });
  await send("lea");
  const refused = await several("lea");
  await key.batches.closeBatch({ id: refused.batch });
  await until(
    async () => (await key.send.getNotification({ id: refused.members[0] ?? "" })).notification?.batchId,
    (id) => id !== refused.batch,
  );
  const [ended, dissolved] = [await several("fay"), await several("kim")];
  const reason = "a test";
  await key.preferences.updatePreferences({ userId: "fay", preferences: { batching: { enabled: false } }, reason });
  await reached(ended.members[0] ?? "", Status.DELIVERED);
  await key.types.updateType({ type: { key: "several", batching: { batchable: false } } });
  await reached(dissolved.members[0] ?? "", Status.DELIVERED);
  await key.preferences.updateDefaultPreferences({ preferences: { language: "de" }, reason });

  // Remind, move the deadline, remind at other times, take it back.
  const deadline = { userId: "gus", key: "report", content };
  await key.schedules.upsertDeadline({ deadline: { ...deadline, time: within(48 * HOUR) } });
  await key.schedules.upsertDeadline({ deadline: { ...deadline, time: within(72 * HOUR) } });
  const often = { types: { general: { reminderOffsets: { offsets: [{ seconds: 3600n }] } } } };
  await key.preferences.updatePreferences({ userId: "gus", preferences: often, reason });
  await key.schedules.deleteDeadline({ userId: "gus", key: "report" });

  // Take all that waits of a user.
  await key.users.upsertUser({ user: { id: "hal" } });
  await send("hal", { schedule: at(HOUR) });
  await key.users.deleteUser({ id: "hal" });
  await send("ann", { schedule: at(HOUR) });
  await key.send.cancelNotifications({ filter: { userId: "ann" } });

  // What is lost on the way to the queue.
  await sql`
    insert into notifications (tenant_id, id, user_id, type, category, priority, status, channels, updated_at)
    select ${tenant.tenantId}, ${uuidFloor(new Date(Date.now() - 60_000))}, 'ida', 'general', 'general', 2, 1, 2, now()`;

  await reached(released, Status.DELIVERED);
  step(HOUR);
  await until(
    async () => (await key.send.getNotification({ id: stepped })).timeline,
    (timeline) => timeline.some(({ channel }) => channel === Channel.SMS),
    30_000,
  );
  await until(
    async () => (await key.inbox.listEntries({ userId: "dan" })).entries.map(({ notificationId }) => notificationId),
    (entries) => entries.includes(snoozed),
    30_000,
  );
  expect((await store.system((tx) => expireEntries(tx, clock(), 100))).removed).toBeGreaterThan(0);
}

/** Rows of every month, as many as make looking them up by key worth it. */
async function fillMonths(): Promise<void> {
  const [filled] = await sql`select from notifications where tenant_id = ${TENANT} limit 1`;
  if (filled !== undefined) return;
  await sql`
    insert into notifications (tenant_id, id, user_id, type, category, priority, status, channels, updated_at, collapse_key)
    select ${TENANT}, (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7000' || '8'
        || lpad(to_hex(n), 15, '0'))::uuid,
      'user-' || n % 200, 'general', 'general', 1 + n % 4, 7, 1, now(), 'key-' || n % 50
    from generate_series(-1, 2) month, generate_series(1, 2000) n,
      lateral (select date_trunc('month', now(), 'UTC') + make_interval(months => month, secs => n * 600)) as t (at)`;
  await sql`
    insert into inbox (tenant_id, user_id, seq, arrived_at, notification_id, type, category, priority)
    select tenant_id, user_id, row_number() over (partition by user_id order by id), uuid_extract_timestamp(id), id, type,
      category, priority
    from notifications where tenant_id = ${TENANT}`;
  await sql`analyze`;
}

/** A statement's plan as Postgres writes it down, for any parameters, where it may only join by looking up. */
async function planOf({ statement, role, settings }: Sent): Promise<string> {
  const parameters = Math.max(0, ...[...statement.matchAll(/\$(\d+)/g)].map(([, n]) => Number(n)));
  const nulls = parameters === 0 ? "" : `(${Array(parameters).fill("null").join(", ")})`;
  const set = Object.entries({
    ...settings,
    role,
    plan_cache_mode: "force_generic_plan",
    enable_hashjoin: "off",
    enable_mergejoin: "off",
  }).map(([name, value]) => `set local ${name} = '${value}';`);
  told.length = 0;
  await sql.begin(async (tx) => {
    await tx.unsafe(`${set.join(" ")} prepare looked_at as ${statement}`).simple();
    await tx.unsafe("set local debug_print_plan = on; set local client_min_messages = log").simple();
    await tx.unsafe(`explain execute looked_at${nulls}`).simple();
    await tx.unsafe("set local debug_print_plan = off; deallocate looked_at").simple();
  });
  return told.join("\n");
}
