/** What traces and metrics have in common on their way to a collector. */

import { resourceFromAttributes } from "@opentelemetry/resources";
import { ATTR_SERVICE_INSTANCE_ID, ATTR_SERVICE_NAME } from "@opentelemetry/semantic-conventions";

export interface OtlpConfig {
  readonly serviceName: string;
  readonly instanceId?: string | undefined;
  /** OTLP/HTTP base URL, without `/v1/traces`. Undefined: nothing is exported. */
  readonly otlpEndpoint: string | undefined;
  /** `name=value` pairs separated by commas, values percent-encoded (OpenTelemetry OTLP exporter specification). */
  readonly otlpHeaders: string | undefined;
}

/** Who tells it. */
export function resourceOf({ serviceName, instanceId }: OtlpConfig) {
  return resourceFromAttributes({
    [ATTR_SERVICE_NAME]: serviceName,
    ...(instanceId === undefined ? {} : { [ATTR_SERVICE_INSTANCE_ID]: instanceId }),
  });
}

/** Where a signal goes, and with which headers. */
export function targetOf(config: OtlpConfig, endpoint: string, signal: "traces" | "metrics") {
  return {
    url: `${endpoint.replace(/\/+$/, "")}/v1/${signal}`,
    headers: headersOf(config.otlpHeaders ?? ""),
    timeoutMillis: 10_000,
  };
}

/** Settles with the work, or after `ms` without it. */
export async function within(ms: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const patience = new Promise((done) => {
    timer = setTimeout(done, ms);
  });
  await Promise.race([work, patience]);
  clearTimeout(timer);
}

function headersOf(pairs: string): Record<string, string> {
  const entries = pairs.split(",").map((pair) => {
    const equals = pair.indexOf("=");
    return [pair.slice(0, equals).trim(), decoded(pair.slice(equals + 1).trim())] as const;
  });
  return Object.fromEntries(entries.filter(([name]) => name !== ""));
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
