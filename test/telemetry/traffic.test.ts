import { Registry } from "prom-client";
import { expect, test } from "vitest";
import { createMetrics } from "#src/telemetry/metrics.ts";
import { until } from "../support/until.ts";
import { expressions } from "./deployed.ts";
import { usesOf } from "./promql.ts";
import type { Family } from "./scrape.ts";
import { CANARY, traffic } from "./traffic.ts";

const { front, back, collector, peaks, families, lines } = await traffic();
const declared = Object.values(createMetrics(new Registry())) as unknown as { name: string; labelNames: string[] }[];

test("every declared metric is fed", async () => {
  const silent = declared.map(({ name }) => name).filter((name) => !((peaks.get(name) ?? 0) > 0));
  // It is looked at now and then, and the escalations of this traffic may begin and end in between.
  const steady = silent.filter((name) => name !== "posthorn_escalations_open");
  // Set by what an earlier server stored, when memory is short, and when a process goes out of service.
  expect(steady).toEqual([
    "posthorn_payload_contract_unusable_total",
    "posthorn_memory_pressure_seconds_total",
    "posthorn_draining",
  ]);
  for (const name of ["posthorn_event_loop_delay_seconds", "nodejs_gc_duration_seconds", "process_cpu_seconds_total"])
    expect(peaks.get(name)).toBeGreaterThan(0);
});

test("what was counted is what was done", async () => {
  const [, ofBack] = families();
  const total = (name: string, labels: Record<string, string>) =>
    ofBack
      ?.get(name)
      ?.samples.filter((sample) => Object.entries(labels).every(([key, value]) => sample.labels[key] === value))
      .reduce((sum, { value }) => sum + value, 0) ?? 0;
  const decided = total("posthorn_notifications_decided_total", { status: "delivered" });
  const ways = families()[1]?.get("posthorn_end_to_end_seconds")?.samples ?? [];
  const measured = ways.filter(({ name }) => name.endsWith("_count")).reduce((sum, { value }) => sum + value, 0);
  expect(measured).toBeGreaterThan(200);
  expect(measured).toBeLessThanOrEqual(decided);
  // Each bucket holds those below it.
  for (const lane of ["critical", "high", "normal", "low"]) {
    const buckets = ways.filter(({ name, labels }) => name.endsWith("_bucket") && labels.lane === lane);
    expect(buckets.map(({ value }) => value)).toEqual(buckets.map(({ value }) => value).toSorted((a, b) => a - b));
    expect(buckets.at(-1)?.value).toBe(
      ways.find(({ name, labels }) => name.endsWith("_count") && labels.lane === lane)?.value,
    );
  }
});

test("what leads outside, what is collected and what is due by itself is counted by what came of it", () => {
  const all = families();
  const values = (name: string, label: string) =>
    new Set(all.flatMap((node) => node.get(name)?.samples.map(({ labels }) => labels[label]) ?? []));
  const pairs = (name: string, ...labels: string[]) =>
    new Set(
      all.flatMap(
        (node) => node.get(name)?.samples.map((sample) => labels.map((label) => sample.labels[label]).join(" ")) ?? [],
      ),
    );
  expect(pairs("posthorn_hand_overs_total", "channel", "outcome")).toEqual(
    new Set(["email sent", "push sent", "push retry", "push expired", "sms refused", "webhook unknown"]),
  );
  expect(values("posthorn_hand_over_seconds", "channel")).toEqual(new Set(["email", "push", "sms"]));
  expect(pairs("posthorn_escalation_steps_total", "channel", "outcome")).toEqual(new Set(["email taken"]));
  expect(values("posthorn_escalations_ended_total", "outcome")).toEqual(
    new Set(["confirmed", "read", "cancelled", "missing"]),
  );
  expect(pairs("posthorn_batches_closed_total", "kind", "reason")).toEqual(
    new Set(["batch size", "batch window", "batch early", "batch dissolved"]),
  );
  expect(values("posthorn_hourly_cap_total", "decision")).toEqual(new Set(["allowed", "held", "digest"]));
  expect(values("posthorn_occurrences_total", "outcome")).toEqual(new Set(["sent"]));
  const kinds = ["notification", "step", "hand-over", "batch", "occurrence"];
  expect(values("posthorn_scheduler_lag_seconds", "kind")).toEqual(new Set(kinds));
  expect(values("posthorn_scheduler_waiting", "kind")).toEqual(new Set(kinds));
});

/** Series of one process. A label's value that a caller chooses would pass it soon. */
const MOST_SERIES = 1500;

test("no label holds a tenant, a user, an id or what a caller wrote, and series are few", () => {
  for (const node of families()) {
    const samples = [...node.values()].flatMap((family) => family.samples);
    expect(samples.length).toBeGreaterThan(100);
    expect(samples.length).toBeLessThan(MOST_SERIES);
    const values = new Set(samples.flatMap(({ labels }) => Object.values(labels)));
    const text = [...values].join("\n");
    for (const secret of [front.tenant.tenantId, "user-", "reader", "slow\n", "news", CANARY, front.services.namespace])
      expect(text.replaceAll(/^(slow|stream_slow.*)$/gm, "")).not.toContain(secret.trim());
    expect(text).not.toMatch(/[0-9a-f]{8}-[0-9a-f]{4}/);
    const names = new Set(samples.flatMap(({ labels }) => Object.keys(labels)));
    const known = new Set([...declared.flatMap(({ labelNames }) => labelNames), "le", "quantile", "kind"]);
    expect([...names].filter((name) => !known.has(name))).toEqual([]);
  }
});

test("the collector is pushed the same metrics, and the traces of both nodes", async () => {
  for (const [instance, node] of [
    ["front", families()[0]],
    ["back", families()[1]],
  ] as const) {
    const names = [...(node?.keys() ?? [])].map((name) => name.replace(/_total$/, ""));
    const pushed = await until(
      async () => collector.metrics(instance),
      (metrics) => names.every((name) => metrics.has(name)),
    );
    const way = pushed.get("posthorn_route_chunk_seconds")?.histogram?.dataPoints ?? [];
    for (const { bucketCounts = [], count, explicitBounds = [] } of way) {
      expect(bucketCounts).toHaveLength(explicitBounds.length + 1);
      expect(bucketCounts.reduce((sum, value) => sum + Number(value), 0)).toBe(Number(count));
    }
    if (instance === "back") {
      expect(way.length).toBeGreaterThan(0);
      expect(pushed.get("posthorn_queue_messages")?.sum?.isMonotonic).toBe(true);
    }
  }
  // What is put on the queue again begins a trace of its own, which says why.
  for (const why of ["due", "lost"]) {
    const spansOf = () => {
      const requeued = collector.spans.find(({ name, parentSpanId }) => name === `requeue ${why}` && !parentSpanId);
      return collector.spans.filter(({ traceId }) => traceId === requeued?.traceId).map(({ name }) => name);
    };
    await until(
      async () => spansOf(),
      (names) => ["publish", "process"].every((what) => names.some((name) => name.startsWith(what))),
    );
  }
});

test("the log has the fields that searches rely on, the trace in every line of a span, and no content", () => {
  const decided = lines.filter(({ msg }) => msg === "decided");
  expect(decided).toContainEqual({
    level: "debug",
    time: expect.any(String),
    service: "posthorn",
    instance: "back",
    tenant: front.tenant.tenantId,
    user: "reader",
    notification: expect.stringMatching(/^[0-9a-f-]{36}$/),
    type: "general",
    channels: ["in_app"],
    status: "delivered",
    trace_id: expect.stringMatching(/^[0-9a-f]{32}$/),
    span_id: expect.stringMatching(/^[0-9a-f]{16}$/),
    msg: "decided",
  });
  const held = decided.find(({ status }) => status === "held");
  expect(held).toMatchObject({ reason: "user_burst_limit" });
  const about = {
    level: "debug",
    service: "posthorn",
    instance: "front",
    tenant: front.tenant.tenantId,
    user: expect.stringMatching(/^outside-/),
    notification: expect.stringMatching(/^[0-9a-f-]{36}$/),
    type: "general",
    trace_id: expect.stringMatching(/^[0-9a-f]{32}$/),
    span_id: expect.stringMatching(/^[0-9a-f]{16}$/),
  };
  const told = (message: string) =>
    lines.filter(({ msg }) => msg === message).map(({ time: _, msg: __, ...line }) => line);
  const handed = told("handed over");
  expect(handed).toContainEqual({
    ...about,
    channels: ["email"],
    step: 0,
    attempts: 1,
    status: "delivered",
    outcome: "sent",
  });
  const late = { status: "processing", outcome: "expired", reason: "expired" };
  const attempts = expect.toBeOneOf([1, 2]); // Its second is on the way for it to expire, or, on a busy machine, its first.
  expect(handed).toContainEqual({ ...about, channels: ["push"], step: 0, attempts, ...late });
  const [refused] = told("a channel does not take a notification");
  expect(refused).toMatchObject({ level: "warn", user: "outside-2", type: "general", channels: ["sms"] });
  expect(refused).toMatchObject({ status: "processing", outcome: "refused", reason: "channel_unavailable" });
  const steps = told("a step of an escalation");
  expect(steps).toContainEqual({ ...about, channels: ["email"], step: 1, status: "delivered", outcome: "taken" });
  const missing = { outcome: "missing", reason: "confirmation_missing" };
  expect(steps).toContainEqual({ ...about, channels: [], status: "delivered", ...missing });
  expect(told("confirmed")).toEqual([{ ...about, user: "outside-5", status: "read" }]);
  const calls = lines.filter(({ msg, method }) => msg === "call ended" && method === "posthorn.v1.SendService/Send");
  expect(calls.length).toBeGreaterThan(5);
  for (const call of calls)
    expect(call).toMatchObject({
      tenant: front.tenant.tenantId,
      trace_id: expect.any(String),
      span_id: expect.any(String),
    });
  // One search finds the call and the decision.
  const traces = new Set(calls.map(({ trace_id }) => trace_id));
  expect(decided.filter(({ trace_id }) => traces.has(trace_id)).length).toBeGreaterThan(3);
  expect(JSON.stringify(lines)).not.toContain(CANARY);
  expect(JSON.stringify(collector.spans)).not.toContain(CANARY);
  expect(back.platform.httpUrl).not.toBe(front.platform.httpUrl);
});

test("who asks for OpenMetrics gets it", async () => {
  const answer = await fetch(`${front.platform.httpUrl}/metrics`, {
    headers: { accept: "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5" },
  });
  const text = await answer.text();
  expect(answer.headers.get("content-type")).toBe("application/openmetrics-text; version=1.0.0; charset=utf-8");
  expect(text).toMatch(/^# TYPE posthorn_rpc_requests counter$/m);
  expect(text).toMatch(/^posthorn_rpc_requests_total\{.*\} \d+$/m);
  expect(text).not.toMatch(/\n\n/);
  expect(text.endsWith("\n# EOF\n")).toBe(true);
  const plain = await fetch(`${front.platform.httpUrl}/metrics`);
  expect(plain.headers.get("content-type")).toContain("text/plain; version=0.0.4");
  expect(await plain.text()).toMatch(/^# TYPE posthorn_rpc_requests_total counter$/m);
});

test("every metric that dashboard and alerts name is there, of the right type, with the labels they use", () => {
  const all = families();
  const find = (metric: string): [string, Family[]] => {
    const bare = metric.replace(/_(bucket|sum|count)$/, "");
    const histogram = all.some((node) => node.get(bare)?.type === "histogram");
    const name = histogram ? bare : metric;
    return [name, all.flatMap((node) => node.get(name) ?? [])];
  };
  for (const { where, expr } of expressions()) {
    for (const { metric, matchers, grouping, within } of usesOf(expr)) {
      const [name, found] = find(metric);
      expect(found.length, `${where}: ${metric}`).toBeGreaterThan(0);
      const { type } = found[0] as Family;
      const cumulative = within[0] === "rate" || within[0] === "increase";
      if (within[0] !== "absent")
        expect(cumulative ? ["counter", "histogram"] : ["gauge"], `${where}: ${metric} is a ${type}`).toContain(type);
      expect(metric.endsWith("_bucket"), where).toBe(within.includes("histogram_quantile"));
      const samples = found.flatMap(({ samples: each }) => each).filter((sample) => sample.name === metric);
      expect(samples.length, `${where}: ${metric}`).toBeGreaterThan(0);
      const labels = new Set([...samples.flatMap((sample) => Object.keys(sample.labels)), "job", "instance"]);
      for (const label of [...grouping, ...matchers.map((matcher) => matcher.label)])
        expect(labels, `${where}: ${label} of ${name}`).toContain(label);
      for (const { label, op, value } of matchers) {
        if (value.startsWith("$") || label === "job") continue;
        const wanted = new RegExp(`^(?:${value})$`);
        const seen = samples.some((sample) =>
          op === "=" ? sample.labels[label] === value : wanted.test(sample.labels[label] ?? ""),
        );
        expect(seen || label === "code", `${where}: ${label}=${value} of ${name}`).toBe(true);
      }
    }
  }
});
