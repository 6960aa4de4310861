import { Registry } from "prom-client";

/** Answers what `/metrics` is asked for, by the request's `Accept`. */
export type Exposition = (accept: string | undefined) => Promise<{ contentType: string; body: string }>;

/**
 * The registry as text: OpenMetrics 1.0 for who asks for it, as Prometheus does, else Prometheus' older format.
 *
 * prom-client can do both, but renames counters when it writes OpenMetrics, so a registry is good for one of them. They
 * differ in little: what describes a counter leaves out `_total`, there are no empty lines, and the end is told.
 */
export function exposition(registry: Registry): Exposition {
  let collecting: Promise<string> | undefined;
  return async (accept) => {
    // Who asks at the same time gets the same: it costs milliseconds, and anybody may ask.
    collecting ??= registry.metrics().finally(() => {
      collecting = undefined;
    });
    const text = await collecting;
    if (!accept?.includes("application/openmetrics-text")) return { contentType: registry.contentType, body: text };
    const described = text.replaceAll(/^(# (?:HELP|TYPE) \S+)_total /gm, "$1 ").replaceAll(/\n\n+/g, "\n");
    return { contentType: Registry.OPENMETRICS_CONTENT_TYPE, body: `${described}# EOF\n` };
  };
}
