import { Redis } from "ioredis";
import type { Logger } from "#src/telemetry/logger.ts";

export type CacheConfig = {
  url: string;
  /** Begins every key. */
  namespace: string;
  /** Nothing waits longer than this for Redis. */
  commandTimeoutMs: number;
};

/**
 * The way to Redis: rate limits, caches and presence, nothing that must not be lost. While it is away every command
 * fails at once (no queue), so callers decide what to do without it; it reconnects by itself.
 *
 * A command in flight when the connection breaks is not sent again, because a counter might then count twice.
 */
export type Cache = AsyncDisposable & { readonly redis: Redis; readonly namespace: string; up(): boolean };

/** How long it counts as away after a command went unanswered: shorter than the pause after which callers try it again. */
const SILENT_MS = 250;

export async function connectCache(config: CacheConfig, log: Logger): Promise<Cache> {
  const redis = new Redis(config.url, {
    lazyConnect: true,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    connectTimeout: 2000,
    retryStrategy: (attempt) => Math.min(50 * attempt, 1000),
    // By this an operator knows us in CLIENT LIST.
    connectionName: config.namespace,
    enableAutoPipelining: false,
  });
  let told = true;
  redis.on("error", (error) => {
    if (told) log.warn({ err: error }, "lost the connection to Redis");
    told = false;
  });
  redis.on("ready", () => {
    if (!told) log.info("connected to Redis again");
    told = true;
  });
  // Whoever waited in vain tells the others, or a chunk that asks two things of it would wait twice.
  let silentUntil = 0;
  const send = redis.sendCommand.bind(redis);
  redis.sendCommand = (command, stream) => {
    // Not by ioredis's commandTimeout, which goes by the timer alone: after a pause of this process, such as a garbage
    // collection, timers come before what has arrived is read, and Redis would be blamed for it.
    const giveUp = () => {
      if (command.isResolved) return;
      silentUntil = performance.now() + SILENT_MS;
      command.reject(new Error("Command timed out"));
    };
    const timer = setTimeout(() => setImmediate(giveUp), config.commandTimeoutMs);
    const answered = () => clearTimeout(timer);
    command.promise.then(answered, answered);
    return send(command, stream);
  };
  // A Redis that is away must not keep the process from starting: it is optional by design.
  await redis.connect().catch(() => undefined);
  return {
    redis,
    namespace: config.namespace,
    up: () => redis.status === "ready" && performance.now() >= silentUntil,
    async [Symbol.asyncDispose]() {
      redis.disconnect();
    },
  };
}
