import { LRUCache } from "lru-cache";
import type { Invalidations } from "#src/broker/invalidations.ts";
import type { Clock } from "#src/clock.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import type { ZoneClock } from "#src/preferences/zone-clock.ts";
import type { Store } from "#src/store/store.ts";
import type { Logger } from "#src/telemetry/logger.ts";
import { localHour } from "./looks.ts";
import { countLooks, type Look } from "./queries.ts";
import { type Waiting, waitingUsers } from "./waiting-users.ts";

export type GatherDeps = {
  store: Store;
  clock: Clock;
  invalidations: Pick<Invalidations, "on">;
  /** Preferences in force per user; cached. */
  loadPreferences(
    tenantId: string,
    userIds: readonly string[],
  ): Promise<ReadonlyMap<string, Pick<CompiledPreferences, "timeZone" | "mayLearn">>>;
  clockOf(zone: string): ZoneClock;
  log: Pick<Logger, "warn">;
};

/**
 * Gathers in memory that users look, and writes it every few seconds, many users in one statement: receipts come by the
 * thousand, and of a user's only the first of an hour says anything new. What is gathered is lost with the process, and
 * so is what comes while more users than it holds are waiting to be written: of the tenants who have the most of them.
 */
export type Gathering = AsyncDisposable & {
  /** A user looks, now. Costs a look-up. */
  looked(tenantId: string, userId: string): void;
  /** Writes what is gathered. Also when disposed. */
  flush(): Promise<void>;
};

const FLUSH_MS = 5000;
/** Users who wait to be written, and those of whom is remembered that they need not be. */
const MAX_USERS = 20_000;
const USERS_PER_STATEMENT = 250;

export function startGathering(deps: GatherDeps, maxUsers = MAX_USERS): Gathering {
  const { store, clock, invalidations, loadPreferences, clockOf, log } = deps;
  let waiting = waitingUsers(maxUsers);
  /** Until when the hour that a user has been counted in lasts. */
  const counted = new LRUCache<string, number>({ max: maxUsers });
  const keyOf = (tenantId: string, userId: string) => `${tenantId} ${userId}`;

  /** What was looked before a change that forbids it, or after which the user is gone, is not written after it. */
  const forget = (tenantId: string, userId: string) => {
    const key = keyOf(tenantId, userId);
    waiting.delete(tenantId, userId);
    counted.delete(key);
  };
  const subscriptions = [invalidations.on("preferences", forget), invalidations.on("user", forget)];

  async function write(tenantId: string, users: readonly Waiting[]): Promise<void> {
    const known = await loadPreferences(
      tenantId,
      users.map(({ userId }) => userId),
    );
    const seen = users.flatMap(({ userId, at }): (Look & { ends: number })[] => {
      const own = known.get(userId);
      if (!own?.mayLearn) return [];
      const { cell, beginsAt } = localHour(at.getTime(), clockOf(own.timeZone).stretchAt(at.getTime()).offsetMs);
      return [{ userId, cell, hour: new Date(beginsAt), at, ends: beginsAt + HOUR_MS }];
    });
    if (seen.length === 0) return;
    await store.tenant(tenantId, (tx) => countLooks(tx, tenantId, seen));
    for (const { userId, ends } of seen) counted.set(keyOf(tenantId, userId), ends);
  }

  async function flush(): Promise<void> {
    const written = waiting;
    waiting = waitingUsers(maxUsers);
    for (const [tenantId, own] of written.byTenant()) {
      for (let from = 0; from < own.length; from += USERS_PER_STATEMENT) {
        await write(tenantId, own.slice(from, from + USERS_PER_STATEMENT)).catch((err) =>
          log.warn({ err, tenantId }, "could not write when users look; it is lost"),
        );
      }
    }
  }

  let flushing = Promise.resolve();
  const next = () => {
    flushing = flushing.then(flush);
    return flushing;
  };
  const timer = setInterval(() => void next(), FLUSH_MS);
  timer.unref();
  return {
    looked(tenantId, userId) {
      const key = keyOf(tenantId, userId);
      if (waiting.has(tenantId, userId)) return;
      const at = clock();
      if (at.getTime() < (counted.get(key) ?? 0)) return;
      waiting.add(tenantId, { userId, at });
    },
    flush: next,
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      for (const subscription of subscriptions) subscription[Symbol.dispose]();
      await next();
    },
  };
}

const HOUR_MS = 3_600_000;
