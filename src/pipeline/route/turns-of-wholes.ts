import type { Given } from "#src/limits/hold.ts";
import type { Reservation } from "#src/limits/notification-limits.ts";
import { channelsFor } from "#src/notifications/channel-bits.ts";
import type { CompiledPreferences } from "#src/preferences/compile.ts";
import { type NotificationTypeRow, rulesOf } from "#src/types/type.ts";
import { laneOf } from "../flow.ts";
import { capOf, rankOf } from "./cap.ts";
import type { Facts } from "./gates/decide.ts";
import type { Becoming } from "./held-by.ts";
import type { RouteDeps } from "./route.ts";

/** A batch that would close, and what it would become. */
export type Whole = {
  batchId: string;
  userId: string;
  becoming: Becoming & { tags: readonly string[] };
  preferences: CompiledPreferences;
  /** Of a batch; a digest has none. */
  type: NotificationTypeRow | undefined;
  /** Where the hourly cap has no room for it, its members may go into a digest. */
  mayBeDigested: boolean;
  /** How often it had to wait. */
  attempts: number;
  /** The turn that it was given then. */
  slot: Given | undefined;
};

/**
 * Finds the notifications that batches would become their turns under the limits, before they become them, or has the
 * hourly cap send them into the digest: for those that pass both there is nothing to ask, they are counted when they are
 * decided. Idempotent by batch and attempt.
 */
export function turnsOfWholes(reserve: RouteDeps["reserve"]) {
  return async (tenantId: string, wholes: readonly Whole[], now: Date): Promise<ReadonlyMap<string, Reservation>> => {
    const asking = wholes.flatMap((whole) => {
      const { becoming } = whole;
      if (laneOf(becoming.priority).name === "critical") return [];
      const facts = factsOf(whole);
      const cap = capOf(facts, now);
      return becoming.bypassLimits && cap === undefined ? [] : [{ whole, cap, rank: rankOf(facts) }];
    });
    if (asking.length === 0) return new Map();
    asking.sort((a, b) => b.rank - a.rank);
    const answers = await reserve(
      tenantId,
      asking.map(({ whole: { batchId, userId, attempts, becoming, slot }, cap }) => ({
        ...{ id: batchId, userId, attempt: attempts, exempt: becoming.bypassLimits, cap, slot },
        expiresAtMs: becoming.expiresAt?.getTime(),
      })),
      now,
    );
    return new Map(
      asking.flatMap(({ whole }, index) => {
        const answer = answers[index];
        return answer === undefined ? [] : [[whole.batchId, answer] as const];
      }),
    );
  };
}

/** As the route will see it, but that it would join a digest if it may. */
function factsOf({ becoming, preferences, type, mayBeDigested }: Whole): Facts {
  const { channels, senderId, expiresAt, ...rest } = becoming;
  const rules = type && rulesOf(type);
  return {
    notification: {
      ...rest,
      channels: channelsFor(channels, preferences),
      senderId: senderId ?? undefined,
      expiresAt: expiresAt ?? undefined,
      rules,
      ...{ isWhole: true, batchedAlready: !mayBeDigested || rules?.escalation !== undefined },
    },
    preferences,
  };
}
