/** What settings must be true together. Each rule is asked only when every variable it is about could be read. */

import { developmentEncryptionKey } from "./deployment.ts";
import type { Settings } from "./options.ts";
import type { Problem } from "./problem.ts";
import { developmentOperatorKey } from "./transports.ts";

interface Rule {
  /** The variables it is about, the one to change first. */
  readonly variables: readonly [string, ...string[]];
  holds(settings: Settings): boolean;
  readonly expected: string;
  readonly fix: string;
  /** What is wrong, in words without values. */
  readonly got: string;
}

const deployed = ({ environment }: Settings) => environment !== "development";
const ordered = (...values: readonly number[]) => values.every((value, index) => value >= (values[index - 1] ?? value));
const bothOrNeither = (a: unknown, b: unknown) => (a === undefined) === (b === undefined);
const sameBytes = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;

/** Words that stand in examples, and secrets of too few different characters to have been made at random. */
function guessable(secret: string): boolean {
  return /change.?me|your[_-]|example|development|password|secret/i.test(secret) || new Set(secret).size < 8;
}

function passwordOf(url: string | undefined): string {
  return url !== undefined && URL.canParse(url) ? decodeLeniently(new URL(url).password) : "";
}

function decodeLeniently(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

const placeholderPasswords = ["changeme", "change_me", "password", "secret", "your_redis_password", "your_password"];
const isPlaceholder = (password: string | undefined) => placeholderPasswords.includes(password?.toLowerCase() ?? "");

const rules: readonly Rule[] = [
  {
    variables: ["POSTHORN_ENCRYPTION_KEY"],
    holds: (s) =>
      !deployed(s) || (!sameBytes(s.encryption.key, developmentEncryptionKey) && new Set(s.encryption.key).size >= 8),
    got: "a key that others know or can guess",
    expected: "32 random bytes",
    fix: "Make one with: openssl rand -base64 32",
  },
  {
    variables: ["POSTHORN_ENCRYPTION_PREVIOUS_KEYS", "POSTHORN_ENCRYPTION_KEY"],
    holds: (s) => !s.encryption.previousKeys.some((key) => sameBytes(key, s.encryption.key)),
    got: "the current key",
    expected: "former keys only",
    fix: "Put the new key into POSTHORN_ENCRYPTION_KEY and the one it replaces here.",
  },
  {
    variables: ["POSTHORN_OPERATOR_KEYS"],
    holds: (s) => !deployed(s) || !s.auth.operatorKeys.some((key) => key === developmentOperatorKey || guessable(key)),
    got: "a key that others know or can guess",
    expected: "random keys",
    fix: "Make one with: openssl rand -hex 32",
  },
  {
    variables: ["POSTHORN_JWT_SECRET"],
    holds: (s) => !deployed(s) || s.auth.jwtSecret === undefined || !guessable(s.auth.jwtSecret),
    got: "a secret that others know or can guess",
    expected: "a random secret",
    fix: "Make one with: openssl rand -hex 32",
  },
  {
    variables: ["POSTHORN_DATABASE_URL"],
    holds: (s) => !deployed(s) || !isPlaceholder(passwordOf(s.postgres.url)),
    got: "the password of an example",
    expected: "a password of its own",
    fix: "Give the database user a random password.",
  },
  {
    variables: ["POSTHORN_REDIS_PASSWORD", "POSTHORN_REDIS_URL"],
    holds: (s) => !deployed(s) || !(isPlaceholder(s.redis.password) || isPlaceholder(passwordOf(s.redis.url))),
    got: "the password of an example",
    expected: "a password of its own",
    fix: "Give Redis a random password.",
  },
  {
    variables: ["POSTHORN_REDIS_URL", "POSTHORN_REDIS_HOST"],
    holds: (s) => !deployed(s) || s.redis.url !== undefined || s.redis.host !== undefined,
    got: "neither",
    expected: "where Redis is",
    fix: "Set POSTHORN_REDIS_URL=redis://:password@redis:6379, or POSTHORN_REDIS_HOST.",
  },
  {
    variables: ["POSTHORN_NATS_CREDENTIALS_FILE", "POSTHORN_NATS_TOKEN", "POSTHORN_NATS_USER"],
    holds: ({ nats }) => [nats.credentialsFile, nats.token, nats.user].filter((way) => way !== undefined).length <= 1,
    got: "more than one way to log in",
    expected: "one of the three",
    fix: "Unset the others.",
  },
  {
    variables: ["POSTHORN_DEV_SINK"],
    holds: (s) => !deployed(s) || s.channels.devSink === undefined,
    got: "a folder that would fill with what people are sent",
    expected: "nothing outside development",
    fix: "Unset it.",
  },
  pair("POSTHORN_NATS_USER", "POSTHORN_NATS_PASSWORD", ({ nats }) => bothOrNeither(nats.user, nats.password)),
  pair("POSTHORN_NATS_TLS_CERT_FILE", "POSTHORN_NATS_TLS_KEY_FILE", ({ nats: { tls } }) =>
    bothOrNeither(tls.certFile, tls.keyFile),
  ),
  pair("POSTHORN_GRPC_TLS_CERT_FILE", "POSTHORN_GRPC_TLS_KEY_FILE", ({ grpc: { tls } }) =>
    bothOrNeither(tls.certFile, tls.keyFile),
  ),
  pair("POSTHORN_HTTP_TLS_CERT_FILE", "POSTHORN_HTTP_TLS_KEY_FILE", ({ http: { tls } }) =>
    bothOrNeither(tls.certFile, tls.keyFile),
  ),
  {
    variables: ["POSTHORN_GRPC_TLS_CLIENT_CA_FILE", "POSTHORN_GRPC_TLS_CERT_FILE"],
    holds: ({ grpc: { tls } }) => tls.clientCaFile === undefined || tls.certFile !== undefined,
    got: "a client authority without TLS",
    expected: "a server certificate as well, because callers can only be identified over TLS",
    fix: "Set POSTHORN_GRPC_TLS_CERT_FILE and POSTHORN_GRPC_TLS_KEY_FILE.",
  },
  {
    variables: ["POSTHORN_HTTP_PORT", "POSTHORN_GRPC_PORT"],
    holds: ({ grpc, http }) => http.port !== grpc.port || http.port === 0,
    got: "the same port twice",
    expected: "two ports",
    fix: "Change one of them.",
  },
  {
    variables: ["POSTHORN_HTTP_CORS_ORIGINS"],
    holds: (s) => !deployed(s) || !s.http.corsOrigins.includes("*"),
    got: '"*"',
    expected: "the origins of your own pages",
    fix: "List them: https://app.example.com,https://admin.example.com",
  },
  atMost("POSTHORN_DATABASE_LOCK_TIMEOUT_MS", "POSTHORN_DATABASE_STATEMENT_TIMEOUT_MS", ({ postgres }) =>
    ordered(postgres.lockTimeoutMs, postgres.statementTimeoutMs),
  ),
  atMost("POSTHORN_HTTP_HEADERS_TIMEOUT_MS", "POSTHORN_HTTP_REQUEST_TIMEOUT_MS", ({ http }) =>
    ordered(http.headersTimeoutMs, http.requestTimeoutMs),
  ),
  atMost("POSTHORN_DEADLINE_DEFAULT_MS", "POSTHORN_DEADLINE_MAX_MS", ({ deadlines }) =>
    ordered(deadlines.defaultUnaryMs, deadlines.maxUnaryMs),
  ),
  atMost("POSTHORN_DEADLINE_MAX_MS", "POSTHORN_HTTP_MAX_TIMEOUT_MS", ({ deadlines, http }) =>
    ordered(deadlines.maxUnaryMs, http.maxTimeoutMs),
  ),
  atMost("POSTHORN_STREAM_MAX_AGE_MS", "POSTHORN_HTTP_MAX_TIMEOUT_MS", ({ stream, http }) =>
    ordered(stream.maxAgeMs, http.maxTimeoutMs),
  ),
  atMost("POSTHORN_STREAM_MAX_AGE_MS", "POSTHORN_GRPC_MAX_CONNECTION_AGE_GRACE_MS", ({ stream, grpc }) =>
    ordered(stream.maxAgeMs, grpc.maxConnectionAgeGraceMs),
  ),
  atMost("POSTHORN_STREAM_HEARTBEAT_MS", "POSTHORN_STREAM_MAX_AGE_MS", ({ stream }) =>
    ordered(stream.heartbeatMs, stream.maxAgeMs),
  ),
  atMost("POSTHORN_STREAM_DRAIN_MS", "POSTHORN_SHUTDOWN_DRAIN_MS", ({ stream, shutdown }) =>
    ordered(stream.drainMs, shutdown.drainMs),
  ),
  atMost("POSTHORN_USER_BURST", "POSTHORN_USER_MAX_PER_MINUTE", ({ notificationLimits: { perUser } }) =>
    ordered(perUser.burst, perUser.perMinute),
  ),
  atMost("POSTHORN_USER_MAX_PER_MINUTE", "POSTHORN_USER_MAX_PER_HOUR", ({ notificationLimits: { perUser } }) =>
    ordered(perUser.perMinute, perUser.perHour),
  ),
  atMost("POSTHORN_USER_MAX_PER_HOUR", "POSTHORN_USER_MAX_PER_DAY", ({ notificationLimits: { perUser } }) =>
    ordered(perUser.perHour, perUser.perDay),
  ),
  atMost("POSTHORN_ROUTE_CHUNK_MIN_ITEMS", "POSTHORN_ROUTE_CHUNK_MAX_ITEMS", ({ route }) =>
    ordered(route.chunkMinItems, route.chunkMaxItems),
  ),
  atMost("POSTHORN_SCHEDULE_BATCH_MIN_SIZE", "POSTHORN_SCHEDULE_BATCH_SIZE", ({ schedule }) =>
    ordered(schedule.batchMinSize, schedule.batchSize),
  ),
  atMost("POSTHORN_INBOX_PERSIST_DAYS", "POSTHORN_RETENTION_DAYS", ({ inbox, retention }) =>
    ordered(inbox.persistDays, retention.days),
  ),
  {
    variables: ["POSTHORN_RETENTION_DAYS", "POSTHORN_ACCEPT_IDEMPOTENCY_TTL_HOURS"],
    holds: ({ retention, accept }) => retention.days * 24 >= accept.idempotencyTtlHours,
    got: "notifications dropped before their idempotency keys",
    expected: "a retention of at least the idempotency time",
    fix: "Raise POSTHORN_RETENTION_DAYS.",
  },
];

/** The rules that do not hold. `failed` are the variables that could not be read. */
export function brokenRules(settings: Settings, failed: ReadonlySet<string>): Problem[] {
  return rules
    .filter((rule) => !rule.variables.some((variable) => failed.has(variable)) && !rule.holds(settings))
    .map(({ variables, got, expected, fix }) => ({ variable: variables.join(" and "), got, expected, fix }));
}

function pair(a: string, b: string, holds: Rule["holds"]): Rule {
  return {
    variables: [a, b],
    holds,
    got: "one without the other",
    expected: "both or neither",
    fix: "Set both, or unset both.",
  };
}

function atMost(low: string, high: string, holds: Rule["holds"]): Rule {
  const expected = `${low} to be at most ${high}`;
  return {
    variables: [low, high],
    holds,
    got: "the first above the second",
    expected,
    fix: `Lower ${low} or raise ${high}.`,
  };
}
