/** Settings of the process itself: what it is, what it does, what it keeps secret and what it tells. */

import { choice, decimal, flag, integer, key256, list, milliseconds, text, url } from "./kinds.ts";
import { type Environment, environments, type Kind, option, optional, required } from "./option.ts";

export const roles = ["api", "stream", "worker", "scheduler"] as const;
export type Role = (typeof roles)[number];

/** NODE_ENV=test is what test runners set; for Posthorn that is development. */
const environmentName: Kind<Environment> = {
  ...choice(...environments),
  parse: (value) => (value.toLowerCase() === "test" ? "development" : choice(...environments).parse(value)),
};

/** Written here for all to read, therefore refused outside development. */
export const developmentEncryptionKey = Uint8Array.from(Buffer.from("posthorn development key, public"));

export const environment = option("POSTHORN_ENV", environmentName, {
  aliases: ["NODE_ENV"],
  default: "development",
  doc: "Which preset the other defaults come from. Development is the default because it listens on this machine only.",
});

export const processRoles = option("POSTHORN_ROLES", list(choice(...roles)), {
  default: roles,
  doc: "What this process does. All in one process until load asks for more.",
});

const name = text("a lower-case letter, then up to 31 of a-z, 0-9, _ and -", "posthorn", /^[a-z][a-z0-9_-]{0,31}$/);

export const namespace = option("POSTHORN_NAMESPACE", name, {
  default: "posthorn",
  doc: "Prefix of every NATS stream, subject and Redis key, so that deployments can share servers without meeting.",
});

export const instanceId = optional(
  "POSTHORN_INSTANCE_ID",
  text("up to 253 of A-Z, a-z, 0-9, '.', '_' and '-'", "posthorn-0", /^[\w.-]{1,253}$/),
  { aliases: ["HOSTNAME"], doc: "Names this process in logs, traces and presence. Unset: chosen at start." },
);

export const encryption = {
  key: option("POSTHORN_ENCRYPTION_KEY", key256, {
    aliases: ["NOTIFICATION_ENCRYPTION_KEY"],
    default: { development: developmentEncryptionKey, staging: required, production: required },
    secrecy: "secret",
    doc: "Master key: tenants' stored secrets are encrypted, and page tokens signed, under keys derived from it.",
  }),
  previousKeys: option("POSTHORN_ENCRYPTION_PREVIOUS_KEYS", list(key256), {
    default: [],
    secrecy: "secret",
    doc: "Former master keys, newest first: still read, never written with, so that a rotation needs no downtime.",
  }),
};

export const shutdown = {
  drainMs: option("POSTHORN_SHUTDOWN_DRAIN_MS", milliseconds(0, 300_000), {
    default: 15_000,
    doc: "Longest time from SIGTERM to the end of the process; half of the 30 s Kubernetes allows before it kills. The last 5 s of it, a third at most, are for closing connections and for the end of the process itself; calls have the rest to finish.",
  }),
};

export const telemetry = {
  serviceName: option(
    "POSTHORN_SERVICE_NAME",
    text("up to 63 of A-Z, a-z, 0-9, '.', '_' and '-'", "posthorn", /^[\w.-]{1,63}$/),
    {
      aliases: ["OTEL_SERVICE_NAME"],
      default: "posthorn",
      doc: "Name of the service in logs and traces.",
    },
  ),
  logLevel: option("POSTHORN_LOG_LEVEL", choice("trace", "debug", "info", "warn", "error", "fatal", "silent"), {
    aliases: ["LOG_LEVEL"],
    default: "info",
    doc: "Least severity written. `info` is quiet per notification: those are in the timeline, not in the log.",
  }),
  logFormat: option("POSTHORN_LOG_FORMAT", choice("json", "pretty"), {
    default: { development: "pretty", staging: "json", production: "json" },
    doc: "`json` for collectors, `pretty` for people. Logs go to standard error.",
  }),
  otlpEndpoint: optional("POSTHORN_OTLP_ENDPOINT", url(["http", "https"], "http://localhost:4318"), {
    aliases: ["OTEL_EXPORTER_OTLP_ENDPOINT"],
    secrecy: "url",
    doc: "OTLP/HTTP base URL of a collector for traces and metrics (`/v1/traces` is added). Unset: nothing is sent.",
  }),
  otlpHeaders: optional(
    "POSTHORN_OTLP_HEADERS",
    text("name=value pairs separated by commas", "x-api-key=abc", /^[\w-]+=[^,]*(,\s*[\w-]+=[^,]*)*$/),
    {
      aliases: ["OTEL_EXPORTER_OTLP_HEADERS"],
      secrecy: "secret",
      doc: "Headers of what is sent there, as the OpenTelemetry specification writes them; most collectors want a key here.",
    },
  ),
  sampleRatio: option("POSTHORN_TRACE_SAMPLE_RATIO", decimal(0, 1), {
    aliases: ["OTEL_TRACES_SAMPLER_ARG"],
    default: { development: 1, staging: 0.25, production: 0.05 },
    doc: "Share of traces recorded when the caller did not decide; a trace costs more than the notification it follows.",
  }),
  otlpMetricsIntervalMs: option("POSTHORN_OTLP_METRICS_INTERVAL_MS", milliseconds(0, 3_600_000), {
    aliases: ["OTEL_METRIC_EXPORT_INTERVAL"],
    default: 15_000,
    doc: "How often metrics are sent to the OTLP endpoint, like a usual scrape; 0: not, for what takes only traces.",
  }),
  metricsEnabled: option("POSTHORN_METRICS_ENABLED", flag, {
    aliases: ["NOTIFICATION_METRICS_ENABLED"],
    default: true,
    doc: "Serves Prometheus metrics at `/metrics` on the HTTP port.",
  }),
};

export const retention = {
  days: option("POSTHORN_RETENTION_DAYS", integer(1, 3_650), {
    default: 180,
    doc: "How long notifications and their timeline are kept. Tables are monthly partitions, so it acts by whole months.",
  }),
};
