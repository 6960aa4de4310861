import { type Client, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { afterAll, onTestFinished } from "vitest";
import { AdminService } from "#gen/posthorn/v1/admin_service_pb.ts";
import { AnalyticsService } from "#gen/posthorn/v1/analytics_service_pb.ts";
import { BatchService } from "#gen/posthorn/v1/batch_service_pb.ts";
import { InboxService } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { PreferencesService } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { ScheduleService } from "#gen/posthorn/v1/schedule_service_pb.ts";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { StreamService } from "#gen/posthorn/v1/stream_service_pb.ts";
import { TopicService } from "#gen/posthorn/v1/topic_service_pb.ts";
import { TypeService } from "#gen/posthorn/v1/type_service_pb.ts";
import { UserService } from "#gen/posthorn/v1/user_service_pb.ts";
import type { Between } from "#src/between.ts";
import type { Clock } from "#src/clock.ts";
import { readConfig } from "#src/config.ts";
import { type Platform, startPlatform } from "#src/main.ts";
import { createLogger, type Logger } from "#src/telemetry/logger.ts";
import { freshServices, type TestServices } from "./services.ts";
import { withoutCap } from "./without-cap.ts";

/** A client of every service, all with one credential, over stock gRPC. */
export type Clients = {
  send: Client<typeof SendService>;
  schedules: Client<typeof ScheduleService>;
  inbox: Client<typeof InboxService>;
  stream: Client<typeof StreamService>;
  preferences: Client<typeof PreferencesService>;
  users: Client<typeof UserService>;
  topics: Client<typeof TopicService>;
  types: Client<typeof TypeService>;
  batches: Client<typeof BatchService>;
  analytics: Client<typeof AnalyticsService>;
  admin: Client<typeof AdminService>;
};

/** A tenant with the secret of a key that may do everything in it. Known to every node on the same services. */
export type TestTenant = { tenantId: string; apiKey: string };

export type TestPlatform = AsyncDisposable & {
  readonly platform: Platform;
  readonly services: TestServices;
  /** Who `key` belongs to. */
  readonly tenant: TestTenant;
  /** Clients with the tenant's key. */
  readonly key: Clients;
  newTenant(): Promise<TestTenant>;
  /** Clients with any credential; `tenantId` is for the operator's. */
  clients(credential: string, tenantId?: string): Clients;
  /** Clients with a token of a user, of `tenant` unless another is given. */
  clientsFor(userId: string, tenant?: TestTenant): Promise<Clients>;
  /** A client of one's own on a connection of its own, which `cut` breaks. */
  connection(credential: string): Clients & { cut(): void };
};

export type TestPlatformOptions = {
  /** Settings over those of the tests. */
  env?: Record<string, string>;
  roles?: readonly ("api" | "stream" | "worker" | "scheduler")[];
  /** Redis's too, unless `between` says otherwise. */
  clock?: Clock;
  /** Stands between the node and the parts it works with. */
  between?: Between;
  /** Where its log goes; default: standard error, and silent unless POSTHORN_TEST_LOG names a level. */
  log?: Logger;
  /** Share them to have several nodes; default: of its own, removed with it. */
  services?: TestServices;
  /** Belong to this tenant; default: a new one. */
  tenant?: TestTenant;
  /** Leave its tenants the hourly cap, which users have by default. */
  hourlyCap?: boolean;
};

export const OPERATOR_KEY = "operator-key-of-the-tests-0123456789";

/** Longer than may be set: on a busy machine Redis would count as down now and then, and each process limit by itself. */
const REDIS_PATIENCE_MS = 10_000;

/** Everything quick and nothing limited, so that a test is about what it is about. */
const SETTINGS = {
  POSTHORN_GRPC_PORT: "0",
  POSTHORN_HTTP_PORT: "0",
  POSTHORN_LOG_LEVEL: "silent",
  POSTHORN_LOG_FORMAT: "json",
  POSTHORN_OPERATOR_KEYS: OPERATOR_KEY,
  POSTHORN_API_KEY_REQUESTS_PER_SECOND: "0",
  POSTHORN_API_TENANT_REQUESTS_PER_SECOND: "0",
  POSTHORN_USER_MAX_PER_MINUTE: "1000000",
  POSTHORN_USER_MAX_PER_HOUR: "1000000",
  POSTHORN_USER_MAX_PER_DAY: "1000000",
  POSTHORN_USER_BURST: "1000000",
  POSTHORN_SMS_MAX_PER_DAY: "0",
  POSTHORN_SCHEDULE_TICK_MS: "50",
  POSTHORN_STREAM_DRAIN_MS: "200",
  POSTHORN_SHUTDOWN_DRAIN_MS: "2000",
  POSTHORN_DATABASE_STATEMENT_TIMEOUT_MS: "20000",
  POSTHORN_DATABASE_LOCK_TIMEOUT_MS: "10000",
};

/**
 * A process of Posthorn on real servers, with stock clients. Several on the same services are several nodes:
 *
 *     const services = await testServices();
 *     await using a = await startTestPlatform({ services });
 *     await using b = await startTestPlatform({ services, tenant: a.tenant });
 */
export async function startTestPlatform(options: TestPlatformOptions = {}): Promise<TestPlatform> {
  await using stack = new AsyncDisposableStack();
  const services = options.services ?? stack.use(await freshServices());
  const { POSTHORN_TEST_LOG: logLevel } = process.env;
  const config = readConfig({
    ...SETTINGS,
    POSTHORN_DATABASE_URL: services.databaseUrl,
    POSTHORN_NATS_URL: services.natsUrl,
    POSTHORN_REDIS_URL: services.redisUrl,
    POSTHORN_NAMESPACE: services.namespace,
    ...(options.roles === undefined ? {} : { POSTHORN_ROLES: options.roles.join(",") }),
    ...(logLevel === undefined ? {} : { POSTHORN_LOG_LEVEL: logLevel }),
    ...options.env,
  });
  const log = options.log ?? createLogger({ ...config.telemetry });
  const redis = { ...config.redis, commandTimeoutMs: REDIS_PATIENCE_MS };
  const platform = stack.use(
    await startPlatform(
      { ...config, redis },
      {
        log,
        ...(options.clock === undefined ? {} : { clock: options.clock }),
        between: { ...(options.clock === undefined ? {} : { redisClock: options.clock }), ...options.between },
      },
    ),
  );
  const baseUrl = `http://${platform.grpcUrl}`;
  const sessions: Http2SessionManager[] = [];
  const connect = () => {
    const session = new Http2SessionManager(baseUrl);
    sessions.push(session);
    return session;
  };
  stack.defer(() => {
    for (const session of sessions) session.abort();
  });
  const newTenant = async (name: string) => {
    const made = await platform.bootstrap(name);
    return options.hourlyCap ? made : withoutCap(services.databaseUrl, made);
  };
  const tenant = options.tenant ?? (await newTenant("Tests"));
  const shared = connect();
  const clients = (credential: string, tenantId?: string) => clientsOver(baseUrl, shared, credential, tenantId);
  const key = clients(tenant.apiKey);
  const owned = stack.move();
  return {
    platform,
    services,
    tenant,
    key,
    newTenant: () => newTenant("Another"),
    clients,
    async clientsFor(userId, of = tenant) {
      const { token } = await clients(of.apiKey).admin.createUserToken({ userId });
      return clients(token);
    },
    connection(credential) {
      const own = connect();
      return { ...clientsOver(baseUrl, own, credential), cut: () => own.abort() };
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** A node that ends with the test file; call it at the top. */
export async function platformOfFile(options?: TestPlatformOptions): Promise<TestPlatform> {
  const started = await startTestPlatform(options);
  afterAll(() => started[Symbol.asyncDispose]());
  return started;
}

/** A node that ends with the test. */
export async function platformOfTest(options?: TestPlatformOptions): Promise<TestPlatform> {
  const started = await startTestPlatform(options);
  onTestFinished(() => started[Symbol.asyncDispose]());
  return started;
}

/** Clients of every service over one connection. */
export function clientsOver(
  baseUrl: string,
  sessionManager: Http2SessionManager,
  credential: string,
  tenantId?: string,
): Clients {
  const credentials: Interceptor = (next) => (request) => {
    request.header.set("authorization", `Bearer ${credential}`);
    if (tenantId !== undefined) request.header.set("posthorn-tenant", tenantId);
    return next(request);
  };
  const transport = createGrpcTransport({ baseUrl, sessionManager, interceptors: [credentials] });
  return {
    send: createClient(SendService, transport),
    schedules: createClient(ScheduleService, transport),
    inbox: createClient(InboxService, transport),
    stream: createClient(StreamService, transport),
    preferences: createClient(PreferencesService, transport),
    users: createClient(UserService, transport),
    topics: createClient(TopicService, transport),
    types: createClient(TypeService, transport),
    batches: createClient(BatchService, transport),
    analytics: createClient(AnalyticsService, transport),
    admin: createClient(AdminService, transport),
  };
}
