import { createHash } from "node:crypto";
import { LRUCache } from "lru-cache";
import { circuit } from "#src/cache/circuit.ts";
import type { Cache } from "#src/cache/redis.ts";
import { loadScript } from "#src/cache/script.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { type Asking, type Place, type Places, takePlace } from "./channel-day.ts";
import { waitForLimiter } from "./hold.ts";
import { phaseOf } from "./phase.ts";
import type { NotificationLimitsConfig } from "./windows.ts";

type Config = Pick<NotificationLimitsConfig, "onRedisDown" | "backoffMultiplier" | "maxBackoffMs">;

export type ChannelLimitsDeps = {
  cache: Pick<Cache, "redis" | "namespace" | "up">;
  config: Config;
  /** Ms from any start, for the pause after a failure. */
  clock: () => number;
  metrics: Pick<Metrics, "limiterDecisions" | "limiterFallback">;
  /** Told when Redis stops and starts to answer. */
  onAlert: (state: "redis-down" | "recovered", error?: unknown) => void;
};

/** `askAfterMs`: who counts is away, and the policy is to wait. */
export type Answer = Place | { askAfterMs: number };

/**
 * Places for hand-overs in the days of their recipients: in one round trip to Redis, for all processes together. Idempotent
 * by tag: what has its place today keeps it. Never fails: while Redis is away the policy of the users' limits holds, so this
 * process counts by itself, or all but the exempt wait.
 */
export type ChannelLimits = (tenantId: string, asking: readonly Asking[]) => Promise<readonly Answer[]>;

export function channelLimits(deps: ChannelLimitsDeps): ChannelLimits {
  const { config, metrics } = deps;
  const inRedis = redisPlaces(deps.cache);
  const inProcess = localPlaces();
  const redis = circuit({
    up: () => deps.cache.up(),
    clock: deps.clock,
    onChange: (state, error) => deps.onAlert(state === "failed" ? "redis-down" : "recovered", error),
  });
  return async (tenantId, asking) => {
    if (asking.length === 0) return [];
    const counted = await redis.attempt(() => inRedis(tenantId, asking));
    const closed = counted === undefined && config.onRedisDown.user === "closed";
    const answers: readonly Answer[] =
      counted ?? (closed ? asking.map((each) => waiting(each, config)) : inProcess(tenantId, asking));
    const counter = counted === undefined ? metrics.limiterFallback : metrics.limiterDecisions;
    const held = answers.filter((answer, index) => !goesNow(answer, asking[index])).length;
    if (held > 0) counter.inc({ limit: closed ? "unavailable" : "channel_day", decision: "held" }, held);
    if (held < answers.length) counter.inc({ limit: "channel_day", decision: "allowed" }, answers.length - held);
    return answers;
  };
}

/** `known`: it is what has been counted that says so. Else Redis was away, and it is the policy for that. */
type Look = { answer: Answer; known: boolean };

/**
 * What one that asked would be answered, but nothing is counted. Never fails: while Redis is away the policy answers, and
 * where each process counts by itself then, one that has counted nothing does.
 */
export function lookingAtChannelLimits({
  cache,
  config,
  clock,
}: Pick<ChannelLimitsDeps, "cache" | "config" | "clock">) {
  const look = redisPlaces(cache, ["look"]);
  const redis = circuit({ up: () => cache.up(), clock });
  return async (tenantId: string, asking: Asking): Promise<Look> => {
    const [counted] = (await redis.attempt(() => look(tenantId, [asking]))) ?? [];
    if (counted !== undefined) return { answer: counted, known: true };
    const closed = config.onRedisDown.user === "closed";
    return { answer: closed ? waiting(asking, config) : takePlace(new Map(), asking), known: false };
  };
}

function goesNow(answer: Answer, asked: Asking | undefined): boolean {
  return "day" in answer && answer.day === asked?.today;
}

/** How often one has waited so is not known; a few times, so that not all of them come back at once. */
const TIMES = 4;

function waiting({ exempt, today, userId }: Asking, config: Config): Answer {
  if (exempt) return { day: today, used: 0, nth: 0, taken: true };
  return { askAfterMs: waitForLimiter(TIMES, config, phaseOf(userId) / 65_536) };
}

const ANSWER_SIZE = 4;

function redisPlaces({ redis, namespace }: Pick<Cache, "redis" | "namespace">, look: readonly string[] = []) {
  const takePlaces = loadScript(redis, new URL("./channel-limits.lua", import.meta.url));
  return async (tenantId: string, asking: readonly Asking[]): Promise<Place[]> => {
    const numbers = new Map<string, number>();
    const args = asking.flatMap(({ tag, userId, channel, limit, exempt, today, closedDays, lastDay }) => {
      const name = `${channel}:${userId}`;
      const number = numbers.get(name) ?? numbers.size + 1;
      numbers.set(name, number);
      return [number, shortened(tag), limit, exempt ? 1 : 0, today, closedDays, lastDay ?? -1];
    });
    // By the tenant, whose keys are on one node of a cluster.
    const keys = [...numbers.keys()].map((name) => `${namespace}:channel-days:{${tenantId}}:${name}`);
    const answer = (await takePlaces(keys, [...args, ...look])) as number[];
    return asking.map((_, index) => {
      const [day = 0, used = 0, nth = 0, taken = 0] = answer.slice(index * ANSWER_SIZE);
      return { day, used, nth, taken: taken === 1 };
    });
  };
}

/** Of so few that share a set these are all different. */
function shortened(tag: string): Buffer {
  return createHash("sha1").update(tag).digest().subarray(0, 10);
}

/** Users and channels that one process remembers while Redis is away; those longest unseen are forgotten first. */
const MAX_REMEMBERED = 50_000;
const MAX_PLACES = 500_000;

function localPlaces() {
  const users = new LRUCache<string, Places>({
    max: MAX_REMEMBERED,
    maxSize: MAX_PLACES,
    sizeCalculation: (places) => places.size + 1,
  });
  return (tenantId: string, asking: readonly Asking[]): Place[] =>
    asking.map((each) => {
      const key = `${tenantId} ${each.channel} ${each.userId}`;
      const places = users.get(key) ?? new Map();
      const place = takePlace(places, each);
      users.set(key, places);
      return place;
    });
}
