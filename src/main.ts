import { randomBytes, randomInt } from "node:crypto";
import { hostname } from "node:os";
import { apiServices } from "#src/api.ts";
import { authenticator } from "#src/auth/authenticator.ts";
import { keySets } from "#src/auth/jwks.ts";
import { keySetFetcher } from "#src/auth/jwks-fetch.ts";
import { resealSecrets } from "#src/auth/reseal.ts";
import { sealer } from "#src/auth/seal.ts";
import type { Between } from "#src/between.ts";
import { connectBroker } from "#src/broker/broker.ts";
import { startInvalidations } from "#src/broker/invalidations.ts";
import { connectCache } from "#src/cache/redis.ts";
import type { Channels } from "#src/channels/channel.ts";
import { sinkChannels } from "#src/channels/sink.ts";
import type { Clock } from "#src/clock.ts";
import type { Role } from "#src/config/deployment.ts";
import type { Config } from "#src/config.ts";
import { reconcilingReminders } from "#src/deadlines/reconcile.ts";
import { newIds } from "#src/ids.ts";
import { openInbox } from "#src/inbox/inbox.ts";
import { unreadLimit } from "#src/inbox/unread-limit.ts";
import { startGathering } from "#src/learning/gather.ts";
import { createApiLimits } from "#src/limits/api-limits.ts";
import { channelLimits } from "#src/limits/channel-limits.ts";
import { notificationLimits } from "#src/limits/notification-limits.ts";
import { limitsDeps, looking } from "#src/limits/start.ts";
import { type AcceptDeps, accepting } from "#src/pipeline/accept/accept.ts";
import { storeReminders } from "#src/pipeline/accept/reminders.ts";
import type { ClosedBatch, RefusedBatch, WaitingBatch } from "#src/pipeline/close/close.ts";
import type { Poured } from "#src/pipeline/close/pour.ts";
import { startConsuming } from "#src/pipeline/consume.ts";
import { ensureQueues } from "#src/pipeline/ensure-queues.ts";
import { giveWay } from "#src/pipeline/give-way.ts";
import { PROCESS_BYTES, startMemoryGuard, thresholdOf } from "#src/pipeline/memory.ts";
import { outsideWork } from "#src/pipeline/outside.ts";
import { previewing } from "#src/pipeline/preview.ts";
import { openQueue } from "#src/pipeline/queue.ts";
import { type ReconsiderDeps, reconciling } from "#src/pipeline/reconsider/reconsider.ts";
import {
  type AnnouncedCancel,
  announceBatch,
  announceCancelled,
  announceClosed,
  announceConclusion,
  announceConfirmed,
  announcePoured,
  announceRead,
  announceScheduled,
  announceWaiting,
} from "#src/pipeline/route/announce.ts";
import { rulesForClosing } from "#src/pipeline/route/for-closing.ts";
import { deciding } from "#src/pipeline/route/gates/decide.ts";
import type { RouteDeps } from "#src/pipeline/route/route.ts";
import { worker } from "#src/pipeline/worker.ts";
import { preferenceCache } from "#src/preferences/cache.ts";
import { zoneClocks } from "#src/preferences/zone-clock.ts";
import { rulesOf } from "#src/rpc/access-rules.ts";
import { startGrpc } from "#src/rpc/grpc/server.ts";
import { startHttp } from "#src/rpc/http/connect.ts";
import { createPipeline } from "#src/rpc/pipeline.ts";
import { createViolations } from "#src/rpc/validate.ts";
import { startJobs } from "#src/schedule/jobs.ts";
import { streamService } from "#src/services/stream-service.ts";
import { stopping } from "#src/stopping.ts";
import { migrate } from "#src/store/migrate.ts";
import { pageTokens } from "#src/store/page-token.ts";
import { postgresReady } from "#src/store/ready.ts";
import { openStore } from "#src/store/store.ts";
import { STREAM_BYTES, startHub } from "#src/stream/hub.ts";
import { livePublisher } from "#src/stream/live.ts";
import { openPresence } from "#src/stream/presence.ts";
import { filterEvaluator } from "#src/subscriptions/evaluate.ts";
import { watchLiveMemory } from "#src/telemetry/live-memory.ts";
import { createLogger, type Logger } from "#src/telemetry/logger.ts";
import { watchSources } from "#src/telemetry/sources.ts";
import { startTelemetry } from "#src/telemetry/telemetry.ts";
import { createTenantWithKey } from "#src/tenants/tenants.ts";
import { typeCatalogue } from "#src/types/catalogue.ts";
import { contracts, findingTyped } from "#src/types/payload/contracts.ts";
import { judging } from "#src/types/payload/judging.ts";

/** A running process of Posthorn. Disposing drains it first. */
export type Platform = AsyncDisposable & {
  /** `host:port` */
  readonly grpcUrl: string;
  /** `http://host:port`, or https with TLS */
  readonly httpUrl: string;
  readonly databaseUrl: string;
  /** Goes out of service without failing anybody: not ready, streams sent elsewhere, calls and chunks finished. */
  drain(): Promise<void>;
  /** A tenant and an API key that may do everything in it: for first steps, when nobody holds a key yet. */
  bootstrap(displayName: string): Promise<{ tenantId: string; apiKey: string }>;
};

export type PlatformOptions = { log?: Logger; clock?: Clock; between?: Between };

/** Counter slots of one process: enough that its own writers seldom meet on a row. */
const SLOTS = 8;

/**
 * Starts the roles that the configuration names. Resolves when calls are answered. The composition root: read from top to
 * bottom it follows a notification from the caller to the stream.
 */
export async function startPlatform(config: Config, options: PlatformOptions = {}): Promise<Platform> {
  const { namespace } = config;
  const postgres = { ...config.postgres, url: required("POSTHORN_DATABASE_URL", config.postgres.url) };
  const nats = { ...config.nats, url: required("POSTHORN_NATS_URL", config.nats.url) };
  const redis = { ...config.redis, url: required("POSTHORN_REDIS_URL", config.redis.url) };
  const instanceId = config.instanceId ?? `${hostname()}-${process.pid}`;
  const log = options.log ?? createLogger({ ...config.telemetry, instanceId });
  const clock: Clock = options.clock ?? (() => new Date());
  const ticks = () => performance.now();
  const random = Math.random;
  const newId = newIds(clock);
  const has = (role: Role) => config.roles.includes(role);
  const firstSlot = randomInt(1, 4096) * SLOTS;
  const slots = Array.from({ length: SLOTS }, (_, n) => firstSlot + n);
  await using stack = new AsyncDisposableStack();

  // Telemetry, and the three servers everything stands on.
  const { metrics, expose } = stack.use(startTelemetry({ ...config.telemetry, instanceId }, clock, log));
  await migrate(postgres.url, clock());
  const { between = {} } = options;
  const opened = stack.use(openStore(postgres));
  const store = between.store?.(opened) ?? opened;
  const broker = stack.use(await connectBroker({ ...nats, namespace }, log));
  const cache = stack.use(await connectCache({ ...redis, namespace }, log));
  await ensureQueues(broker);
  const askPostgres = postgresReady(store, log);
  stack.use(watchSources(metrics, { postgres: askPostgres, nats: broker.up, redis: cache.up }, opened.pools));

  // What stages and services share.
  let openStreams = () => 0;
  const watchMemory = between.memory?.(watchLiveMemory) ?? watchLiveMemory;
  const thresholdBytes = thresholdOf(config.memory.thresholdMb);
  const besideBytes = () => PROCESS_BYTES + openStreams() * STREAM_BYTES;
  const givingWay = giveWay({ pieces: config.giveWay.pieces, rest: config.giveWay.restPercent / 100 });
  const way = between.way?.(givingWay) ?? givingWay;
  const memory = stack.use(startMemoryGuard({ watch: watchMemory, thresholdBytes, besideBytes, metrics, log }));
  const invalidations = stack.use(startInvalidations(broker));
  const publisher = livePublisher(broker);
  const live = between.live?.(publisher) ?? publisher;
  const publishing = openQueue(broker, log, metrics, ticks);
  const queue = between.queue?.(publishing) ?? publishing;
  const seals = sealer(config.encryption.key, config.encryption.previousKeys, randomBytes);
  const judge = judging();
  const types = stack.use(typeCatalogue({ store, invalidations, listening: broker.up, ticks }));
  const findType: RouteDeps["findType"] = (tenantId, key) => {
    const known = types.peek(tenantId, key);
    return known === undefined ? types.get(tenantId, key) : (known ?? undefined);
  };
  const preferences = stack.use(preferenceCache({ store, cache, invalidations, connected: broker.up, clock, newId }));
  const payloads = contracts({ store, judging: judge, log, metrics });
  const findTyped = findingTyped(findType, payloads);
  const cancelled = (tenantId: string, notifications: readonly AnnouncedCancel[], at: Date) => {
    metrics.escalationsEnded.inc({ outcome: "cancelled" }, notifications.filter(({ escalated }) => escalated).length);
    announceCancelled(live, tenantId, notifications, at);
  };
  const acceptDeps: AcceptDeps = {
    store,
    queue,
    clock,
    newId,
    metrics,
    findType: findTyped,
    reloadType: async (tenantId, key) => findingTyped(types.reload, payloads)(tenantId, key),
    dedupWindowMs: config.accept.dedupWindowSeconds * 1000,
    payloadsOf: payloads.within,
    recipientsOf: preferences.load,
    superseded: cancelled,
  };
  const sunk: Channels = config.channels.devSink === undefined ? new Map() : sinkChannels(config.channels.devSink);
  const channels = between.channels?.(sunk) ?? sunk;
  const decide = deciding(channels.keys());
  const reconsider: ReconsiderDeps = { decide, metrics, clockOf: zoneClocks(), filters: filterEvaluator(), live };
  const reconcile = reconciling(reconsider);
  const reconcileReminders = reconcilingReminders({ newId, store: storeReminders, cancelled });
  const inbox = openInbox({
    ...{ store, clock, metrics, log },
    counterSlots: slots,
    inboxChanged: live.inboxChanged,
    notificationsRead: (tenantId, userId, ids, at) => announceRead(live, tenantId, userId, ids, at),
    notificationConfirmed: (tenantId, userId, notificationId, status, at) =>
      announceConfirmed(live, tenantId, userId, { notificationId, status }, at),
  });

  const gather = { store, clock, invalidations, loadPreferences: preferences.load, clockOf: zoneClocks(), log };
  const { looked } = stack.use(startGathering(gather));

  const counting = limitsDeps({
    ...{ cache, config: config.notificationLimits, clock, metrics, log, redisClock: options.between?.redisClock },
  });
  const limits = notificationLimits(counting);
  const { perChannelPerDay: channelsPerDay } = config.notificationLimits;

  // accept → route → the user's inbox and streams.
  if (has("worker")) {
    const keepWithinLimit = unreadLimit({ store, inbox }, config.inbox.maxUnread);
    const handle = worker({
      route: {
        store,
        clock,
        metrics,
        log,
        newId,
        findType,
        reloadType: types.reload,
        loadPreferences: preferences.load,
        reloadPreferences: preferences.reload,
        decide,
        reserve: limits.reserve,
        arrived(tenantId, arrivals) {
          live.arrived(tenantId, arrivals, true);
          keepWithinLimit(tenantId, arrivals).catch((err) => log.warn({ err }, "could not archive unread entries"));
        },
        statusChanged: (tenantId, userId, conclusion, at) => announceConclusion(live, tenantId, userId, conclusion, at),
        batchJoined: (tenantId, joined) => announceBatch(live, tenantId, joined),
      },
      accept: acceptDeps,
      slots,
      newEpoch: () => randomInt(1, 2 ** 31 - 1),
      log,
    });
    const work = between.work?.(handle) ?? handle;
    const { concurrencyPerLane, chunkMinItems: min, chunkMaxItems: max, chunkTargetMs: targetMs } = config.route;
    const consuming = { broker, handle: work, concurrencyPerLane, chunk: { min, max, targetMs }, memory, way };
    stack.use(await startConsuming({ ...consuming, clock, log, metrics }));
  }

  // What happens by itself.
  if (has("scheduler")) {
    const close = {
      ...{ store, queue, newId, findType, log, metrics },
      ...rulesForClosing({ decide, metrics }, limits.reserve),
      slot: firstSlot,
      loadPreferences: preferences.load,
      reloadPreferences: preferences.reload,
      waits: (tenantId: string, batch: WaitingBatch, at: Date) => announceWaiting(live, tenantId, batch, at),
      closed: (tenantId: string, batch: ClosedBatch, at: Date) => announceClosed(live, tenantId, batch, at),
      poured: (tenantId: string, batches: readonly RefusedBatch[], into: Poured, at: Date) =>
        announcePoured(live, tenantId, batches, into, at),
    };
    const given = { store, broker, queue, live, clock, random, metrics, log };
    const jobs = { ...given, databaseUrl: postgres.url, reconsider, close, memory };
    const occurrences = { accept: acceptDeps, slot: firstSlot, log };
    const load = { loadPreferences: preferences.load, reloadPreferences: preferences.reload };
    const sending = { store, clock, live, log, metrics, channels, slot: firstSlot };
    const within = { channelsPerDay, channelLimits: channelLimits(counting) };
    const outside = outsideWork({ ...sending, ...within, ...load, decide });
    stack.use(startJobs({ ...jobs, ...outside, occurrences }, config));
    if (config.encryption.previousKeys.length > 0) {
      void resealSecrets(store, seals).then(
        (count) => log.info({ count }, "sealed the secrets of former master keys anew"),
        (err) => log.error({ err }, "could not seal the secrets of former master keys anew"),
      );
    }
  }

  // Callers and browsers. Every process answers probes; the roles api and stream serve the contract.
  const presence = openPresence(cache, clock, config.stream.heartbeatMs);
  const hub = stack.use(startHub({ broker, store, presence, clock, newId, random, metrics, log }, config.stream));
  openStreams = hub.open;
  metrics.streamsOpen.read(() => metrics.streamsOpen.set(hub.open()));
  const reach = { loopback: config.environment === "development" };
  const fetchKeySet = keySetFetcher(reach);
  const auth = stack.use(
    authenticator(
      { store, invalidations, ticks, clock, sealer: seals, keySets: keySets({ fetchKeySet, ticks, log }) },
      config.auth,
    ),
  );
  const shared = { store, invalidations, pageTokens: pageTokens(config.encryption.key), clock, newId, judging: judge };
  const violations = createViolations();
  const membershipChanged = (tenantId: string, _topic: string, userIds: readonly string[]) =>
    live.membershipChanged(tenantId, userIds);
  const api = () =>
    apiServices({
      ...shared,
      ...{ inbox, looked, violations, slots, slot: firstSlot, cancelled, shownAnew: live.shownAnew },
      ...{ membershipChanged, reconcile, reconcileReminders },
      ...{ accept: accepting({ ...acceptDeps, memory, way }, config.accept, slots), metrics },
      preview: previewing({ ...acceptDeps, typed: payloads.with, ...reconsider, ...looking(counting), channelsPerDay }),
      ...{ clockOf: reconsider.clockOf, findType: findTyped, recipientsOf: preferences.load },
      scheduled: (tenantId, notification, at) => announceScheduled(live, tenantId, notification, at),
      ...{ aboutToChange: preferences.aboutToChange, preferencesChanged: live.preferencesChanged },
      ...{ sealer: seals, random: randomBytes, reach, config: config.schedule, channelsPerDay },
    });
  const services = [
    ...(has("api") ? api() : []),
    ...(has("stream") ? [streamService({ ...shared, hub, live, presence, inbox, looked })] : []),
  ];
  const pipeline = stack.use(
    createPipeline({
      services,
      rules: rulesOf(services),
      authenticate: auth.authenticate,
      stillValid: auth.stillValid,
      limits: createApiLimits(config.apiLimits, ticks, (limit) => metrics.rpcLimited.inc({ limit })),
      violations,
      deadlines: config.deadlines,
      newId,
      clock,
      log,
      metrics,
    }),
  );
  const grpc = stack.use(await startGrpc({ pipeline, log }, config.grpc));
  const http = stack.use(
    await startHttp(
      {
        pipeline,
        log,
        metrics: config.telemetry.metricsEnabled ? expose : undefined,
        // Not Redis: without it everything works, only with local limits.
        ready: async () => ({ postgres: await askPostgres(), nats: broker.up() }),
      },
      config.http,
    ),
  );

  const running = stack.move();
  const { drain, stop } = stopping({
    withinMs: config.shutdown.drainMs,
    began: () => metrics.draining.set(1),
    ports: [grpc, http],
    tellStreams: hub.drain,
    close: () => running.disposeAsync(),
  });
  return {
    grpcUrl: `${config.grpc.host}:${grpc.port}`,
    httpUrl: `${config.http.tls === undefined ? "http" : "https"}://${config.http.host}:${http.port}`,
    databaseUrl: postgres.url,
    drain,
    bootstrap: (displayName) => createTenantWithKey({ ...shared, sealer: seals, random: randomBytes }, displayName),
    [Symbol.asyncDispose]: stop,
  };
}

function required(name: string, url: string | undefined): string {
  if (url === undefined) throw new Error(`${name} is not set, and no local server was started for it`);
  return url;
}
