import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { Dimension } from "#gen/posthorn/v1/analytics_service_pb.ts";
import { Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { platformOfFile } from "../support/platform.ts";
import { wrongInAppCounters, wrongInboxes } from "../support/recount.ts";
import { testServices } from "../support/services.ts";
import { openReader } from "../support/stream-reader.ts";
import { until } from "../support/until.ts";

// POSTHORN_TEST_SCALE=10 sends ten times as many to ten times as many users.
const { POSTHORN_TEST_SCALE: scale = "1" } = process.env;
const SCALE = Number(scale);
const USERS = 1000 * SCALE;
const PER_USER = 10;
const BATCH = 500;

const services = await testServices();
const a = await platformOfFile({ services });
const b = await platformOfFile({ services, tenant: a.tenant });
const sql = postgres(services.databaseUrl, { max: 2, onnotice: () => undefined });
afterAll(() => sql.end());

test(
  `${USERS * PER_USER} notifications through two servers to ${USERS} users all reach a terminal state`,
  async () => {
    const nodes = [a.key, b.clients(a.tenant.apiKey)];
    const priorities = [Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.CRITICAL];
    const items = Array.from({ length: USERS * PER_USER }, (_, n) => ({
      to: { userIds: [`user-${(n * 7919) % USERS}`] },
      content: { title: `${n}`, data: { n } },
      priority: priorities[n % 4] as Priority,
      // A tenth is cancelled before its time.
      ...(n % 10 === 0
        ? {
            schedule: {
              case: "scheduleTime" as const,
              value: { seconds: BigInt(Math.ceil(Date.now() / 1000) + 3600) },
            },
            tags: ["later"],
          }
        : {}),
    }));
    const watched = [3, 14, 159, 265].map((n) => openReader(nodes[n % 2] as typeof a.key, { userId: `user-${n}` }));
    await Promise.all(watched.map((reader) => reader.next("caughtUp")));
    const chunks = Array.from({ length: items.length / BATCH }, (_, n) => items.slice(n * BATCH, (n + 1) * BATCH));
    // Four callers, each on one of the two servers.
    await Promise.all(
      [0, 1, 2, 3].map(async (caller) => {
        for (let n = caller; n < chunks.length; n += 4) {
          const { results } = await (nodes[caller % 2] as typeof a.key).send.sendBatch({ items: chunks[n] ?? [] });
          expect(results.every(({ result }) => result.case === "response")).toBe(true);
        }
      }),
    );
    let cancelled = 0;
    for (let more = true; more; ) {
      const answer = await a.key.send.cancelNotifications({ filter: { tag: "later" } });
      cancelled += answer.cancelled;
      more = answer.more;
    }
    expect(cancelled).toBe(items.length / 10);
    const open = async () =>
      (await sql<[{ n: number }]>`select count(*)::int as n from notifications where status in (1, 2, 3)`)[0].n;
    await until(open, (n) => n === 0, 60_000 * SCALE);
    expect(await wrongInboxes(sql)).toEqual([]);
    expect(await wrongInAppCounters(sql)).toEqual([]);
    const { counters } = await a.key.analytics.queryCounters({
      startTime: { seconds: BigInt(Math.floor(Date.now() / 1000) - 3600) },
      groupBy: [Dimension.STATUS],
    });
    expect(Object.fromEntries(counters.map(({ status, count }) => [status, Number(count)]))).toEqual({
      [Status.ACCEPTED]: items.length,
      [Status.SCHEDULED]: items.length / 10,
      [Status.CANCELLED]: items.length / 10,
      [Status.DELIVERED]: (items.length * 9) / 10,
    });
    const heads = await sql<{ userId: string; seq: number }[]>`select user_id as "userId", seq::int from inbox_heads`;
    expect(heads.reduce((sum, { seq }) => sum + seq, 0)).toBe((items.length * 9) / 10);
    const seqs = new Map(heads.map(({ userId, seq }) => [userId, seq]));
    for (const [n, reader] of watched.entries()) {
      const last = seqs.get(`user-${[3, 14, 159, 265][n]}`) ?? 0;
      await until(
        async () => reader.sequences().length,
        (count) => count === last,
      );
      expect(reader.sequences()).toEqual(Array.from({ length: last }, (_, seq) => seq + 1));
      await reader.close();
    }
  },
  120_000 * SCALE,
);
