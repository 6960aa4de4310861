import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { circuit } from "#src/cache/circuit.ts";
import type { Cache } from "#src/cache/redis.ts";
import type { Metrics } from "#src/telemetry/metrics.ts";
import { waitForLimiter } from "./hold.ts";
import { localLimits } from "./local-limits.ts";
import { phaseOf } from "./phase.ts";
import { redisLimits } from "./redis-limits.ts";
import { ALLOWED, bySlot, type Request, type Reservation, reservationOf, wantedBy } from "./reservation.ts";
import { CAP_WINDOW, type NotificationLimitsConfig, type Slot, type Wanted } from "./windows.ts";

export type { Request, Reservation } from "./reservation.ts";

export type NotificationLimitsDeps = {
  cache: Cache;
  config: NotificationLimitsConfig;
  /** Ms from any start, for the pause after a failure. */
  clock: () => number;
  metrics: Pick<Metrics, "limiterDecisions" | "limiterFallback" | "redisSeconds" | "hourlyCap">;
  /** Told when Redis stops and starts to answer, and when this process's clock comes to be apart from Redis's. */
  onAlert: (state: "redis-down" | "recovered" | "clock-apart" | "clock-agrees", error?: unknown) => void;
  /** Instead of Redis's clock, for tests. */
  redisNow?: ((nowMs: number) => number) | undefined;
};

/**
 * How many notifications users, tenants and all together get (per ten seconds, minute, hour, day), and how many a user
 * wants in an hour. What is over waits, or is told to go into the digest: nothing is lost, and nothing asks twice.
 *
 * `reserve` answers for each of the requested, in their order. Each goes at once if all windows have room and nobody
 * waits; else it is given the next turn, behind all that were given theirs before, and is counted there. So of one user,
 * and under one limit, all go in the order in which they asked, none overtakes, no window is given to more than it
 * allows however many processes ask at once, and the turns of a window are spread over it. With its slot a notification
 * passes once its turn has come, whatever Redis knows of it: if only a limit held it until the hour of its turn ends, and
 * at least a minute (a stall of the platform may let an hour's turns go at once); if another rule did up to a minute late.
 * After that it takes a new one. Exempt ones go at once and are counted; those that wait keep their turns. The same
 * attempt, asked for again within two minutes, is given the same. One that expires before its turn takes none.
 *
 * The user's hourly cap is asked first (cap.ts). A turn that it gave is handed in like any other: with it one asks whether
 * it may come by now, keeps it if not, and once it has come asks the other windows.
 *
 * `now` decides which windows are open, unless it is more than a minute off Redis's clock: then that does, and what has no
 * room is given no turn, but asks again within the longest backoff (half of it at least, where its window is that long).
 * It takes one round trip to Redis and never fails: within 100 ms without an answer, and at once while Redis is known to be
 * away, the policies apply — if one of the limits in force is "closed" all but the exempt wait 5 s and more
 * (LIMITER_UNAVAILABLE); else this process counts by itself. The cap is one of the users' limits.
 */
export type NotificationLimits = {
  reserve(tenantId: string, requests: readonly Request[], now: Date): Promise<readonly Reservation[]>;
};

export function notificationLimits(deps: NotificationLimitsDeps): NotificationLimits {
  const { cache, config, clock, metrics } = deps;
  let apart = false;
  const inRedis = redisLimits(cache, config, {
    redisNow: deps.redisNow,
    onClock(aheadMs) {
      if (apart === (aheadMs !== 0)) return;
      apart = aheadMs !== 0;
      deps.onAlert(apart ? "clock-apart" : "clock-agrees", apart ? new ClockApart(aheadMs) : undefined);
    },
  });
  const inProcess = localLimits(config);
  const closes = closesWithoutRedis(config);
  const redis = circuit({
    up: () => cache.up(),
    clock,
    onChange: (state, error) => deps.onAlert(state === "failed" ? "redis-down" : "recovered", error),
  });

  async function ask(tenantId: string, wanted: readonly Wanted[], nowMs: number): Promise<Reservation[]> {
    const started = performance.now();
    const counted = await redis.attempt(() => inRedis(tenantId, wanted, nowMs));
    if (counted !== undefined) metrics.redisSeconds.observe((performance.now() - started) / 1000);
    const counter = counted === undefined ? metrics.limiterFallback : metrics.limiterDecisions;
    if (counted === undefined && closes) {
      const exempt = wanted.filter((each) => each.exempt).length;
      if (exempt > 0) counter.inc({ limit: "none", decision: "allowed" }, exempt);
      if (exempt < wanted.length) counter.inc({ limit: "unavailable", decision: "held" }, wanted.length - exempt);
      return wanted.map((each) => (each.exempt ? ALLOWED : waiting(each, config, nowMs)));
    }
    const slots = counted ?? inProcess(tenantId, wanted, nowMs);
    const answers = slots.map((slot, index) => reservationOf(slot, wanted[index]?.cap, nowMs));
    measureCap(metrics, wanted, slots);
    const digested = answers.filter((answer) => !answer.allowed && answer.digest).length;
    if (digested > 0) counter.inc({ limit: CAP_WINDOW.name, decision: "digest" }, digested);
    for (const [limit = "none", ofLimit] of Map.groupBy(slots, (slot) => slot.limit?.window.name)) {
      const count = ofLimit.length - (limit === CAP_WINDOW.name ? digested : 0);
      if (count > 0) counter.inc({ limit, decision: limit === "none" ? "allowed" : "held" }, count);
    }
    return answers;
  }

  return {
    async reserve(tenantId, requests, now) {
      const nowMs = now.getTime();
      const reservations = requests.map((each) => bySlot(each, config, nowMs));
      const slots = reservations.filter((known) => known !== undefined).length;
      if (slots > 0) metrics.limiterDecisions.inc({ limit: "none", decision: "slot" }, slots);
      const asking = requests.flatMap((each, index) => (reservations[index] === undefined ? [wantedBy(each)] : []));
      const answers = (asking.length === 0 ? [] : await ask(tenantId, asking, nowMs)).values();
      return reservations.map((known) => known ?? answers.next().value ?? ALLOWED);
    },
  };
}

class ClockApart extends Error {
  constructor(aheadMs: number) {
    super(`${Math.round(Math.abs(aheadMs) / 1000)} s ${aheadMs > 0 ? "ahead of" : "behind"} Redis's clock`);
  }
}

/**
 * Counts what the caps said of those that have one. Who waits for another limit is within it, and who passes it is
 * counted by it all the same: both are "allowed".
 */
function measureCap(
  metrics: Pick<Metrics, "hourlyCap">,
  wanted: readonly Pick<Wanted, "cap">[],
  slots: readonly Pick<Slot, "limit">[],
): void {
  const counts = { allowed: 0, held: 0, digest: 0 };
  wanted.forEach(({ cap }, index) => {
    if (cap === undefined) return;
    const isOver = slots[index]?.limit?.window === CAP_WINDOW;
    counts[!isOver ? "allowed" : cap.over === "digest" ? "digest" : "held"]++;
  });
  for (const [decision, count] of Object.entries(counts)) if (count > 0) metrics.hourlyCap.inc({ decision }, count);
}

/** A limit whose policy is to wait holds everything that it would have counted; one that is off has no policy. */
function closesWithoutRedis({ perTenantPerMinute, globalPerMinute, onRedisDown }: NotificationLimitsConfig): boolean {
  if (onRedisDown.user === "closed") return true;
  if (perTenantPerMinute > 0 && onRedisDown.tenant === "closed") return true;
  return globalPerMinute > 0 && onRedisDown.global === "closed";
}

/** One that waits for a limiter that is away. */
function waiting({ userId, attempt }: Wanted, config: NotificationLimitsConfig, nowMs: number): Reservation {
  const until = new Date(nowMs + waitForLimiter(attempt, config, phaseOf(userId) / 65_536));
  const reason = Reason.LIMITER_UNAVAILABLE;
  return { allowed: false, reason, until, slot: false, usage: 0, limit: 0, resetAt: until };
}

/** `known`: it is what has been counted that says so. Else Redis was away, and it is the policy for that. */
export type Look = { reservation: Reservation; known: boolean };

/**
 * What `reserve` would answer one that asked now, or at a later time if nobody came before: nothing is counted. Within the
 * same time as that, and never fails: while Redis is away the policies answer. Where each process counts by itself then,
 * one that has counted nothing does: what the others have, nobody knows.
 */
export function lookingAtLimits({
  cache,
  config,
  clock,
  redisNow,
}: Pick<NotificationLimitsDeps, "cache" | "config" | "clock" | "redisNow">): (
  tenantId: string,
  request: Request,
  now: Date,
) => Promise<Look> {
  const look = redisLimits(cache, config, { looking: true, redisNow });
  const redis = circuit({ up: () => cache.up(), clock });
  const closes = closesWithoutRedis(config);
  return async (tenantId, request, now) => {
    const nowMs = now.getTime();
    const bySlotOf = bySlot(request, config, nowMs);
    if (bySlotOf !== undefined) return { reservation: bySlotOf, known: true };
    const wanted = wantedBy(request);
    const looked = await redis.attempt(() => look(tenantId, [wanted], nowMs));
    if (looked === undefined && closes) {
      return { reservation: request.exempt ? ALLOWED : waiting(wanted, config, nowMs), known: false };
    }
    const [slot] = looked ?? localLimits(config, 1)(tenantId, [wanted], nowMs);
    const reservation = slot === undefined ? ALLOWED : reservationOf(slot, request.cap, nowMs);
    if (looked !== undefined) return { reservation, known: true };
    // Its counts are nobody's.
    return { reservation: reservation.allowed ? ALLOWED : reservation, known: false };
  };
}
