/** Settings of the servers Posthorn stands on. In development a missing URL means the local runner starts one. */

import { flag, integer, list, milliseconds, path, port, remoteHost, text, url } from "./kinds.ts";
import { type Kind, option, optional } from "./option.ts";

const deployed = ["staging", "production"] as const;
const credential = text("printable characters", "", /^[\x20-\x7e]{1,512}$/);

export const postgres = {
  url: optional("POSTHORN_DATABASE_URL", url(["postgres", "postgresql"], "postgres://posthorn:…@db:5432/posthorn"), {
    aliases: ["DATABASE_URL", "DB_CONNECTION"],
    requiredIn: deployed,
    secrecy: "url",
    doc: "Postgres 15 or newer: the record of everything accepted. Unset in development: a local one is started.",
  }),
  hotPoolSize: option("POSTHORN_DATABASE_HOT_POOL_SIZE", integer(1, 200), {
    default: 6,
    doc: "Connections for accept, route and status. Their statements are batches, so a few saturate Postgres: a tenant in one lane takes four, the rest are for others beside it.",
  }),
  poolSize: option("POSTHORN_DATABASE_POOL_SIZE", integer(1, 200), {
    default: 8,
    doc: "Connections for everything else, kept apart so that a slow listing never delays a send.",
  }),
  statementTimeoutMs: option("POSTHORN_DATABASE_STATEMENT_TIMEOUT_MS", milliseconds(100, 600_000), {
    default: 10_000,
    doc: "Postgres cancels a statement after this; the driver itself has no time-out.",
  }),
  lockTimeoutMs: option("POSTHORN_DATABASE_LOCK_TIMEOUT_MS", milliseconds(10, 600_000), {
    default: 2_000,
    doc: "Longest wait for a row lock; shorter than the statement, so that the error says what was waited for.",
  }),
  prepare: option("POSTHORN_DATABASE_PREPARE", flag, {
    default: true,
    doc: "Prepared statements. `false` behind PgBouncer in transaction mode.",
  }),
};

const servers = list(url(["nats", "tls"], "nats://nats:4222"));
const natsServers: Kind<string> = {
  ...servers,
  parse: (value) => servers.parse(value)?.join(","),
  show: (value) => value,
};

export const nats = {
  url: optional("POSTHORN_NATS_URL", natsServers, {
    aliases: ["NATS_URL"],
    requiredIn: deployed,
    secrecy: "url",
    doc: "NATS 2.9.10 or newer with JetStream; several servers of one cluster separated by commas. Unset in development: a local one is started.",
  }),
  replicas: option("POSTHORN_NATS_REPLICAS", integer(1, 5), {
    default: 1,
    doc: "Copies of each stream. One loses nothing (Postgres is the record); three keep running through the loss of a node.",
  }),
  credentialsFile: optional("POSTHORN_NATS_CREDENTIALS_FILE", path, {
    doc: "A `.creds` file (JWT and nkey), the way to log in to an operator-mode cluster.",
  }),
  token: optional("POSTHORN_NATS_TOKEN", credential, { secrecy: "secret", doc: "Token log-in." }),
  user: optional("POSTHORN_NATS_USER", credential, { doc: "Log-in by name, with the password." }),
  password: optional("POSTHORN_NATS_PASSWORD", credential, { secrecy: "secret", doc: "Password of the user." }),
  tls: {
    caFile: optional("POSTHORN_NATS_TLS_CA_FILE", path, {
      doc: "Certificate authority of the servers. Unset: the system's, when the server asks for TLS.",
    }),
    certFile: optional("POSTHORN_NATS_TLS_CERT_FILE", path, { doc: "Client certificate, for mutual TLS." }),
    keyFile: optional("POSTHORN_NATS_TLS_KEY_FILE", path, { doc: "Key of the client certificate." }),
  },
};

export const redis = {
  url: optional("POSTHORN_REDIS_URL", url(["redis", "rediss"], "redis://:…@redis:6379"), {
    aliases: ["REDIS_URL"],
    secrecy: "url",
    doc: "Redis 7 or newer: limits and cache. Unset: made of the host, port and password; without those, a local one is started in development.",
  }),
  host: optional("POSTHORN_REDIS_HOST", remoteHost, {
    aliases: ["REDIS_HOST"],
    doc: "Used when no URL is set.",
  }),
  port: option("POSTHORN_REDIS_PORT", port, {
    aliases: ["REDIS_PORT"],
    default: 6379,
    doc: "Used when no URL is set.",
  }),
  password: optional("POSTHORN_REDIS_PASSWORD", credential, {
    aliases: ["REDIS_PASSWORD"],
    secrecy: "secret",
    doc: "Used when the URL has none, so that it can come from a secret store of its own.",
  }),
  commandTimeoutMs: option("POSTHORN_REDIS_COMMAND_TIMEOUT_MS", milliseconds(10, 100), {
    default: 100,
    doc: "Redis counts as down after this. At most 100: nothing waits longer for a limiter.",
  }),
};
