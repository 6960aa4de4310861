import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { platformOfFile } from "../support/platform.ts";
import { wrongInAppCounters, wrongInboxes } from "../support/recount.ts";
import { testServices } from "../support/services.ts";
import { until } from "../support/until.ts";

// Each fires once, in the order of priorities, and other work is not kept waiting for it. POSTHORN_TEST_SCALE=10 schedules
// 100,000, tells how long it took and asks that the first is there within a second, for a machine that does nothing else:
// times are no test's business otherwise.
const { POSTHORN_TEST_SCALE: scale = "1" } = process.env;
const SCALE = Number(scale);
const COUNT = 10_000 * SCALE;
const BATCH = 1000;
const PRIORITIES = [Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.CRITICAL];

const time = { ahead: 0 };
const clock = () => new Date(Date.now() + time.ahead);
const services = await testServices();
const a = await platformOfFile({ services, clock });
const b = await platformOfFile({ services, clock, tenant: a.tenant });
const sql = postgres(services.databaseUrl, { max: 2, onnotice: () => undefined });
afterAll(() => sql.end());

test(
  `${COUNT} due in the same second fire once each on two schedulers, the most urgent first, while other work flows`,
  async () => {
    const nodes = [a.key.send, b.clients(a.tenant.apiKey).send] as const;
    const due = new Date(Math.ceil(Date.now() / 1000) * 1000 + 3_600_000);
    const batch = (start: number) =>
      Array.from({ length: BATCH }, (_, n) => ({
        to: { userIds: [`user-${((start + n) * 7919) % 1000}`] },
        content: { title: `${start + n}` },
        priority: PRIORITIES[(start + n) % 4] as Priority,
        schedule: { case: "scheduleTime" as const, value: { seconds: BigInt(due.getTime() / 1000) } },
      }));
    await Promise.all(
      nodes.map(async (node, which) => {
        for (let start = which * BATCH; start < COUNT; start += 2 * BATCH) {
          const { results } = await node.sendBatch({ items: batch(start) });
          expect(results.every(({ result }) => result.case === "response")).toBe(true);
        }
      }),
    );
    time.ahead = due.getTime() - Date.now();

    // Other work, all the while.
    const stop = new AbortController();
    const others: string[] = [];
    const sendOthers = async () => {
      while (!stop.signal.aborted) {
        const sent = await nodes[0].send({
          to: { userIds: ["somebody"] },
          content: { title: "meanwhile" },
          priority: Priority.CRITICAL,
          waitForDecision: { seconds: 10n },
        });
        others.push(sent.results[0]?.notificationId ?? "");
      }
    };
    const open = async () =>
      (await sql<[{ n: number }]>`select count(*)::int as n from notifications where status in (1, 2, 3)`)[0].n;
    const watch = async () => {
      try {
        await until(open, (n) => n < 5, 60_000 * SCALE);
      } finally {
        stop.abort();
      }
    };
    await Promise.all([watch(), sendOthers()]);
    await until(open, (n) => n === 0, 60_000);
    // Each of them reached its end, whether or not the call still waited for that.
    const ends = await Promise.all(others.map((id) => nodes[1].getNotification({ id })));
    expect(new Set(ends.map(({ notification }) => notification?.status))).toEqual(new Set([Status.DELIVERED]));

    // A claim's transaction id is given with its first lock, so they tell which claim came first.
    const [fired] = await sql<Record<string, number>[]>`
      select count(*)::int as count, count(distinct n.id)::int as distinct,
        max(t.xmin::text::bigint) filter (where n.priority = ${Priority.CRITICAL})::int as "lastCritical",
        min(t.xmin::text::bigint) filter (where n.priority = ${Priority.LOW})::int as "firstLow"
      from notifications n join timeline t on t.tenant_id = n.tenant_id and t.notification_id = n.id
      where n.scheduled_at = ${due} and t.status = ${Status.ACCEPTED}`;
    expect(fired).toMatchObject({ count: COUNT, distinct: COUNT });
    expect(fired?.lastCritical).toBeLessThan(fired?.firstLow ?? 0);
    // When each was decided, not when a scheduler began to look for what is due.
    const [delivered] = await sql<Record<string, number>[]>`
      select count(*)::int as count, count(distinct n.id)::int as distinct,
        (extract(epoch from min(t.at) - ${due}::timestamptz) * 1000)::int as "firstMs",
        (extract(epoch from max(t.at) - ${due}::timestamptz) * 1000)::int as "lastMs"
      from notifications n join timeline t on t.tenant_id = n.tenant_id and t.notification_id = n.id
      where n.scheduled_at = ${due} and t.status = ${Status.DELIVERED}`;
    expect(delivered).toMatchObject({ count: COUNT, distinct: COUNT });
    expect(await wrongInboxes(sql)).toEqual([]);
    expect(await wrongInAppCounters(sql)).toEqual([]);
    // Other work was not kept until all of it was done.
    const [beside] = await sql`
      select count(*)::int as count from notifications
      where id = any(${others}::uuid[]) and delivered_at < (
        select max(delivered_at) from notifications where scheduled_at = ${due} and priority < ${Priority.CRITICAL})`;
    expect(beside?.count).toBeGreaterThan(0);
    if (SCALE >= 10) {
      console.log(`first of ${COUNT} delivered after ${delivered?.firstMs} ms, the last after ${delivered?.lastMs} ms`);
      expect(delivered?.firstMs).toBeLessThan(1000);
    }
  },
  120_000 * SCALE,
);
