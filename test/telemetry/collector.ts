import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

type Attribute = { key: string; value: { stringValue?: string; intValue?: string } };
type Point = {
  attributes: Attribute[];
  asDouble?: number;
  count?: string;
  bucketCounts?: string[];
  explicitBounds?: number[];
};
export type PushedMetric = {
  name: string;
  sum?: { dataPoints: Point[]; isMonotonic: boolean };
  gauge?: { dataPoints: Point[] };
  histogram?: { dataPoints: Point[] };
};
export type PushedSpan = { name: string; traceId: string; parentSpanId?: string; attributes: Attribute[] };

/** A collector of OTLP over HTTP in JSON that remembers what it was sent. */
export type Collector = AsyncDisposable & {
  readonly url: string;
  readonly spans: PushedSpan[];
  /** The newest push of an instance, by name. */
  metrics(instance: string): ReadonlyMap<string, PushedMetric>;
};

export async function startCollector(): Promise<Collector> {
  const spans: PushedSpan[] = [];
  const newest = new Map<string, Map<string, PushedMetric>>();
  const server = createServer(async (request, response) => {
    let text = "";
    for await (const piece of request) text += piece;
    const body = JSON.parse(text);
    for (const { resource, scopeSpans = [], scopeMetrics = [] } of body.resourceSpans ?? body.resourceMetrics) {
      const instance = (resource.attributes as Attribute[]).find(({ key }) => key === "service.instance.id");
      for (const scope of scopeSpans) spans.push(...scope.spans);
      for (const { metrics } of scopeMetrics)
        newest.set(
          instance?.value.stringValue ?? "",
          new Map((metrics as PushedMetric[]).map((metric) => [metric.name, metric])),
        );
    }
    response.setHeader("content-type", "application/json").end("{}");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans,
    metrics: (instance) => newest.get(instance) ?? new Map(),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}
