import { type Channel, Priority, Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode as Mode } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { DigestRule } from "#gen/posthorn/v1/type_service_pb.ts";
import { type BatchPlan, digestPlan, isTooLateFor } from "#src/batches/plan.ts";
import { isReminder } from "#src/notifications/own-tags.ts";
import { patternFor } from "#src/preferences/clock-rules.ts";
import type { CompiledPreferences, ScopeRules } from "#src/preferences/compile.ts";
import { batch } from "./batch.ts";
import { firstAllowed } from "./clock.ts";
import { type ChannelGate, type Facts, suppress } from "./gate.ts";

/**
 * The user wants it together with others at set times; CRITICAL passes, and a reminder that would come too late. Or they
 * want this channel for what has come together alone, and it goes singly.
 */
export const digest: ChannelGate = (facts, channel, now) => {
  const { type, category, priority, collected } = facts.notification;
  if (priority === Priority.CRITICAL) return undefined;
  const scope = facts.preferences.scope(type, category);
  const plan = planOf(facts, scope, now);
  if (plan !== undefined) return { kind: "batch", reason: Reason.DIGEST, plan };
  if ((scope.digestOnly & (1 << channel)) === 0 || collected || batch(facts, now) !== undefined) return undefined;
  return suppress(Reason.DIGEST_ONLY);
};

function planOf({ notification, preferences }: Facts, scope: ScopeRules, now: Date): BatchPlan | undefined {
  const { channels, rules, batchedAlready, tags, expiresAt, senderId, batchedSince: since } = notification;
  if (batchedAlready) return undefined;
  const rule = rules?.digest ?? DigestRule.UNSPECIFIED;
  const plan = digestPlan(
    { channels, since },
    rule,
    modeFor(channels, scope),
    preferences.digest,
    now,
    allowing(preferences, senderId),
  );
  return plan !== undefined && isReminder(tags) && isTooLateFor(plan, expiresAt, now) ? undefined : plan;
}

/** A digest that is due while the clock allows nothing comes as soon as it does. */
function allowing({ clock }: CompiledPreferences, senderId: string | undefined): (from: Date) => Date {
  if (clock === undefined) return (from) => from;
  const { all } = patternFor(clock, { critical: false, senderId });
  return (from) => firstAllowed(all, clock, from);
}

/** What could come singly by none of its channels waits for a digest, whatever the user does with the rest. */
function modeFor(channels: readonly Channel[], { digestMode, digestOnly, channelsOff }: ScopeRules): Mode {
  if (digestOnly === 0 || digestMode !== Mode.IMMEDIATE) return digestMode;
  const singly = channels.some((channel) => ((digestOnly | channelsOff) & (1 << channel)) === 0);
  return singly ? digestMode : Mode.DAILY;
}
