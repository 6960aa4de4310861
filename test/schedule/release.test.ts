import { describe, expect, test } from "vitest";
import { Priority, Status } from "#gen/posthorn/v1/notification_pb.ts";
import type { Queue, Queued } from "#src/pipeline/queue.ts";
import { forgetKeys } from "#src/schedule/forget.ts";
import { startLoop } from "#src/schedule/loop.ts";
import { releaseDue } from "#src/schedule/release.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { onPostgres } from "../support/on-postgres.ts";
import { wait } from "../support/waiting.ts";

const { store, sql, clock, newId, tenant } = await onPostgres();
const log = createLogger({ serviceName: "test", logLevel: "silent", logFormat: "json" });
const HOUR = 3_600_000;

function recording(): Queue & { queued: Queued[] } {
  const queued: Queued[] = [];
  return { queued, enqueue: async (_, items) => void queued.push(...items), enqueueFanout: async () => undefined };
}

describe("what is due", () => {
  test("is released once, however many schedulers look at the same time", async () => {
    const { tenantId } = tenant();
    const statuses = [Status.SCHEDULED, Status.HELD];
    const items = Array.from({ length: 400 }, (_, n) => ({ userId: `u${n}`, status: statuses[n % 2] as Status }));
    const ids = await wait({ store, newId, clock }, tenantId, items);
    const queue = recording();
    const due = new Date(clock().getTime() + HOUR);
    const rounds = await Promise.all(
      Array.from({ length: 6 }, async () => {
        let count = 0;
        for (let released = -1; released !== 0; count += released)
          released = (await releaseDue({ store, queue }, due, 50)).length;
        return count;
      }),
    );
    expect(rounds.reduce((sum, count) => sum + count)).toBe(400);
    expect(queue.queued.map(({ id }) => id).toSorted()).toEqual(ids.toSorted());
    const entries =
      await sql`select count(*)::int as n from timeline where tenant_id = ${tenantId} and status = ${Status.ACCEPTED}`;
    expect(entries).toEqual([{ n: 400 }]);
    expect(await releaseDue({ store, queue }, due, 50)).toEqual([]);
  });

  test("is released most urgent first, and what is not due yet stays", async () => {
    const { tenantId } = tenant();
    const priorities = [Priority.LOW, Priority.CRITICAL, Priority.NORMAL];
    await wait(
      { store, newId, clock },
      tenantId,
      priorities.map((priority) => ({ userId: "u", status: Status.HELD, priority })),
    );
    const queue = recording();
    expect(await releaseDue({ store, queue }, new Date(clock().getTime() + HOUR - 1), 50)).toEqual([]);
    const released = await releaseDue({ store, queue }, new Date(clock().getTime() + HOUR), 50);
    expect(released.map(({ priority }) => priority)).toEqual([Priority.CRITICAL, Priority.NORMAL, Priority.LOW]);
  });
});

test("keys are forgotten when their time is over, and not before", async () => {
  const { tenantId } = tenant();
  const now = clock();
  const at = (ms: number) => new Date(now.getTime() + ms);
  for (const [key, expiresAt] of [
    ["old", at(0)],
    ["young", at(1)],
  ] as const) {
    await sql`insert into idempotency_keys (tenant_id, key, request_hash, response, expires_at) values (${tenantId}, ${key}, '', '', ${expiresAt})`;
    await sql`insert into dedup_keys (tenant_id, user_id, key, notification_id, expires_at) values (${tenantId}, 'u', ${key}, ${newId()}, ${expiresAt})`;
  }
  expect(await forgetKeys(store, now, 100)).toBe(1);
  const left = await sql`select key from idempotency_keys where tenant_id = ${tenantId} union all
    select key from dedup_keys where tenant_id = ${tenantId}`;
  expect(left.map(({ key }) => key)).toEqual(["young", "young"]);
});

describe("a periodic job", () => {
  const job = (more: boolean[]) => {
    const ran = Promise.withResolvers<void>();
    let runs = 0;
    const run = async () => {
      const next = more[runs++];
      if (next === undefined) throw new Error("a round that fails");
      if (runs === more.length) ran.resolve();
      return { more: next };
    };
    return { run, ran: ran.promise, runs: () => runs };
  };
  test("goes on at once while there is more, whatever its interval", async () => {
    const { run, ran, runs } = job([true, true, true, false]);
    await using _ = startLoop("test", HOUR, run, log, Math.random);
    await ran;
    expect(runs()).toBe(4);
  });
  test("survives a round that fails", async () => {
    let runs = 0;
    const again = Promise.withResolvers<void>();
    await using _ = startLoop(
      "test",
      1,
      async () => {
        if (++runs === 1) throw new Error("a round that fails");
        again.resolve();
        return { more: false };
      },
      log,
      Math.random,
    );
    await again.promise;
  });
  test("is over when it is disposed, with the round at hand finished", async () => {
    const begun = Promise.withResolvers<void>();
    const end = Promise.withResolvers<void>();
    let finished = false;
    const loop = startLoop(
      "test",
      1,
      async () => {
        begun.resolve();
        await end.promise;
        finished = true;
        return { more: true };
      },
      log,
      Math.random,
    );
    await begun.promise;
    const disposed = loop[Symbol.asyncDispose]();
    end.resolve();
    await disposed;
    expect(finished).toBe(true);
  });
});
