/** Settings of the two ports, and of who may call. grpc-js and node:http2 have no safe defaults for most. */

import { host, integer, list, milliseconds, origin, path, port, sharedSecret } from "./kinds.ts";
import { option, optional, required } from "./option.ts";

const mebibyte = 2 ** 20;
const bytes = (max: number) => ({ ...integer(1_024, max), expected: `bytes from 1024 to ${max}, digits only` });
const listenHost = { development: "127.0.0.1", staging: "0.0.0.0", production: "0.0.0.0" };

/** Written here for all to read, therefore refused outside development. */
export const developmentOperatorKey = "posthorn-development-operator-key";

export const grpc = {
  host: option("POSTHORN_GRPC_HOST", host, {
    default: listenHost,
    doc: "Address the gRPC port listens on. This machine only in development, because its keys are public.",
  }),
  port: option("POSTHORN_GRPC_PORT", port, { default: 50051, doc: "gRPC port for services. 0: any free one." }),
  tls: {
    certFile: optional("POSTHORN_GRPC_TLS_CERT_FILE", path, { doc: "PEM certificate chain; turns TLS on." }),
    keyFile: optional("POSTHORN_GRPC_TLS_KEY_FILE", path, { doc: "PEM key of the certificate." }),
    clientCaFile: optional("POSTHORN_GRPC_TLS_CLIENT_CA_FILE", path, {
      doc: "Authority of client certificates; turns mutual TLS on: callers without one are refused.",
    }),
  },
  maxReceiveBytes: option("POSTHORN_GRPC_MAX_RECEIVE_BYTES", bytes(64 * mebibyte), {
    default: 4 * mebibyte,
    doc: "Largest request message, after decompression.",
  }),
  maxSendBytes: option("POSTHORN_GRPC_MAX_SEND_BYTES", bytes(64 * mebibyte), {
    default: 4 * mebibyte,
    doc: "Largest response message; stock clients refuse more than 4 MiB.",
  }),
  maxConcurrentStreams: option("POSTHORN_GRPC_MAX_CONCURRENT_STREAMS", integer(1, 100_000), {
    default: 1_000,
    doc: "Calls and streams open on one connection; a caller that needs more opens another.",
  }),
  maxConnectionsPerAddress: option("POSTHORN_GRPC_MAX_CONNECTIONS_PER_ADDRESS", integer(1, 1_000_000), {
    default: 10_000,
    doc: "Connections open at once from one address (IPv6: its /64). Wide, because a proxy is one address too.",
  }),
  helloTimeoutMs: option("POSTHORN_GRPC_HELLO_TIMEOUT_MS", milliseconds(100, 300_000), {
    default: 10_000,
    doc: "Time a new connection has for its TLS handshake and HTTP/2's preface; silence is taken for an attack.",
  }),
  requestTimeoutMs: option("POSTHORN_GRPC_REQUEST_TIMEOUT_MS", milliseconds(100, 600_000), {
    default: 30_000,
    doc: "Time a caller has to send a message it has begun, and to take an answer. Both are memory meanwhile.",
  }),
  keepaliveTimeMs: option("POSTHORN_GRPC_KEEPALIVE_TIME_MS", milliseconds(1_000), {
    default: 60_000,
    doc: "Pings a silent connection this often, to find the dead ones.",
  }),
  keepaliveTimeoutMs: option("POSTHORN_GRPC_KEEPALIVE_TIMEOUT_MS", milliseconds(1_000), {
    default: 20_000,
    doc: "A ping unanswered for this long closes the connection.",
  }),
  maxConnectionIdleMs: option("POSTHORN_GRPC_MAX_CONNECTION_IDLE_MS", milliseconds(1_000), {
    default: 300_000,
    doc: "Closes a connection without any call for this long.",
  }),
  maxConnectionAgeMs: option("POSTHORN_GRPC_MAX_CONNECTION_AGE_MS", milliseconds(1_000), {
    default: 1_800_000,
    doc: "Connections are asked to reconnect at this age, so that load reaches new processes.",
  }),
  maxConnectionAgeGraceMs: option("POSTHORN_GRPC_MAX_CONNECTION_AGE_GRACE_MS", milliseconds(1_000), {
    default: 3_600_000,
    doc: "Time open streams then have left; as long as a stream may live, so that none is cut.",
  }),
};

export const http = {
  host: option("POSTHORN_HTTP_HOST", host, { default: listenHost, doc: "Address the HTTP port listens on." }),
  port: option("POSTHORN_HTTP_PORT", port, {
    aliases: ["WEBSOCKET_PORT"],
    default: 8080,
    doc: "Port of Connect, gRPC-Web, health, readiness and metrics. 0: any free one.",
  }),
  tls: {
    certFile: optional("POSTHORN_HTTP_TLS_CERT_FILE", path, { doc: "PEM certificate chain; turns TLS on." }),
    keyFile: optional("POSTHORN_HTTP_TLS_KEY_FILE", path, { doc: "PEM key of the certificate." }),
  },
  corsOrigins: option("POSTHORN_HTTP_CORS_ORIGINS", list(origin), {
    aliases: ["FRONTEND_URL"],
    default: { development: ["http://localhost:3000", "http://localhost:5173"], staging: [], production: [] },
    doc: "Origins whose pages may call. The defaults are where Next.js and Vite serve; deployed, none until named.",
  }),
  maxReceiveBytes: option("POSTHORN_HTTP_MAX_RECEIVE_BYTES", bytes(64 * mebibyte), {
    default: 4 * mebibyte,
    doc: "Largest request message, after decompression.",
  }),
  maxTimeoutMs: option("POSTHORN_HTTP_MAX_TIMEOUT_MS", milliseconds(1_000), {
    default: 7_200_000,
    doc: "Longest time-out a caller may ask for, streams included.",
  }),
  maxConnectionsPerAddress: option("POSTHORN_HTTP_MAX_CONNECTIONS_PER_ADDRESS", integer(1, 1_000_000), {
    default: 10_000,
    doc: "Connections open at once from one address (IPv6: its /64). Wide, because a proxy is one address too.",
  }),
  headersTimeoutMs: option("POSTHORN_HTTP_HEADERS_TIMEOUT_MS", milliseconds(100, 300_000), {
    default: 10_000,
    doc: "Time a client has for its TLS handshake and its headers; slower is taken for an attack.",
  }),
  requestTimeoutMs: option("POSTHORN_HTTP_REQUEST_TIMEOUT_MS", milliseconds(100, 600_000), {
    default: 30_000,
    doc: "Time a client has to send a whole request.",
  }),
  sessionIdleMs: option("POSTHORN_HTTP_SESSION_IDLE_MS", milliseconds(1_000), {
    default: 300_000,
    doc: "Closes an HTTP/2 session on which nothing moved for this long; streams move with every heartbeat.",
  }),
  maxConcurrentStreams: option("POSTHORN_HTTP_MAX_CONCURRENT_STREAMS", integer(1, 10_000), {
    default: 128,
    doc: "Calls and streams open on one HTTP/2 session; a stalled one holds about 350 KiB.",
  }),
};

export const deadlines = {
  defaultUnaryMs: option("POSTHORN_DEADLINE_DEFAULT_MS", milliseconds(100, 600_000), {
    default: 30_000,
    doc: "Deadline of a unary call whose caller set none.",
  }),
  maxUnaryMs: option("POSTHORN_DEADLINE_MAX_MS", milliseconds(100, 600_000), {
    default: 60_000,
    doc: "Longest deadline of a unary call; a longer one is shortened to it.",
  }),
};

export const auth = {
  operatorKeys: option("POSTHORN_OPERATOR_KEYS", list(sharedSecret), {
    aliases: ["POSTHORN_OPERATOR_KEY"],
    default: { development: [developmentOperatorKey], staging: required, production: required },
    secrecy: "secret",
    doc: "Keys that may create tenants. Several, so that one can be replaced while the other still works.",
  }),
  jwtSecret: optional("POSTHORN_JWT_SECRET", sharedSecret, {
    aliases: ["JWT_SECRET"],
    secrecy: "secret",
    doc: "HS256 secret accepted for user tokens of every tenant. Unset: only the issuers a tenant has registered.",
  }),
  cacheTtlMs: option("POSTHORN_AUTH_CACHE_TTL_MS", milliseconds(0, 1_000), {
    default: 1_000,
    doc: "How long a checked API key is believed; at most 1 s, so that a revoked key stops within it.",
  }),
  clockSkewSeconds: option("POSTHORN_AUTH_CLOCK_SKEW_SECONDS", integer(0, 300), {
    default: 30,
    doc: "Tolerance for the clocks of token issuers.",
  }),
};
