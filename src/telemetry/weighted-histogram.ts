import type { Metric, Registry } from "prom-client";

type Value = { value: number; labels: Record<string, string | number>; metricName: string };

/**
 * A histogram with one label that counts many equal observations at once. prom-client's own takes one at a time, which
 * for a chunk of 250 would cost more than the rest of its metrics together.
 */
export class WeightedHistogram<L extends string> {
  readonly name: string;
  readonly help: string;
  readonly type = "histogram";
  readonly aggregator = "sum";
  readonly labelNames: readonly string[];
  readonly #label: L;
  readonly #buckets: readonly number[];
  readonly #series = new Map<string, { counts: Float64Array; sum: number }>();

  constructor(options: { name: string; help: string; buckets: readonly number[]; label: L; registry: Registry }) {
    this.name = options.name;
    this.help = options.help;
    this.labelNames = [options.label];
    this.#label = options.label;
    this.#buckets = options.buckets;
    // A registry asks of a metric what is here and no more; its type names prom-client's own classes.
    options.registry.registerMetric(this as unknown as Metric);
  }

  /** `value`, seen `weight` times. Times before zero, which clocks that disagree make, count as zero. */
  observe(labels: Readonly<Record<L, string>>, value: number, weight = 1): void {
    const label = labels[this.#label];
    let series = this.#series.get(label);
    if (series === undefined) {
      series = { counts: new Float64Array(this.#buckets.length + 1), sum: 0 };
      this.#series.set(label, series);
    }
    const seen = Math.max(0, value);
    let bucket = 0;
    while (bucket < this.#buckets.length && seen > (this.#buckets[bucket] ?? 0)) bucket++;
    series.counts[bucket] = (series.counts[bucket] ?? 0) + weight;
    series.sum += seen * weight;
  }

  async get() {
    const values: Value[] = [];
    for (const [label, { counts, sum }] of this.#series) {
      const labels = { [this.#label]: label };
      let count = 0;
      counts.forEach((more, bucket) => {
        count += more;
        const le = this.#buckets[bucket] ?? "+Inf";
        values.push({ value: count, labels: { le, ...labels }, metricName: `${this.name}_bucket` });
      });
      values.push({ value: sum, labels, metricName: `${this.name}_sum` });
      values.push({ value: count, labels, metricName: `${this.name}_count` });
    }
    return { name: this.name, help: this.help, type: this.type, aggregator: this.aggregator, values };
  }

  reset(): void {
    this.#series.clear();
  }
}
