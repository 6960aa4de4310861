import { Priority, type Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { type Blocks, type ClockRules, type Pattern, patternFor } from "#src/preferences/clock-rules.ts";
import { isBlocked, nextAllowed } from "#src/preferences/next-allowed.ts";
import type { Gate } from "./gate.ts";

const DAY_MS = 86_400_000;

/**
 * A gate that holds while `rule` does, until the first instant at which no clock rule holds: the end of the quiet hours
 * is no use if the weekend begins with it. Where the rules leave no such instant in any week, the question is asked
 * again after a day, because the user may change them.
 */
export function clockGate(rule: Exclude<keyof Pattern, "all">, reason: Reason): Gate {
  return ({ notification, preferences: { clock: rules } }, now) => {
    if (rules === undefined) return undefined;
    const { priority, senderId } = notification;
    const pattern = patternFor(rules, { critical: priority === Priority.CRITICAL, senderId });
    const nowMs = now.getTime();
    if (!isBlocked(pattern[rule], rules.clock, nowMs)) return undefined;
    return { kind: "hold", reason, until: firstAllowed(pattern.all, rules, now) };
  };
}

/** The first instant, not before `from`, at which none of the blocks holds; where they fill the week, a day later. Pure. */
export function firstAllowed(blocks: Blocks, { clock }: Pick<ClockRules, "clock">, from: Date): Date {
  const fromMs = from.getTime();
  return new Date(nextAllowed(blocks, clock, fromMs) ?? fromMs + DAY_MS);
}
