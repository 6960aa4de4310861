import { totalmem } from "node:os";
import { setImmediate } from "node:timers/promises";
import { Registry } from "prom-client";
import { expect, it } from "vitest";
import { createMetrics } from "#src/telemetry/metrics.ts";
import { startProcessMetrics } from "#src/telemetry/process-metrics.ts";
import { until } from "../support/until.ts";

it("what was counted is in the text of its own registry, and in no other", async () => {
  const [one, other] = [new Registry(), new Registry()];
  const metrics = createMetrics(one);
  createMetrics(other);
  metrics.rpcRequests.inc({ transport: "grpc", method: "posthorn.v1.SendService/Send", code: "OK" });
  metrics.decided.inc({ channel: "in_app", status: "delivered", lane: "critical" }, 250);
  metrics.acceptGroupItems.observe(500);
  metrics.poolInUse.set({ pool: "hot" }, 3);
  const text = await one.metrics();
  expect(text).toContain(
    'posthorn_rpc_requests_total{transport="grpc",method="posthorn.v1.SendService/Send",code="OK"} 1',
  );
  expect(text).toContain(
    'posthorn_notifications_decided_total{channel="in_app",status="delivered",lane="critical"} 250',
  );
  expect(text).toContain('posthorn_accept_group_items_bucket{le="500"} 1');
  expect(text).toContain('posthorn_pool_in_use{pool="hot"} 3');
  expect(await other.metrics()).not.toContain("SendService");
});

it("no instrument is labelled with a tenant, a user or an id, and each can be used", async () => {
  const registry = new Registry();
  const metrics = createMetrics(registry);
  const all = Object.values(metrics) as unknown as { name: string; help: string; labelNames: string[] }[];
  expect(all.length).toBeGreaterThan(25);
  for (const { name, help, labelNames } of all) {
    expect(name).toMatch(/^posthorn_[a-z_]+$/);
    expect(help).toMatch(/^[A-Z1].*\.$/);
    expect(labelNames.filter((label) => /tenant|user|id$|key|device/i.test(label))).toEqual([]);
  }
});

it("an undeclared label is refused", () => {
  const metrics = createMetrics(new Registry());
  // @ts-expect-error: tenants are no labels
  expect(() => metrics.accepted.inc({ tenant: "acme" })).toThrow(/label/);
});

it("a blocked event loop shows as delay, and a stopped sampler starts again", async () => {
  for (let round = 0; round < 50; round++) startProcessMetrics(new Registry())[Symbol.dispose]();
  const registry = new Registry();
  using _sampling = startProcessMetrics(registry, 50);
  const delayOf = async () => {
    const found = await registry.getSingleMetric("posthorn_event_loop_delay_seconds")?.get();
    return found?.values.find(({ labels }) => labels.quantile === "1")?.value ?? Number.NaN;
  };
  // Blocked again before each look: a window is over soon, and a look may come late.
  const delayWhenBlocked = async () => {
    for (let turn = performance.now() + 30; performance.now() < turn; ) await setImmediate();
    for (let end = performance.now() + 120; performance.now() < end; );
    await setImmediate();
    return delayOf();
  };
  await until(delayWhenBlocked, (seconds) => seconds > 0.08);
  const text = await registry.metrics();
  expect(text).toMatch(/process_resident_memory_bytes \d{7,}/);
  const [, limit] = /^posthorn_memory_limit_bytes (\S+)/m.exec(text) ?? [];
  expect(Number(limit)).toBeGreaterThan(process.memoryUsage.rss());
  expect(Number(limit)).toBeLessThanOrEqual(totalmem());
  expect(text).toMatch(/process_cpu_seconds_total [\d.]+/);
});
