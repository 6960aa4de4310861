import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import postgres from "postgres";
import { afterAll, expect, test } from "vitest";
import { Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { Preset } from "#gen/posthorn/v1/type_service_pb.ts";
import { platformOfFile, startTestPlatform } from "../../support/platform.ts";
import { wrongInAppCounters, wrongInboxes } from "../../support/recount.ts";
import { testServices } from "../../support/services.ts";

// POSTHORN_TEST_SCALE=10 makes the backlog 200,000. That a critical one takes less than 500 ms is what the benchmark
// `critical` measures; here it is the order that counts.
const { POSTHORN_TEST_SCALE: scale = "1" } = process.env;
const SCALE = Number(scale);
const BACKLOG = 20_000 * SCALE;
const BATCH = 1000;
const CRITICAL = 10;

const services = await testServices();
const api = await platformOfFile({ services, roles: ["api", "stream"] });
const { key, tenant } = api;
const sql = postgres(services.databaseUrl, { max: 1, onnotice: () => undefined });
afterAll(() => sql.end());
await key.types.loadPreset({ preset: Preset.TASKMASTER });

test(
  `critical notifications arrive before a backlog of ${BACKLOG} others is done`,
  async () => {
    const began = new Date();
    const backlog = (first: number) =>
      Array.from({ length: BATCH }, (_, n) => ({
        to: { userIds: [`user-${((first + n) * 7919) % 1000}`] },
        type: "WEEKLY_REPORT",
        content: { title: `Your week ${first + n}` },
      }));
    for (let first = 0; first < BACKLOG; first += BATCH) {
      const { results } = await key.send.sendBatch({ items: backlog(first) });
      expect(results.every(({ result }) => result.case === "response")).toBe(true);
    }
    const send = (title: string, waitSeconds: bigint) =>
      key.send.send({
        to: { userIds: ["user-7"] },
        type: "TASK_OVERDUE",
        content: { title },
        priority: Priority.CRITICAL,
        waitForDecision: { seconds: waitSeconds },
      });
    for (let n = 0; n < CRITICAL; n++) await send(`Server room ${n}`, 0n);
    const delivered = async () => {
      const { counters } = await key.analytics.queryCounters({
        startTime: timestampFromDate(began),
        types: ["WEEKLY_REPORT"],
        statuses: [Status.DELIVERED],
      });
      return Number(counters[0]?.count ?? 0n);
    };
    expect(await delivered()).toBe(0);

    // Only now does anybody begin to work on it.
    const roles = ["worker", "scheduler"] as const;
    await using _first = await startTestPlatform({ services, tenant, roles });
    await using _second = await startTestPlatform({ services, tenant, roles });
    // Others come while it lasts.
    const waits: number[] = [];
    while ((await delivered()) < BACKLOG) {
      const sentAt = performance.now();
      const { results } = await send("meanwhile", 10n);
      expect(results[0]?.status).toBe(Status.DELIVERED);
      waits.push(performance.now() - sentAt);
    }

    const [{ before, critical }] = await sql<[{ before: number; critical: number }]>`
      with critical as (
        select max(delivered_at) as last, count(*)::int as count from notifications
        where content like ${"%Server room%"}::bytea and status = ${Status.DELIVERED}
      )
      select critical.count as critical, (select count(*)::int from notifications
        where type = 'WEEKLY_REPORT' and delivered_at <= critical.last) as before
      from critical`;
    expect(critical).toBe(CRITICAL);
    // By lanes that are worked on side by side: a few chunks of the backlog, and not the half of it.
    expect(before).toBeLessThan(BACKLOG / 2);
    expect(await wrongInboxes(sql)).toEqual([]);
    expect(await wrongInAppCounters(sql)).toEqual([]);
    waits.sort((x, y) => x - y);
    console.log(
      `${CRITICAL} critical ones arrived when ${before} of ${BACKLOG} before them had; ${waits.length} more meanwhile: ` +
        `median ${Math.round(waits[waits.length >> 1] ?? 0)} ms, slowest ${Math.round(waits.at(-1) ?? 0)} ms`,
    );
  },
  180_000 * SCALE,
);
