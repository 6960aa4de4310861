import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { findPromtool } from "#src/dev/promtool.ts";
import { alerts } from "./deployed.ts";

// Read, and tried, by Prometheus itself. `node src/dev/toolchains.ts` fetches it.

const DEPLOY = fileURLToPath(new URL("../../deploy/", import.meta.url));

/** Where each trial's own job stands. */
const PLACE = 'job="posthorn"';

/** Samples every half a minute, for an hour: as promtool writes them, `begin+step`. */
type Series = Readonly<Record<string, string>>;

/** So many in the half minute between two samples. */
const rate = (perSecond: number) => `0+${perSecond * 30}x120`;
const always = (value: number) => `${value}x120`;
/** For that long in the middle of the hour, and before and after it another. */
const lately = (value: number, minutes: number, before = 0) => `${before}x${119 - 2 * minutes} ${value}x${2 * minutes}`;
/** Everything observed between two bounds of a histogram. */
const histogram = (name: string, labels: string, below: string, above: string): Series => ({
  [`${name}_bucket{${PLACE},${labels},le="${below}"}`]: always(0),
  [`${name}_bucket{${PLACE},${labels},le="${above}"}`]: rate(10),
  [`${name}_bucket{${PLACE},${labels},le="+Inf"}`]: rate(10),
});
const one = (metric: string, labels: string, samples: string): Series => ({
  [`${metric}{${PLACE},${labels}}`]: samples,
});
const requests = (code: string, perSecond: number) =>
  one("posthorn_rpc_requests_total", `code="${code}"`, rate(perSecond));
const handOvers = (outcome: string, perSecond: number) =>
  one("posthorn_hand_overs_total", `channel="email",outcome="${outcome}"`, rate(perSecond));

/** What lets an alert be told, and what is just not enough, or not for long enough. */
const TRIED: Readonly<Record<string, { told: Series; untold: Series[] }>> = {
  PosthornCriticalQueueOld: {
    told: one("posthorn_queue_oldest_seconds", 'lane="critical"', lately(6, 2)),
    untold: [
      one("posthorn_queue_oldest_seconds", 'lane="critical"', always(5)),
      one("posthorn_queue_oldest_seconds", 'lane="low"', always(60)),
    ],
  },
  PosthornQueueOld: {
    told: one("posthorn_queue_oldest_seconds", 'lane="normal"', always(121)),
    untold: [
      one("posthorn_queue_oldest_seconds", 'lane="normal"', lately(500, 1)),
      one("posthorn_queue_oldest_seconds", 'lane="low"', always(3600)),
    ],
  },
  PosthornQueueDeep: {
    told: one("posthorn_queue_waiting", 'lane="low"', lately(20_000, 12)),
    untold: [one("posthorn_queue_waiting", 'lane="low"', lately(20_000, 8))],
  },
  PosthornErrors: {
    told: { ...requests("OK", 97), ...requests("INTERNAL", 3) },
    untold: [
      { ...requests("OK", 99), ...requests("UNAVAILABLE", 1) },
      { ...requests("OK", 50), ...requests("INVALID_ARGUMENT", 50) },
    ],
  },
  PosthornOverloaded: {
    told: requests("RESOURCE_EXHAUSTED", 11),
    untold: [requests("RESOURCE_EXHAUSTED", 9)],
  },
  PosthornSlow: {
    told: histogram("posthorn_end_to_end_seconds", 'lane="high"', "1", "2.5"),
    untold: [
      histogram("posthorn_end_to_end_seconds", 'lane="high"', "0.5", "1"),
      histogram("posthorn_end_to_end_seconds", 'lane="low"', "10", "30"),
    ],
  },
  PosthornSlowConsumers: {
    told: one("posthorn_stream_slow_consumers_total", 'instance="a"', rate(2)),
    untold: [one("posthorn_stream_slow_consumers_total", 'instance="a"', rate(1))],
  },
  PosthornPayloadContractUnusable: {
    told: one("posthorn_payload_contract_unusable_total", 'instance="a"', lately(1, 5)),
    untold: [one("posthorn_payload_contract_unusable_total", 'instance="a"', always(9))],
  },
  PosthornDependencyDown: {
    told: {
      ...one("posthorn_dependency_up", 'dependency="nats",instance="a"', always(1)),
      ...one("posthorn_dependency_up", 'dependency="nats",instance="b"', lately(0, 2, 1)),
    },
    untold: [one("posthorn_dependency_up", 'dependency="nats",instance="a"', "1x118 0 0")],
  },
  PosthornPublishFailing: {
    told: one("posthorn_queue_publish_failures_total", 'lane="high"', rate(1)),
    untold: [one("posthorn_queue_publish_failures_total", 'lane="high"', always(7))],
  },
  PosthornReconciling: {
    told: one("posthorn_reconciler_republished_total", 'lane="high"', rate(2)),
    untold: [one("posthorn_reconciler_republished_total", 'lane="high"', rate(1))],
  },
  PosthornSchedulerLate: {
    told: histogram("posthorn_scheduler_lag_seconds", 'kind="batch"', "10", "30"),
    untold: [histogram("posthorn_scheduler_lag_seconds", 'kind="batch"', "5", "10")],
  },
  PosthornDueWorkOld: {
    told: one("posthorn_scheduler_oldest_seconds", 'kind="step"', lately(130, 3)),
    untold: [
      one("posthorn_scheduler_oldest_seconds", 'kind="step"', lately(130, 1)),
      one("posthorn_scheduler_oldest_seconds", 'kind="step"', always(120)),
    ],
  },
  PosthornHandOversFailing: {
    told: { ...handOvers("sent", 8), ...handOvers("given_up", 1), ...handOvers("held", 9) },
    untold: [
      { ...handOvers("sent", 10), ...handOvers("refused", 1) },
      { ...handOvers("sent", 1), ...handOvers("retry", 9) },
    ],
  },
  PosthornHandOversUnknown: {
    told: handOvers("unknown", 0.01),
    untold: [handOvers("unknown", 0.002), handOvers("given_back", 10)],
  },
  PosthornHandOversLate: {
    told: histogram("posthorn_hand_over_seconds", 'channel="sms"', "30", "60"),
    untold: [histogram("posthorn_hand_over_seconds", 'channel="sms"', "10", "30")],
  },
  PosthornJobsFailing: {
    told: one("posthorn_job_failures_total", 'task="partitions"', rate(0.01)),
    untold: [one("posthorn_job_failures_total", 'task="partitions"', rate(0.005))],
  },
  PosthornNoScheduler: {
    told: one("posthorn_job_seconds_count", 'task="release"', always(100)),
    untold: [one("posthorn_job_seconds_count", 'task="release"', rate(4))],
  },
  PosthornPoolWaiting: {
    told: one("posthorn_pool_waiting", 'instance="a",pool="hot"', lately(1, 6)),
    untold: [one("posthorn_pool_waiting", 'instance="a",pool="hot"', `0+0x110 5 5 0 5 5 0 5 5 0 5`)],
  },
  PosthornEventLoopSlow: {
    told: one("posthorn_event_loop_delay_seconds", 'instance="a",quantile="0.99"', lately(0.3, 4)),
    untold: [
      one("posthorn_event_loop_delay_seconds", 'instance="a",quantile="0.99"', lately(0.3, 2)),
      one("posthorn_event_loop_delay_seconds", 'instance="a",quantile="0.5"', always(0.3)),
    ],
  },
  PosthornMemory: {
    told: {
      ...one("process_resident_memory_bytes", 'instance="a"', always(450e6)),
      ...one("posthorn_memory_limit_bytes", 'instance="a"', always(512e6)),
    },
    untold: [
      {
        ...one("process_resident_memory_bytes", 'instance="a"', always(400e6)),
        ...one("posthorn_memory_limit_bytes", 'instance="a"', always(512e6)),
      },
    ],
  },
  PosthornMemoryShort: {
    told: one("posthorn_memory_pressure_seconds_total", 'instance="a",kind="over"', rate(0.2)),
    untold: [
      one("posthorn_memory_pressure_seconds_total", 'instance="a",kind="over"', rate(0.05)),
      one("posthorn_memory_pressure_seconds_total", 'instance="a",kind="near"', rate(0.9)),
    ],
  },
  PosthornLimiterFallback: {
    told: one("posthorn_limiter_fallback_total", 'limit="user"', rate(1)),
    untold: [one("posthorn_limiter_fallback_total", 'limit="user"', always(9))],
  },
};

const promtool = findPromtool();

function run(...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(promtool ?? "", args, { cwd: DEPLOY, encoding: "utf8" });
  return status === 0 ? "" : `${stdout}${stderr}`;
}

test("each alert is tried: what tells it, and what does not", () => {
  const all = alerts().groups.flatMap(({ rules }) => rules.map(({ alert }) => alert));
  expect(Object.keys(TRIED).sort()).toEqual(all.sort());
});

test.skipIf(promtool === undefined)("Prometheus takes the rules and its configuration (promtool)", () => {
  expect(run("check", "rules", "prometheus-alerts.yaml")).toBe("");
  expect(run("check", "config", "prometheus.yaml")).toBe("");
});

test.skipIf(promtool === undefined)("alerts are told of what they are about, and of nothing less (promtool)", () => {
  // All at once, each as a job of its own: promtool makes a database for every trial.
  const within = (job: string, series: Series) =>
    Object.entries(series).map(([of, values]) => ({ series: of.replace(PLACE, `job="${job}"`), values }));
  const input_series = Object.entries(TRIED).flatMap(([alert, { told, untold }]) => [
    ...within(alert, told),
    ...untold.flatMap((each, n) => within(`${alert} untold ${n}`, each)),
  ]);
  const firing = {
    expr: 'count by (alertname, job) (ALERTS{alertstate="firing"})',
    eval_time: "60m",
    exp_samples: Object.keys(TRIED).map((name) => ({ labels: `{alertname="${name}",job="${name}"}`, value: 1 })),
  };
  const tests = [{ interval: "30s", input_series, promql_expr_test: [firing] }];
  const folder = mkdtempSync(join(tmpdir(), "posthorn-alerts-"));
  try {
    const file = join(folder, "tests.yaml");
    const rules = join(DEPLOY, "prometheus-alerts.yaml");
    writeFileSync(file, JSON.stringify({ rule_files: [rules], evaluation_interval: "30s", tests }));
    expect(run("test", "rules", file)).toBe("");
  } finally {
    rmSync(folder, { recursive: true });
  }
});
