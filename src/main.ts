import { randomBytes, randomInt } from "node:crypto";
import { hostname } from "node:os";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Registry } from "prom-client";
import { Channel, Status } from "#gen/posthorn/v1/notification_pb.ts";
import { authenticator } from "#src/auth/authenticator.ts";
import { keySets } from "#src/auth/jwks.ts";
import { keySetFetcher } from "#src/auth/jwks-fetch.ts";
import { sealer } from "#src/auth/seal.ts";
import { connectBroker } from "#src/broker/broker.ts";
import { startInvalidations } from "#src/broker/invalidations.ts";
import { connectCache } from "#src/cache/redis.ts";
import type { Clock } from "#src/clock.ts";
import type { Config } from "#src/config.ts";
import { newIds } from "#src/ids.ts";
import { openInbox } from "#src/inbox/inbox.ts";
import { readHeads } from "#src/inbox/queries.ts";
import { createApiLimits } from "#src/limits/api-limits.ts";
import { type AcceptDeps, accepting } from "#src/pipeline/accept/accept.ts";
import { startConsuming } from "#src/pipeline/consume.ts";
import { ensureQueues, openQueue } from "#src/pipeline/queue.ts";
import { announceConclusion } from "#src/pipeline/route/announce.ts";
import { decide } from "#src/pipeline/route/gates/decide.ts";
import { worker } from "#src/pipeline/worker.ts";
import { compile } from "#src/preferences/compile.ts";
import { zoneClocks } from "#src/preferences/zone-clock.ts";
import { ACCESS_RULES } from "#src/rpc/access-rules.ts";
import { startGrpc } from "#src/rpc/grpc.ts";
import type { Listening } from "#src/rpc/listening.ts";
import { createPipeline } from "#src/rpc/pipeline.ts";
import { createViolations } from "#src/rpc/validate.ts";
import { startJobs } from "#src/schedule/jobs.ts";
import { adminService } from "#src/services/admin-service.ts";
import { analyticsService } from "#src/services/analytics-service.ts";
import { inboxService } from "#src/services/inbox-service.ts";
import { sendService } from "#src/services/send-service.ts";
import { streamService } from "#src/services/stream-service.ts";
import { topicService } from "#src/services/topic-service.ts";
import { typeService } from "#src/services/type-service.ts";
import { userService } from "#src/services/user-service.ts";
import { migrate } from "#src/store/migrate.ts";
import { pageTokens } from "#src/store/page-token.ts";
import { openStore } from "#src/store/store.ts";
import { startHub } from "#src/stream/hub.ts";
import { livePublisher } from "#src/stream/live.ts";
import { openPresence } from "#src/stream/presence.ts";
import { createLogger, type Logger } from "#src/telemetry/logger.ts";
import { createMetrics } from "#src/telemetry/metrics.ts";
import { startProcessMetrics } from "#src/telemetry/process-metrics.ts";
import { startTracing } from "#src/telemetry/traces.ts";
import { createTenantWithKey } from "#src/tenants/tenants.ts";
import { findTopic, pageUserTopics } from "#src/topics/queries.ts";
import { typeCatalogue } from "#src/types/catalogue.ts";

/** A running process of Posthorn. Disposing drains it first. */
export type Platform = AsyncDisposable & {
  /** `host:port`; empty without the roles api and stream. */
  readonly grpcUrl: string;
  readonly httpUrl: string;
  readonly databaseUrl: string;
  /** Goes out of service without failing anybody: not ready, streams sent elsewhere, calls and chunks finished. */
  drain(): Promise<void>;
  /** A tenant and an API key that may do everything in it; for first steps, when nobody holds a key yet. */
  bootstrap(displayName: string): Promise<{ tenantId: string; apiKey: string }>;
};

export type PlatformOptions = { log?: Logger; clock?: Clock };

/** Counter slots of one process: enough that its own writers seldom meet on a row. */
const SLOTS = 8;

export async function startPlatform(config: Config, options: PlatformOptions = {}): Promise<Platform> {
  const { postgres, nats, redis, namespace } = config;
  if (postgres.url === undefined || nats.url === undefined || redis.url === undefined) {
    throw new Error("startPlatform needs the URLs of Postgres, NATS and Redis");
  }
  const instanceId = config.instanceId ?? `${hostname()}-${process.pid}`;
  const log = options.log ?? createLogger({ ...config.telemetry, instanceId });
  const clock: Clock = options.clock ?? (() => new Date());
  const ticks = () => performance.now();
  const random = Math.random;
  const newId = newIds(clock);
  const has = (role: (typeof config.roles)[number]) => config.roles.includes(role);
  await using stack = new AsyncDisposableStack();

  // What everything stands on.
  const registry = new Registry();
  const metrics = createMetrics(registry);
  stack.use(startProcessMetrics(registry));
  stack.use(startTracing({ ...config.telemetry, instanceId }, { log }));
  await migrate(postgres.url, clock());
  const store = stack.use(openStore({ ...postgres, url: postgres.url }));
  const broker = stack.use(await connectBroker({ ...nats, url: nats.url, namespace }, log));
  const cache = stack.use(await connectCache({ ...redis, url: redis.url, namespace }, log));
  await ensureQueues(broker);

  // What the stages and the services share.
  const invalidations = stack.use(startInvalidations(broker));
  const live = livePublisher(broker);
  const queue = openQueue(broker, log, (lane) => metrics.queuePublishFailures.inc({ lane }));
  const catalogue = stack.use(typeCatalogue({ store, invalidations, listening: broker.up, ticks }));
  const seals = sealer(config.encryption.key, config.encryption.previousKeys, randomBytes);
  const firstSlot = randomInt(0, 1024) * SLOTS;
  const slots = Array.from({ length: SLOTS }, (_, n) => firstSlot + n);
  const [slot = 0] = slots;
  const compiled = compile({ profile: { locale: "", timeZone: "" } } as never, new Set(), zoneClocks());

  const acceptDeps: AcceptDeps = {
    store,
    queue,
    clock,
    newId,
    metrics,
    dedupWindowMs: config.accept.dedupWindowSeconds * 1000,
    findType(tenantId, key) {
      const known = catalogue.peek(tenantId, key);
      return known === undefined ? catalogue.get(tenantId, key) : (known ?? undefined);
    },
    zonesOf: async (tenantId, userIds) => new Map(),
  };

  if (has("worker")) {
    const handle = worker({
      route: {
        store,
        clock,
        metrics,
        loadPreferences: async (tenantId, userIds) => new Map(userIds.map((u) => [u, compiled])),
        decide,
        reserve: async (_t, wanted) => wanted.map(() => ({ allowed: true })),
        arrived: live.arrived,
        statusChanged: (tenantId, userId, conclusion, at) => announceConclusion(live, tenantId, userId, conclusion, at),
      },
      accept: acceptDeps,
      slots,
      newEpoch: () => randomInt(1, 2 ** 31 - 1),
      log,
    });
    stack.use(await startConsuming(broker, handle, config.route.concurrencyPerLane, log));
  }

  if (has("scheduler")) {
    stack.use(
      startJobs({ store, broker, queue, live, clock, random, metrics, log, databaseUrl: postgres.url }, config),
    );
  }

  const listening: Listening[] = [];
  const auth = stack.use(
    authenticator(
      {
        store,
        invalidations,
        ticks,
        clock,
        sealer: seals,
        keySets: keySets({ fetchKeySet: keySetFetcher(reach(config)), ticks, log }),
      },
      config.auth,
    ),
  );
  const presence = openPresence(cache, clock, config.stream.heartbeatMs);
  const hub = stack.use(
    startHub(
      {
        broker,
        store,
        presence,
        clock,
        newId,
        random,
        metrics,
        log,
        topicsOf: (tenantId, userId) => store.tenantDb(tenantId, (db) => pageUserTopics(db, tenantId, userId, "", 500)),
      },
      config.stream,
    ),
  );
  if (has("api") || has("stream")) {
    const tokens = pageTokens(config.encryption.key);
    const membershipChanged = (tenantId: string, _topic: string, userIds: readonly string[]) =>
      live.membershipChanged(tenantId, userIds);
    const inbox = openInbox({
      store,
      clock,
      counterSlots: slots,
      inboxChanged: live.inboxChanged,
      notificationsRead(tenantId, userId, ids, at) {
        for (const notificationId of ids) {
          live.statusChanged(tenantId, userId, {
            notificationId,
            status: Status.READ,
            channel: Channel.IN_APP,
            time: timestampFromDate(at),
          });
        }
      },
    });
    const headOf = (tenantId: string, userId: string) =>
      store.tenant(tenantId, async (tx) => (await readHeads(tx, tenantId, [userId])).get(userId));
    const violations = createViolations();
    const shared = { store, invalidations, pageTokens: tokens, clock, newId };
    const pipeline = stack.use(
      createPipeline({
        services: [
          sendService({ ...shared, accept: accepting(acceptDeps, config.accept, slots), violations, slot }),
          inboxService({ ...shared, inbox }),
          streamService({
            hub,
            live,
            presence,
            clock,
            newId,
            markSeen: (tenantId, userId, through) => inbox.markSeen({ tenantId, userId }, BigInt(through)),
            headOf,
            topicExists: async (tenantId, key) =>
              (await store.tenantDb(tenantId, (db) => findTopic(db, tenantId, key))) !== undefined,
          }),
          userService({ ...shared, membershipChanged }),
          topicService({ ...shared, membershipChanged }),
          typeService(shared),
          analyticsService(shared),
          adminService({ ...shared, sealer: seals, random: randomBytes, reach: reach(config) }),
        ],
        authenticate: auth.authenticate,
        stillValid: auth.stillValid,
        limits: createApiLimits(config.apiLimits, ticks),
        violations,
        deadlines: config.deadlines,
        rules: Object.fromEntries(
          Object.entries(ACCESS_RULES).filter(([k]) => !k.includes("PreferencesService")),
        ) as never,
        newId,
        clock,
        log,
        metrics,
      }),
    );
    listening.push(stack.use(await startGrpc({ pipeline, log }, config.grpc)));
  }

  const running = stack.move();
  return {
    grpcUrl: `${config.grpc.host}:${listening[0]?.port}`,
    httpUrl: "",
    databaseUrl: postgres.url,
    async drain() {
      await hub.drain();
      await Promise.all(listening.map((port) => port.drain(config.shutdown.drainMs)));
    },
    bootstrap: (displayName) =>
      createTenantWithKey({ store, sealer: seals, clock, newId, random: randomBytes }, displayName),
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/** Where JWKS URLs may lead. */
function reach(config: Config): { loopback: boolean } {
  return { loopback: config.environment === "development" };
}
