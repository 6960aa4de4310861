import { create } from "@bufbuild/protobuf";
import { Registry } from "prom-client";
import { expect, test } from "vitest";
import { Channel, ContentSchema, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { encodeContent } from "#src/notifications/encode-content.ts";
import { reconsiderRest } from "#src/pipeline/reconsider/reconsider.ts";
import { type ChannelVerdict, type Facts, decide as really } from "#src/pipeline/route/gates/decide.ts";
import { recordRuleChange } from "#src/preferences/rule-changes.ts";
import { zoneClocks } from "#src/preferences/zone-clock.ts";
import { filterEvaluator } from "#src/subscriptions/evaluate.ts";
import { Kind } from "#src/subscriptions/rules.ts";
import { createMetrics } from "#src/telemetry/metrics.ts";
import { insertTypes } from "#src/types/queries.ts";
import { GENERAL_DEFINITION } from "#src/types/type.ts";
import { onPostgres } from "../../support/on-postgres.ts";
import { wait } from "../../support/waiting.ts";

const env = await onPostgres();

/** Nobody wants anything, and what is of the type "broken" cannot be decided. */
function decide({ notification }: Facts): ChannelVerdict[] {
  if (notification.type === "broken") throw new Error("cannot be decided");
  return [{ channel: Channel.IN_APP, kind: "suppress", reason: Reason.USER_OPTED_OUT }];
}

const warnings: unknown[] = [];
const deps = {
  store: env.store,
  decide,
  metrics: createMetrics(new Registry()),
  filters: filterEvaluator(),
  clockOf: zoneClocks(),
  live: { statusChanged: () => undefined },
  log: { warn: (...said: unknown[]) => void warnings.push(said) },
};
const look = () => {
  env.time.now = new Date(env.time.now.getTime() + 1000);
  return reconsiderRest(deps, env.time.now);
};
const changed = (tenantId: string, userId: string, type = "") =>
  env.store.tenantDb(tenantId, (db) => recordRuleChange(db, { tenantId, userId, type }, env.time.now));
const suppressed = (tenantId: string) => env.sql`
  select id from notifications where tenant_id = ${tenantId} and status = ${Status.SUPPRESSED} order by id`;

test("changes that cannot be worked on keep nobody waiting, and are tried again", async () => {
  const [failing, other] = [env.tenant().tenantId, env.tenant().tenantId];
  const users = Array.from({ length: 40 }, (_, n) => `u${n}`);
  await wait(
    env,
    failing,
    users.map((userId) => ({ userId, type: "broken", status: Status.HELD })),
  );
  for (const userId of users) await changed(failing, userId);
  env.time.now = new Date(env.time.now.getTime() + 1000);
  const ids = await wait(env, other, [{ userId: "ann", status: Status.HELD }]);
  await changed(other, "ann");
  for (let n = 0; n < 3; n++) await look();
  expect((await suppressed(other)).map(({ id }) => id)).toEqual(ids);
  expect(warnings.length).toBeGreaterThanOrEqual(40);

  await env.sql`update notifications set type = 'general' where tenant_id = ${failing}`;
  for (let n = 0; n < 3; n++) await look();
  expect(await suppressed(failing)).toHaveLength(40);
  expect(await env.sql`select from rule_changes`).toHaveLength(0);
});

test("filters that take long hold a change up for some of what waits only, and the rest follows", async () => {
  const { tenantId } = env.tenant();
  const ids = await wait(
    env,
    tenantId,
    Array.from({ length: 100 }, () => ({ userId: "ann", status: Status.SCHEDULED })),
  );
  await env.store.tenantDb(tenantId, (db) => insertTypes(db, tenantId, [GENERAL_DEFINITION], env.time.now));
  const content = encodeContent(create(ContentSchema, { title: "Hi", data: { a: Array(4000).fill(1) } }));
  await env.sql`update notifications set content = ${Buffer.from(content)} where tenant_id = ${tenantId}`;
  await env.sql`
    insert into subscriptions (tenant_id, user_id, id, kind, key, filter, created_at, updated_at)
    values (${tenantId}, 'ann', ${env.newId()}, ${Kind.CATEGORY}, 'general', 'data.a.exists(x, x == 7)', now(), now())`;
  const { counts } = await env.store.tenantDb(tenantId, (db) => env.reconcile(db, tenantId, ["ann"], env.time.now));
  expect(counts.more).toBe(true);
  expect(counts.suppressed).toBeGreaterThan(0);
  expect(counts.suppressed).toBeLessThan(20);
  expect(await suppressed(tenantId)).toHaveLength(counts.suppressed);
  const rest = { ...deps, decide: really };
  let looks = 0;
  for (let more = true; more; looks++) ({ more } = await reconsiderRest(rest, env.time.now));
  expect(looks).toBeGreaterThan(4);
  expect((await suppressed(tenantId)).map(({ id }) => id)).toEqual(ids);
});

test("a change of a rare type looks at a thousand that wait at a time, and decides only its own", async () => {
  const { tenantId } = env.tenant();
  const others = Array.from({ length: 1500 }, () => ({ userId: "ann", status: Status.SCHEDULED }));
  const rare = { userId: "ann", type: "rare", status: Status.SCHEDULED };
  const ids = await wait(env, tenantId, [...others, rare, { ...rare, status: Status.HELD }]);
  await changed(tenantId, "", "rare");
  expect(await look()).toEqual({ looked: 1000, more: true });
  expect(await suppressed(tenantId)).toEqual([]);
  expect(await look()).toEqual({ looked: 501, more: true });
  expect(await look()).toEqual({ looked: 1, more: true });
  // Nothing of it is in a batch, and no step is held.
  expect(await look()).toEqual({ looked: 0, more: true });
  expect(await look()).toEqual({ looked: 0, more: false });
  expect((await suppressed(tenantId)).map(({ id }) => id)).toEqual(ids.slice(-2));
});

test("members of the batches that a change ends become due page by page, and none is left behind", async () => {
  const { tenantId } = env.tenant();
  await env.store.tenantDb(tenantId, (db) => insertTypes(db, tenantId, [GENERAL_DEFINITION], env.time.now));
  const items = Array.from({ length: 2100 }, () => ({ userId: "ann", status: Status.BATCHED }));
  await wait(env, tenantId, items);
  const [batch] = await env.sql<{ id: string }[]>`
    insert into batches (tenant_id, id, user_id, kind, key, type, category, priority, state, opened_at, flush_at,
      latest_flush_at, max_size, joined)
    values (${tenantId}, ${env.newId()}, 'ann', 1, 'k', 'general', 'general', 2, 1, now(), now(), now(), 5000, 2100)
    returning id`;
  await env.sql`update notifications set batch_id = ${batch?.id ?? ""}, batch_role = 1 where tenant_id = ${tenantId}`;
  const counts = async () => {
    const [row] = await env.sql<{ due: number; left: number }[]>`
      select count(due_at)::int as due, count(*)::int - count(due_at)::int as left from notifications
      where tenant_id = ${tenantId} and status = ${Status.BATCHED}`;
    return row;
  };
  const told = await env.store.tenantDb(tenantId, (db) => env.reconcile(db, tenantId, ["ann"], env.time.now));
  expect(told.counts).toMatchObject({ released: 1000, more: true });
  // The transaction of the change has touched no more than its page.
  expect(await counts()).toEqual({ due: 1000, left: 1100 });
  const inEarnest = { ...deps, decide: really };
  const looks = async () => {
    env.time.now = new Date(env.time.now.getTime() + 1000);
    return reconsiderRest(inEarnest, env.time.now);
  };
  while ((await looks()).more);
  expect(await counts()).toEqual({ due: 2100, left: 0 });
});
