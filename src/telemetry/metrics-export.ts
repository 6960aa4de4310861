/**
 * The metrics over OTLP: the registry that `/metrics` shows, pushed. One set of instruments, two ways out; the SDK's
 * MetricProducer is made for such a source that is not its own.
 */

import { type Attributes, type HrTime, ValueType } from "@opentelemetry/api";
import { OTLPExporterBase } from "@opentelemetry/otlp-exporter-base";
import { convertLegacyHttpOptions, createOtlpHttpExportDelegate } from "@opentelemetry/otlp-exporter-base/node-http";
import { JsonMetricsSerializer, MetricsExporterMetricsHelper } from "@opentelemetry/otlp-transformer";
import { emptyResource } from "@opentelemetry/resources";
import {
  AggregationTemporality,
  DataPointType,
  type HistogramMetricData,
  MeterProvider,
  type MetricData,
  PeriodicExportingMetricReader,
  type ResourceMetrics,
} from "@opentelemetry/sdk-metrics";
import type { MetricObjectWithValues, MetricValue, MetricValueWithName, Registry } from "prom-client";
import type { Clock } from "#src/clock.ts";
import type { Logger } from "./logger.ts";
import { type OtlpConfig, resourceOf, targetOf, within } from "./otlp.ts";

/** Pushes every `intervalMs` until disposed, and once more then, for at most `flushMs`. Nothing happens without an endpoint. */
export function startMetricsExport(
  registry: Registry,
  config: OtlpConfig & { readonly otlpMetricsIntervalMs: number },
  { clock, log, flushMs = 2_000 }: { readonly clock: Clock; readonly log: Logger; readonly flushMs?: number },
): AsyncDisposable {
  const { otlpEndpoint: endpoint, otlpMetricsIntervalMs: intervalMs } = config;
  if (endpoint === undefined || intervalMs === 0) return new AsyncDisposableStack();
  const began = hrTimeOf(clock().getTime() - process.uptime() * 1000);
  const target = targetOf(config, endpoint, "metrics");
  const json = { "Content-Type": "application/json" };
  const exporter = new OTLPExporterBase<ResourceMetrics>(
    createOtlpHttpExportDelegate(
      convertLegacyHttpOptions(target, "METRICS", "v1/metrics", json),
      JsonMetricsSerializer,
      "otlp_http_metric_exporter",
      MetricsExporterMetricsHelper,
      undefined,
    ),
  );
  const collect = async () => ({
    resourceMetrics: {
      resource: emptyResource(),
      scopeMetrics: [
        { scope: { name: "posthorn" }, metrics: await readRegistry(registry, began, hrTimeOf(clock().getTime())) },
      ],
    },
    errors: [],
  });
  const reader = new PeriodicExportingMetricReader({
    exporter,
    exportIntervalMillis: intervalMs,
    exportTimeoutMillis: Math.min(10_000, intervalMs),
    metricProducers: [{ collect }],
  });
  const provider = new MeterProvider({ resource: resourceOf(config), readers: [reader] });
  return {
    async [Symbol.asyncDispose]() {
      await within(
        flushMs,
        provider.shutdown().catch((err) => log.warn({ err }, "some metrics were not sent")),
      );
    },
  };
}

/** Everything in the registry, cumulative since `began`. */
async function readRegistry(registry: Registry, began: HrTime, now: HrTime): Promise<MetricData[]> {
  const metrics = (await registry.getMetricsAsJSON()) as MetricObjectWithValues<MetricValue<string>>[];
  return metrics.map((metric) => metricData(metric, began, now));
}

function metricData(
  metric: MetricObjectWithValues<MetricValue<string>>,
  startTime: HrTime,
  endTime: HrTime,
): MetricData {
  const kind = String(metric.type);
  // Prometheus' exporters of OTLP add the ending again.
  const name = kind === "counter" ? metric.name.replace(/_total$/, "") : metric.name;
  const head = {
    descriptor: { name, description: metric.help, unit: "", valueType: ValueType.DOUBLE },
    aggregationTemporality: AggregationTemporality.CUMULATIVE,
  };
  const point = <T>(attributes: Attributes, value: T) => ({ startTime, endTime, attributes, value });
  const dataPoints = () => metric.values.map(({ labels, value }) => point({ ...labels }, value));
  switch (kind) {
    case "counter":
      return { ...head, dataPointType: DataPointType.SUM, isMonotonic: true, dataPoints: dataPoints() };
    case "histogram":
      return {
        ...head,
        dataPointType: DataPointType.HISTOGRAM,
        dataPoints: histograms(metric).map(([a, v]) => point(a, v)),
      };
    default:
      return { ...head, dataPointType: DataPointType.GAUGE, dataPoints: dataPoints() };
  }
}

type Value = HistogramMetricData["dataPoints"][number]["value"];

/** Prometheus' buckets count what is below them, those of OTLP what is between them. */
function histograms(metric: MetricObjectWithValues<MetricValue<string>>): [Attributes, Value][] {
  const series = new Map<
    string,
    { attributes: Attributes; bounds: number[]; below: number[]; sum: number; count: number }
  >();
  for (const { labels, value, metricName } of metric.values as MetricValueWithName<string>[]) {
    const { le, ...attributes } = labels as Record<string, string | number>;
    const key = JSON.stringify(Object.entries(attributes).sort());
    const known = series.get(key) ?? { attributes, bounds: [], below: [], sum: 0, count: 0 };
    series.set(key, known);
    if (metricName?.endsWith("_sum")) known.sum = value;
    else if (metricName?.endsWith("_count")) known.count = value;
    else if (le !== "+Inf") {
      known.bounds.push(Number(le));
      known.below.push(value);
    }
  }
  return [...series.values()].map(({ attributes, bounds, below, sum, count }) => {
    const counts = [...below, count].map((value, index) => value - (index === 0 ? 0 : (below[index - 1] ?? 0)));
    return [attributes, { buckets: { boundaries: bounds, counts }, sum, count }];
  });
}

function hrTimeOf(ms: number): HrTime {
  return [Math.floor(ms / 1000), Math.round((ms % 1000) * 1e6)];
}
