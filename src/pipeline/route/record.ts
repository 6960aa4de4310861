import { create, toBinary } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { DecisionRecordSchema } from "#gen/posthorn/internal/v1/decision_pb.ts";
import { Gate } from "#gen/posthorn/v1/explain_pb.ts";
import { Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode as Mode } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { DigestRule } from "#gen/posthorn/v1/type_service_pb.ts";
import { goodHoursLike, localHour } from "#src/learning/looks.ts";
import type { Passed, Reservation } from "#src/limits/reservation.ts";
import { gateOf } from "#src/notifications/gate-of.ts";
import type { RuleBehind } from "#src/preferences/rule-behind.ts";
import type { ChannelVerdict, Facts } from "./gates/decide.ts";
import { betterMoment } from "./gates/optimal-timing.ts";

/**
 * Encodes what is kept of a decision besides its verdicts and a refusal of the limits, for who asks later why:
 * posthorn.internal.v1.DecisionRecord.
 */
export type Recorded = (verdicts: readonly ChannelVerdict[], reservation?: Reservation) => Uint8Array;

/**
 * Makes the records of what is decided together. Where no gate objects, which is the usual, they hold only which rules were
 * asked and how near a limit it was, some twenty bytes that many share: they are encoded once. `typeRevision`: 0 where there is no type. Pure.
 */
export function recording(now: Date): (facts: Facts, typeRevision: number) => Recorded {
  const plain = new Map<string, Uint8Array>();
  return (facts, typeRevision) => (verdicts, reservation) => {
    const { revisions, timeZone } = facts.preferences;
    const drawn = {
      preferences: revisions.user,
      defaultPreferences: revisions.tenant,
      type: typeRevision,
      timeZone: timeZone === "UTC" ? "" : timeZone,
    };
    const { nearest = undefined, cap = undefined } = reservation?.allowed ? reservation : {};
    const passed = {
      ...(nearest && { passedLimit: statusOf(nearest) }),
      ...(cap && { passedCap: { ...statusOf(cap), maxPerHour: cap.perHour } }),
      passedSubscriptions: passedFilters(facts, verdicts),
    };
    if (verdicts.some(({ kind }) => kind !== "deliver")) {
      const rules = verdicts.map((verdict) => ruleOf(verdict, facts, now));
      return toBinary(DecisionRecordSchema, create(DecisionRecordSchema, { drawn, rules, ...passed }));
    }
    const key = [
      ...[drawn.preferences, drawn.defaultPreferences, typeRevision, drawn.timeZone],
      ...[nearest?.reason, nearest?.usage, cap?.usage, cap?.limit, cap?.perHour],
      ...passed.passedSubscriptions,
    ].join(" ");
    const known = plain.get(key) ?? toBinary(DecisionRecordSchema, create(DecisionRecordSchema, { drawn, ...passed }));
    plain.set(key, known);
    return known;
  };
}

/** The subscriptions that let it through. They were asked if anything behind them was. */
function passedFilters({ judged }: Facts, verdicts: readonly ChannelVerdict[]): string[] {
  if (judged === undefined) return [];
  const wereAsked = verdicts.some((each) => each.kind === "deliver" || (gateOf(each.reason) ?? 0) > Gate.SUBSCRIPTIONS);
  return wereAsked ? [...(judged()?.ids ?? [])] : [];
}

function statusOf({ reason, usage, limit }: Passed) {
  return { window: reason, usage, limit };
}

/** What stands behind a verdict: what the user wishes, and what the type adds to it. */
function ruleOf(verdict: ChannelVerdict, facts: Facts, now: Date): RuleBehind {
  if (verdict.kind === "deliver") return {};
  const { notification, preferences, judged } = facts;
  if (verdict.reason === Reason.FILTERED) return { subscriptionIds: [...(judged?.()?.ids ?? [])] };
  const { channel, reason } = verdict;
  const { type, category, rules } = notification;
  const wished = preferences.ruleBehind({ reason, type, category, channel, now });
  if (verdict.kind === "hold" && reason === Reason.OPTIMAL_TIMING) {
    const wait = betterMoment(facts, now)?.wait;
    if (wait === undefined) return wished;
    const until = verdict.until.getTime();
    const { cell } = localHour(until, preferences.timing?.clock().stretchAt(until).offsetMs ?? 0);
    const { byType, hours, maxMs } = wait;
    return { ...wished, byType, goodHours: goodHoursLike(hours, cell), maxWait: durationFromMs(maxMs) };
  }
  if (verdict.kind !== "batch") return wished;
  const { maxSize, flushAt } = verdict.plan;
  if (reason === Reason.BATCHING)
    return { ...wished, byType: true, maxSize, window: durationFromMs(flushAt.getTime() - now.getTime()) };
  const always = rules?.digest === DigestRule.ALWAYS && wished.digestMode === Mode.IMMEDIATE;
  return always ? { ...wished, byType: true, digestMode: Mode.DAILY, maxSize } : { ...wished, maxSize };
}
