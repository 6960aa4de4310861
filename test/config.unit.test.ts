import { inspect } from "node:util";
import { describe, expect, it } from "vitest";
import { ConfigError } from "#src/config/problem.ts";
import { type Config, readConfig } from "#src/config.ts";
import { deployment } from "./config-support.ts";

function problemsOf(env: Record<string, string>): ConfigError {
  try {
    readConfig(env);
  } catch (error) {
    if (error instanceof ConfigError) return error;
    throw error;
  }
  throw new Error("the configuration was accepted");
}

const variablesOf = (env: Record<string, string>) => problemsOf(env).problems.map(({ variable }) => variable);

describe("presets", () => {
  it("an empty environment is development on this machine, with local services", () => {
    const config = readConfig({});
    expect(config.environment).toBe("development");
    expect(config.grpc).toMatchObject({ host: "127.0.0.1", port: 50051, tls: undefined, maxReceiveBytes: 4_194_304 });
    expect(config.http).toMatchObject({ host: "127.0.0.1", port: 8080, tls: undefined });
    expect([config.postgres.url, config.nats.url, config.redis.url]).toEqual([undefined, undefined, undefined]);
    expect(config.roles).toEqual(["api", "stream", "worker", "scheduler"]);
    expect(config.encryption.key).toHaveLength(32);
  });

  it.each([
    ["development", 10, 100, 500, 5, 300_000],
    ["staging", 15, 150, 750, 8, 300_000],
    ["production", 20, 200, 1_000, 10, 600_000],
  ])(
    "limits of a user in %s are those of FEATURES L1",
    (environment, perMinute, perHour, perDay, burst, maxBackoffMs) => {
      const { notificationLimits } = readConfig(deployment({ POSTHORN_ENV: environment }));
      expect(notificationLimits).toMatchObject({
        perUser: { perMinute, perHour, perDay, burst },
        backoffMultiplier: 2,
        maxBackoffMs,
      });
    },
  );

  it("each limit has its policy for a Redis that is away, and one name sets all that are not set by themselves", () => {
    const policies = (env: Record<string, string>) => readConfig(env).notificationLimits.onRedisDown;
    expect(policies({})).toEqual({ user: "open-local", tenant: "open-local", global: "open-local" });
    expect(
      policies({ POSTHORN_LIMITS_ON_REDIS_DOWN: "closed", POSTHORN_LIMITS_ON_REDIS_DOWN_TENANT: "open-local" }),
    ).toEqual({ user: "closed", tenant: "open-local", global: "closed" });
    expect(() => readConfig({ POSTHORN_LIMITS_ON_REDIS_DOWN_GLOBAL: "open" })).toThrow(
      "POSTHORN_LIMITS_ON_REDIS_DOWN_GLOBAL",
    );
  });

  it("POSTHORN_ENV goes before NODE_ENV, and NODE_ENV=test is development", () => {
    expect(readConfig(deployment({ POSTHORN_ENV: "staging", NODE_ENV: "production" })).environment).toBe("staging");
    expect(readConfig(deployment({ POSTHORN_ENV: "", NODE_ENV: "production" })).environment).toBe("production");
    expect(readConfig({ NODE_ENV: "test" }).environment).toBe("development");
  });
});

describe("names of the source documents", () => {
  it.each<[Record<string, string>, (config: Config) => unknown, unknown]>([
    [{ DB_CONNECTION: "postgres://db/a" }, (c) => c.postgres.url, "postgres://db/a"],
    [{ DATABASE_URL: "postgres://db/a" }, (c) => c.postgres.url, "postgres://db/a"],
    [{ REDIS_URL: "redis://cache:1/" }, (c) => c.redis.url, "redis://cache:1/"],
    [{ REDIS_HOST: "cache" }, (c) => c.redis.url, "redis://cache:6379"],
    [{ REDIS_HOST: "::1", REDIS_PORT: "7" }, (c) => c.redis.url, "redis://[::1]:7"],
    [{ REDIS_HOST: "c", REDIS_PORT: "7", REDIS_PASSWORD: "p@/:%" }, (c) => c.redis.url, "redis://:p%40%2F%3A%25@c:7"],
    [{ REDIS_URL: "redis://cache:7", REDIS_PASSWORD: "pw" }, (c) => c.redis.url, "redis://:pw@cache:7"],
    [{ REDIS_URL: "redis://:own@cache:7", REDIS_PASSWORD: "pw" }, (c) => c.redis.url, "redis://:own@cache:7"],
    [{ NOTIFICATION_MAX_PER_MINUTE: "11" }, (c) => c.notificationLimits.perUser.perMinute, 11],
    [{ NOTIFICATION_MAX_PER_HOUR: "101" }, (c) => c.notificationLimits.perUser.perHour, 101],
    [{ NOTIFICATION_MAX_PER_DAY: "501" }, (c) => c.notificationLimits.perUser.perDay, 501],
    [{ NOTIFICATION_BURST_LIMIT: "6" }, (c) => c.notificationLimits.perUser.burst, 6],
    [{ NOTIFICATION_METRICS_ENABLED: "false" }, (c) => c.telemetry.metricsEnabled, false],
    [{ NOTIFICATION_ENCRYPTION_KEY: "ab".repeat(32) }, (c) => c.encryption.key, new Uint8Array(32).fill(0xab)],
    [{ JWT_SECRET: "j".repeat(32) }, (c) => c.auth.jwtSecret, "j".repeat(32)],
    [{ FRONTEND_URL: "https://app.example.com/" }, (c) => c.http.corsOrigins, ["https://app.example.com"]],
    [{ WEBSOCKET_PORT: "3001" }, (c) => c.http.port, 3001],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: "http://c:4318" }, (c) => c.telemetry.otlpEndpoint, "http://c:4318"],
  ])("%o is honoured", (env, pick, expected) => {
    expect(pick(readConfig(env))).toEqual(expected);
  });

  it("the POSTHORN_ name goes before the alias", () => {
    const config = readConfig({ POSTHORN_USER_MAX_PER_MINUTE: "12", NOTIFICATION_MAX_PER_MINUTE: "13" });
    expect(config.notificationLimits.perUser.perMinute).toBe(12);
  });
});

describe("problems", () => {
  it("are told all at once, with what was set, what is expected and what to do", () => {
    const error = problemsOf({
      POSTHORN_GRPC_PORT: "99999",
      POSTHORN_LOG_LEVEL: "loud",
      POSTHORN_ACCEPT_GROUP_WINDOW_MS: "2ms",
      POSTHORN_USER_BURST: "11",
      POSTHORN_GRPC_TLS_CERT_FILE: "/cert.pem",
      POSTHORN_GPRC_HOST: "0.0.0.0",
    });
    expect(error.message).toMatchInlineSnapshot(`
      "The configuration has 6 problems:
        POSTHORN_GRPC_PORT: got "99999"; expected a port from 0 to 65535.
          Correct it, or unset it for the default of development, "50051".
        POSTHORN_ACCEPT_GROUP_WINDOW_MS: got "2ms"; expected milliseconds from 0 to 100, digits only.
          Correct it, or unset it for the default of development, "10".
        POSTHORN_LOG_LEVEL: got "loud"; expected one of trace, debug, info, warn, error, fatal, silent.
          Correct it, or unset it for the default of development, "info".
        POSTHORN_GPRC_HOST: got a name nothing reads; expected POSTHORN_GRPC_HOST.
          Rename it to POSTHORN_GRPC_HOST, or unset it.
        POSTHORN_GRPC_TLS_CERT_FILE and POSTHORN_GRPC_TLS_KEY_FILE: got one without the other; expected both or neither.
          Set both, or unset both.
        POSTHORN_USER_BURST and POSTHORN_USER_MAX_PER_MINUTE: got the first above the second; expected POSTHORN_USER_BURST to be at most POSTHORN_USER_MAX_PER_MINUTE.
          Lower POSTHORN_USER_BURST or raise POSTHORN_USER_MAX_PER_MINUTE."
    `);
  });

  it("an alias that was set is named by that name", () => {
    expect(variablesOf({ REDIS_PORT: "x" })).toEqual(["REDIS_PORT"]);
  });

  it.each(["staging", "production"])("%s needs its servers and its secrets", (environment) => {
    expect(variablesOf({ POSTHORN_ENV: environment })).toEqual([
      "POSTHORN_DATABASE_URL",
      "POSTHORN_NATS_URL",
      "POSTHORN_OPERATOR_KEYS",
      "POSTHORN_ENCRYPTION_KEY",
      "POSTHORN_REDIS_URL and POSTHORN_REDIS_HOST",
    ]);
  });

  it("what people are sent is not written into a folder outside development", () => {
    expect(variablesOf(deployment({ POSTHORN_DEV_SINK: "/tmp/sink" }))).toEqual(["POSTHORN_DEV_SINK"]);
    expect(readConfig({ POSTHORN_DEV_SINK: "/tmp/sink" }).channels.devSink).toBe("/tmp/sink");
  });

  it("secrets that everybody knows are refused outside development", () => {
    const development = readConfig({});
    const env = {
      POSTHORN_ENCRYPTION_KEY: Buffer.from(development.encryption.key).toString("base64"),
      POSTHORN_OPERATOR_KEYS: development.auth.operatorKeys.join(","),
      JWT_SECRET: "change-me-change-me-change-me-12345",
      REDIS_PASSWORD: "your_redis_password",
      POSTHORN_DATABASE_URL: "postgres://u:changeme@db/x",
      POSTHORN_HTTP_CORS_ORIGINS: "*",
    };
    expect(variablesOf(deployment(env))).toEqual([
      "POSTHORN_ENCRYPTION_KEY",
      "POSTHORN_OPERATOR_KEYS",
      "POSTHORN_JWT_SECRET",
      "POSTHORN_DATABASE_URL",
      "POSTHORN_REDIS_PASSWORD and POSTHORN_REDIS_URL",
      "POSTHORN_HTTP_CORS_ORIGINS",
    ]);
    expect(() => readConfig(env)).not.toThrow();
  });

  it.each<[Record<string, string>, string]>([
    [{ POSTHORN_GRPC_TLS_CLIENT_CA_FILE: "/ca" }, "POSTHORN_GRPC_TLS_CLIENT_CA_FILE and POSTHORN_GRPC_TLS_CERT_FILE"],
    [{ POSTHORN_HTTP_PORT: "50051" }, "POSTHORN_HTTP_PORT and POSTHORN_GRPC_PORT"],
    [{ POSTHORN_NATS_USER: "u" }, "POSTHORN_NATS_USER and POSTHORN_NATS_PASSWORD"],
    [{ POSTHORN_SHUTDOWN_DRAIN_MS: "1000" }, "POSTHORN_STREAM_DRAIN_MS and POSTHORN_SHUTDOWN_DRAIN_MS"],
    [{ POSTHORN_ACCEPT_IDEMPOTENCY_TTL_HOURS: "23" }, "POSTHORN_ACCEPT_IDEMPOTENCY_TTL_HOURS"],
    [{ POSTHORN_AUTH_CACHE_TTL_MS: "1001" }, "POSTHORN_AUTH_CACHE_TTL_MS"],
    [{ POSTHORN_REDIS_COMMAND_TIMEOUT_MS: "101" }, "POSTHORN_REDIS_COMMAND_TIMEOUT_MS"],
    [{ POSTHORN_OPERATOR_KEYS: "short" }, "POSTHORN_OPERATOR_KEYS"],
    [{ POSTHORN_ENCRYPTION_KEY: "00ff" }, "POSTHORN_ENCRYPTION_KEY"],
    [{ POSTHORN_ROLES: "api,api" }, "POSTHORN_ROLES"],
    [{ POSTHORN_NAMESPACE: "a.b" }, "POSTHORN_NAMESPACE"],
    [{ POSTHORN_NATS_URL: "http://nats" }, "POSTHORN_NATS_URL"],
    [{ NODE_ENV: "prod" }, "NODE_ENV"],
  ])("%o is refused", (env, variable) => {
    expect(variablesOf(env)).toEqual([variable]);
  });

  it("what Kubernetes sets for a service of the same name is not a setting", () => {
    const config = readConfig({
      REDIS_PORT: "tcp://10.0.0.1:6379",
      POSTHORN_GRPC_PORT: "tcp://10.0.0.2:50051",
      POSTHORN_SERVICE_HOST: "10.0.0.3",
      POSTHORN_PORT_8080_TCP_ADDR: "10.0.0.3",
    });
    expect(config.grpc.port).toBe(50051);
  });

  it("empty is unset, and blanks around a value are not part of it", () => {
    expect(readConfig({ POSTHORN_GRPC_PORT: "" }).grpc.port).toBe(50051);
    expect(readConfig({ POSTHORN_GRPC_PORT: " 5\n" }).grpc.port).toBe(5);
  });
});

it("TLS is one value that is there or not", () => {
  const files = { POSTHORN_GRPC_TLS_CERT_FILE: "/c", POSTHORN_GRPC_TLS_KEY_FILE: "/k" };
  expect(readConfig(files).grpc.tls).toEqual({ certFile: "/c", keyFile: "/k", clientCaFile: undefined });
  expect(readConfig({ ...files, POSTHORN_GRPC_TLS_CLIENT_CA_FILE: "/a" }).grpc.tls?.clientCaFile).toBe("/a");
});

it("a configuration cannot be changed, at any depth", () => {
  const config = readConfig({});
  expect(() => Object.assign(config.notificationLimits.perUser, { perMinute: 1 })).toThrow(TypeError);
  expect(inspect(config.grpc)).toContain("50051");
});
