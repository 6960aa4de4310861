import { Registry } from "prom-client";
import { expect, test } from "vitest";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { Channel, Reason, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { Fault } from "#src/errors.ts";
import type { Delivery } from "#src/pipeline/consume.ts";
import { POISON_ATTEMPTS } from "#src/pipeline/redelivery.ts";
import type { RouteDeps } from "#src/pipeline/route/route.ts";
import { type WorkerDeps, worker } from "#src/pipeline/worker.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { createMetrics } from "#src/telemetry/metrics.ts";
import { onPostgres } from "../support/on-postgres.ts";
import { wait } from "../support/waiting.ts";

const { store, sql, clock, newId, tenant } = await onPostgres();
const log = createLogger({ serviceName: "test", logLevel: "silent", logFormat: "json" });

/** A worker whose decisions fail for one user, with a given error. */
function failing(error: Error) {
  const route: RouteDeps = {
    store,
    clock,
    metrics: createMetrics(new Registry()),
    log,
    newId,
    reloadType: async () => undefined,
    findType: () =>
      ({ key: "general", batching: null, digestRule: 0, value: 3, urgency: 3, escalation: null }) as never,
    loadPreferences: async (_, userIds) => {
      if (userIds.includes("poison")) throw error;
      const own = { delivery: { method: Channel.IN_APP }, revisions: { user: 0, tenant: 0 }, timeZone: "UTC" };
      return new Map(userIds.map((userId) => [userId, own as never]));
    },
    reloadPreferences: (...args) => route.loadPreferences(...args),
    decide: ({ notification }) => notification.channels.map((channel) => ({ channel, kind: "deliver" as const })),
    reserve: async (_, wanted) => wanted.map(() => ({ allowed: true })),
    arrived: () => undefined,
    statusChanged: () => undefined,
    batchJoined: () => undefined,
  };
  const deps: WorkerDeps = { route, accept: {} as never, slots: [0], newEpoch: () => 7, log };
  return worker(deps);
}

const delivery = (attempt: number): Delivery => ({
  attempt,
  working: () => undefined,
  signal: new AbortController().signal,
  traces: new Map(),
});

async function chunk() {
  const { tenantId } = tenant();
  const ids = await wait({ store, newId, clock }, tenantId, [{ userId: "u1" }, { userId: "poison" }, { userId: "u2" }]);
  const statuses = async () =>
    (await sql`select status, reason from notifications where tenant_id = ${tenantId} order by id`).map(
      ({ status, reason }) => [status, reason],
    );
  return { work: { tenantId, ids }, statuses };
}

const WAITING = [Status.ACCEPTED, 0];
const DELIVERED = [Status.DELIVERED, 0];

test("one that cannot be decided keeps its chunk back at first, and in the end only itself", async () => {
  const handle = failing(new Error("a defect"));
  const { work, statuses } = await chunk();
  await expect(handle(work, delivery(POISON_ATTEMPTS))).rejects.toThrow("a defect");
  expect(await statuses()).toEqual([WAITING, WAITING, WAITING]);
  await handle(work, delivery(POISON_ATTEMPTS + 1));
  expect(await statuses()).toEqual([DELIVERED, [Status.FAILED, Reason.PROCESSING_FAILED], DELIVERED]);
});

test.each([
  ["a store that is out of breath", new Fault(ErrorReason.OVERLOADED)],
  ["a store that does not answer", new Fault(ErrorReason.DEPENDENCY_UNAVAILABLE)],
  ["a connection that is refused", Object.assign(new Error("connect"), { code: "ECONNREFUSED" })],
])("%s ends nothing, however often it is tried", async (_, error) => {
  const { work, statuses } = await chunk();
  await expect(failing(error)(work, delivery(1000))).rejects.toBe(error);
  const [, poison, last] = await statuses();
  expect([poison, last]).toEqual([WAITING, WAITING]);
});
