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
  /** How often it had to wait. */
  attempts: number;
  /** The turn that it was given then. */
  slot: Given | undefined;
};

/**
 * Finds the notifications that batches would become their turns under the limits, before they become them: for those that
 * pass all limits there is nothing to ask, they are counted when they are decided. Idempotent by batch and attempt.
 */
export function turnsOfWholes(reserve: RouteDeps["reserve"]) {
  return async (tenantId: string, wholes: readonly Whole[], now: Date): Promise<ReadonlyMap<string, Reservation>> => {
    const asking = wholes.flatMap((whole) => {
      const { becoming } = whole;
      if (becoming.bypassLimits || laneOf(becoming.priority).name === "critical") return [];
      const facts = factsOf(whole);
      return [{ whole, cap: capOf(facts, now), rank: rankOf(facts) }];
    });
    if (asking.length === 0) return new Map();
    asking.sort((a, b) => b.rank - a.rank);
    const answers = await reserve(
      tenantId,
      asking.map(({ whole: { batchId, userId, attempts, becoming, slot }, cap }) => ({
        ...{ id: batchId, userId, attempt: attempts, exempt: false, cap, slot },
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

/** As the route will see it. */
function factsOf({ becoming, preferences, type }: Whole): Facts {
  const { channels, senderId, expiresAt, ...rest } = becoming;
  return {
    notification: {
      ...rest,
      channels: channelsFor(channels, preferences),
      senderId: senderId ?? undefined,
      expiresAt: expiresAt ?? undefined,
      rules: type && rulesOf(type),
      ...{ isWhole: true, batchedAlready: true },
    },
    preferences,
  };
}
