import postgres from "postgres";
import { Registry } from "prom-client";
import { afterAll } from "vitest";
import { reconcilingReminders } from "#src/deadlines/reconcile.ts";
import { newIds } from "#src/ids.ts";
import { storeReminders } from "#src/pipeline/accept/reminders.ts";
import { reconciling } from "#src/pipeline/reconsider/reconsider.ts";
import { decide } from "#src/pipeline/route/gates/decide.ts";
import { zoneClocks } from "#src/preferences/zone-clock.ts";
import { pageTokens } from "#src/store/page-token.ts";
import { openStore } from "#src/store/store.ts";
import { filterEvaluator } from "#src/subscriptions/evaluate.ts";
import { createMetrics } from "#src/telemetry/metrics.ts";
import { judging } from "#src/types/payload/judging.ts";
import { fakeCall } from "./call.ts";
import { localInvalidations } from "./local-invalidations.ts";
import { testServices } from "./services.ts";

/** What services need, on a database of the test file's own, with a clock that the test moves. */
export async function onPostgres() {
  const { databaseUrl } = await testServices();
  const store = openStore({
    url: databaseUrl,
    hotPoolSize: 6,
    poolSize: 12,
    statementTimeoutMs: 20_000,
    lockTimeoutMs: 10_000,
    prepare: true,
  });
  /** Sees all tenants. */
  const sql = postgres(databaseUrl, { max: 2, onnotice: () => undefined });
  afterAll(async () => {
    await store[Symbol.asyncDispose]();
    await sql.end();
  });
  const time = { now: new Date() };
  const clock = () => time.now;
  const newId = newIds(clock);
  return {
    store,
    sql,
    time,
    clock,
    newId,
    pageTokens: pageTokens(new Uint8Array(32)),
    invalidations: localInvalidations(),
    judging: judging(),
    reconcile: reconciling({
      decide,
      metrics: createMetrics(new Registry()),
      clockOf: zoneClocks(),
      filters: filterEvaluator(),
      live: { statusChanged: () => undefined },
    }),
    reconcileReminders: reconcilingReminders({ newId, store: storeReminders, cancelled: () => undefined }),
    aboutToChange: async () => undefined,
    preferencesChanged: () => undefined,
    /** A tenant nobody else has, and a call by one of its API keys. */
    tenant: () => fakeCall({ tenantId: newId() }),
  };
}
