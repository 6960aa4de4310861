import type { DescService } from "@bufbuild/protobuf";
import type { DestinationStream } from "pino";
import { Registry } from "prom-client";
import { AdminService, Scope } from "#gen/posthorn/v1/admin_service_pb.ts";
import { AnalyticsService } from "#gen/posthorn/v1/analytics_service_pb.ts";
import { BatchService } from "#gen/posthorn/v1/batch_service_pb.ts";
import { ErrorReason } from "#gen/posthorn/v1/error_pb.ts";
import { InboxService } from "#gen/posthorn/v1/inbox_service_pb.ts";
import { PreferencesService } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { ScheduleService } from "#gen/posthorn/v1/schedule_service_pb.ts";
import { SendService } from "#gen/posthorn/v1/send_service_pb.ts";
import { StreamService } from "#gen/posthorn/v1/stream_service_pb.ts";
import { TopicService } from "#gen/posthorn/v1/topic_service_pb.ts";
import { TypeService } from "#gen/posthorn/v1/type_service_pb.ts";
import { UserService } from "#gen/posthorn/v1/user_service_pb.ts";
import { Fault } from "#src/errors.ts";
import type { Principal, Service } from "#src/rpc/call.ts";
import { type GrpcConfig, startGrpc } from "#src/rpc/grpc/server.ts";
import { type HttpConfig, startHttp } from "#src/rpc/http/connect.ts";
import { createPipeline, type PipelineDeps } from "#src/rpc/pipeline.ts";
import { createViolations, type Violations } from "#src/rpc/validate.ts";
import { exposition } from "#src/telemetry/exposition.ts";
import { createLogger } from "#src/telemetry/logger.ts";
import { createMetrics } from "#src/telemetry/metrics.ts";

export const SERVICES: readonly DescService[] = [
  AdminService,
  AnalyticsService,
  BatchService,
  InboxService,
  PreferencesService,
  ScheduleService,
  SendService,
  StreamService,
  TopicService,
  TypeService,
  UserService,
];

export const TENANT = "01890000-0000-7000-8000-000000000001";
export const METHODS = SERVICES.flatMap((each) => each.methods);
export const ALL_SCOPES = Object.values(Scope).filter((scope) => scope !== Scope.UNSPECIFIED);

// biome-ignore lint/suspicious/noExplicitAny: a test says what its handler takes.
type AnyHandler = (request: any, call: any) => any;

/** Handlers of every method: they answer an empty message, or what `named` says, by `Service.Method`. */
export function fakeServices(named: Record<string, AnyHandler> = {}): Service[] {
  return SERVICES.map((descriptor) => {
    const handlers = Object.fromEntries(
      descriptor.methods.map((method) => [
        method.localName,
        named[`${descriptor.name}.${method.name}`] ??
          (method.methodKind === "unary"
            ? async () => ({})
            : async function* () {
                yield {};
              }),
      ]),
    );
    return { descriptor, handlers: handlers as unknown as Service["handlers"] };
  });
}

const future = new Date(Date.now() + 3_600_000);

/**
 * Credentials that say what they are: `operator`, `key:SEND,INBOX`, `key:*`, `user:u1`, `expired`; everything else is
 * invalid.
 */
export async function fakeAuthenticate(
  authorization: string | undefined,
  tenant: string | undefined,
): Promise<Principal> {
  if (authorization === undefined) throw new Fault(ErrorReason.CREDENTIAL_MISSING);
  const [, kind, rest] = /^Bearer ([a-z]+)(?::(.*))?$/.exec(authorization) ?? [];
  if (kind === "operator") return { kind, tenantId: tenant };
  if (kind === "expired") throw new Fault(ErrorReason.CREDENTIAL_EXPIRED);
  if (kind === "user" && rest) return { kind, tenantId: TENANT, userId: rest, issuedAt: undefined, expiresAt: future };
  if (kind === "key" && rest) {
    const names = rest === "*" ? ALL_SCOPES : rest.split(",").map((name) => Scope[name as keyof typeof Scope]);
    return { kind, tenantId: TENANT, keyId: "k1", scopes: new Set(names), expiresAt: undefined };
  }
  throw new Fault(ErrorReason.CREDENTIAL_INVALID);
}

export const GRPC: GrpcConfig = {
  host: "127.0.0.1",
  port: 0,
  tls: undefined,
  maxReceiveBytes: 256 * 1024,
  maxSendBytes: 4 * 2 ** 20,
  maxConcurrentStreams: 1_000,
  maxConnectionsPerAddress: 10_000,
  helloTimeoutMs: 1_000,
  requestTimeoutMs: 2_000,
  keepaliveTimeMs: 60_000,
  keepaliveTimeoutMs: 20_000,
  maxConnectionIdleMs: 300_000,
  maxConnectionAgeMs: 1_800_000,
  maxConnectionAgeGraceMs: 3_600_000,
};

export const HTTP: HttpConfig = {
  host: "127.0.0.1",
  port: 0,
  tls: undefined,
  corsOrigins: ["https://app.example"],
  maxReceiveBytes: 256 * 1024,
  maxTimeoutMs: 7_200_000,
  // Long enough for a busy machine: tests of slow clients have shorter ones.
  headersTimeoutMs: 10_000,
  requestTimeoutMs: 10_000,
  sessionIdleMs: 300_000,
  maxConcurrentStreams: 128,
  maxConnectionsPerAddress: 10_000,
};

export type Overrides = Partial<Omit<PipelineDeps, "services">> & {
  handlers?: Record<string, AnyHandler>;
  grpc?: Partial<GrpcConfig>;
  http?: Partial<HttpConfig>;
};

/** Rules take a while to compile, so one compiler serves a whole test file. */
let violations: Violations | undefined;

export function fakePipeline(overrides: Overrides = {}) {
  const lines: Record<string, unknown>[] = [];
  const to: DestinationStream = { write: (line) => lines.push(JSON.parse(line)) };
  const log = createLogger({ serviceName: "test", logLevel: "debug", logFormat: "json" }, to);
  const registry = new Registry();
  violations ??= createViolations();
  let id = 0;
  const pipeline = createPipeline({
    services: fakeServices(overrides.handlers),
    authenticate: fakeAuthenticate,
    stillValid: async () => true,
    limits: () => undefined,
    violations,
    deadlines: { defaultUnaryMs: 30_000, maxUnaryMs: 60_000 },
    newId: () => `request-${++id}`,
    clock: () => new Date(),
    log,
    metrics: createMetrics(registry),
    ...overrides,
  });
  return { pipeline, log, lines, registry };
}

/** Both ports over one pipeline. */
export async function startPorts(overrides: Overrides = {}) {
  const { pipeline, log, lines, registry } = fakePipeline(overrides);
  const ready: Record<string, boolean> = { postgres: true };
  const grpc = await startGrpc({ pipeline, log }, { ...GRPC, ...overrides.grpc });
  const http = await startHttp(
    { pipeline, log, ready: async () => ready, metrics: exposition(registry) },
    { ...HTTP, ...overrides.http },
  );
  return {
    grpc,
    http,
    lines,
    registry,
    ready,
    async [Symbol.asyncDispose]() {
      await Promise.all([grpc[Symbol.asyncDispose](), http[Symbol.asyncDispose]()]);
      pipeline[Symbol.dispose]();
    },
  };
}
