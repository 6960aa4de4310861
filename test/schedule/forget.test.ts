import { randomUUID } from "node:crypto";
import postgres from "postgres";
import { expect, test } from "vitest";
import { forgetFanouts } from "#src/schedule/forget.ts";
import { testServices } from "../support/services.ts";
import { smallStore } from "../support/small-store.ts";

const { databaseUrl } = await testServices();
const now = new Date();
const daysAgo = (days: number) => new Date(now.getTime() - days * 86_400_000);

test("a fan-out is forgotten when its time is over and its notifications are gone, and not before", async () => {
  const sql = postgres(databaseUrl, { max: 1 });
  await using store = smallStore(databaseUrl);
  const tenantId = randomUUID();
  const fanout = async (endedAt: Date | null) => {
    const id = randomUUID();
    await sql`insert into fanouts (tenant_id, id, state, priority, request, content, actor, cursor, created_at, ended_at)
      values (${tenantId}, ${id}, ${endedAt === null ? 1 : 2}, 2, '', '', 'operator', 'null', ${daysAgo(300)}, ${endedAt})`;
    return id;
  };
  const old = await fanout(daysAgo(200));
  const young = await fanout(daysAgo(100));
  const running = await fanout(null);
  const needed = await fanout(daysAgo(200));
  const [{ id }] = await sql<[{ id: string }]>`select (lpad(to_hex((extract(epoch from now()) * 1000)::bigint), 12, '0')
    || '7000800000000000' || lpad('1', 4, '0'))::uuid as id`;
  await sql`insert into notifications (tenant_id, id, user_id, type, category, priority, status, channels, updated_at, fanout_id)
    values (${tenantId}, ${id}, 'ann', 'general', 'general', 2, 7, 2, now(), ${needed})`;

  expect(await forgetFanouts(store, now, 180, 1)).toBe(1);
  expect(await forgetFanouts(store, now, 180, 10)).toBe(0);
  const left = await sql<{ id: string }[]>`select id from fanouts where tenant_id = ${tenantId}`;
  expect(new Set(left.map((row) => row.id))).toEqual(new Set([young, running, needed]));
  expect(left.map((row) => row.id)).not.toContain(old);
  await sql.end();
});
