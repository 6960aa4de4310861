import type { Clock } from "#src/clock.ts";
import type { Store } from "#src/store/store.ts";
import { type RevocationRow, revocationsSince } from "./lookups.ts";

/**
 * Follows what is revoked. Ten thousand users with open streams would otherwise be asked about every second, each of them,
 * though hardly anybody is ever revoked; what was revoked lately is one small question.
 */
export type RecentRevocations = Disposable & {
  /** Every revocation of the last `REMEMBERED_MS` has been told of, or is not older than one round. */
  isFollowing(): boolean;
};

export type RecentRevocationsDeps = {
  store: Pick<Store, "system">;
  clock: Clock;
  /** Milliseconds that never step back. */
  ticks: () => number;
  /** How late a revocation may be told: a round takes half of it. */
  withinMs: number;
  /** Told of each, more than once. */
  revoked(revocation: RevocationRow): void;
};

/**
 * Revocations are looked for this far back: further than any transaction is open and clocks of processes are apart, so
 * that none is passed over; what was read before and within it stays true for half of it.
 */
const LOOK_BACK_MS = 120_000;
/** How long a copy read while following stays good. */
export const FOLLOWED_MS = 60_000;

export function followRevocations(deps: RecentRevocationsDeps): RecentRevocations {
  const { store, clock, ticks, withinMs, revoked } = deps;
  let asking = false;
  let askedAt = Number.NEGATIVE_INFINITY;

  const ask = async () => {
    if (asking) return;
    asking = true;
    const began = ticks();
    try {
      const since = new Date(clock().getTime() - LOOK_BACK_MS);
      for (const row of await store.system((tx) => revocationsSince(tx, since))) revoked(row);
      askedAt = began;
    } catch {
      // Then users are asked about one by one, which says what is wrong.
    } finally {
      asking = false;
    }
  };

  const timer = setInterval(() => void ask(), Math.max(withinMs / 2, 1));
  timer.unref();
  return {
    isFollowing: () => ticks() - askedAt < withinMs,
    [Symbol.dispose]: () => clearInterval(timer),
  };
}
