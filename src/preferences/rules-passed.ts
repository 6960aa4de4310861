import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Exemption, Gate } from "#gen/posthorn/v1/explain_pb.ts";
import { Channel, Priority, Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode as Mode } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { DigestRule } from "#gen/posthorn/v1/type_service_pb.ts";
import type { TypeRules } from "#src/types/type.ts";
import type { OnlyFor } from "./built-in.ts";
import { type Pattern, patternFor } from "./clock-rules.ts";
import { compile } from "./compile.ts";
import {
  batching,
  digest,
  doNotDisturb,
  hourlyCap,
  type Levels,
  onlyFor,
  quietHours,
  weekendsEnabled,
} from "./merge.ts";
import { isBlocked } from "./next-allowed.ts";
import { type RuleBehind, ruleBehind } from "./rule-behind.ts";
import type { ZoneClock } from "./zone-clock.ts";

/** What rules are drawn from; a type that is not there was deleted, or it is a digest, which has none. */
export type Sources = { levels: Levels; type: { rules: TypeRules; optIn: boolean } | undefined };

/** What the rules are asked about. */
export type About = { type: string; category: string; priority: number };

/** What the rule of a gate said that let one pass, to one channel, at one instant. Empty where there is none. */
export type RulesPassed = (gate: Gate, channel: Channel, now: Date) => RuleBehind;

/** The gates whose rules stand in preferences, and by what these know them. */
const KNOWN: ReadonlyMap<Gate, Reason> = new Map([
  [Gate.OPT_OUT, Reason.USER_OPTED_OUT],
  [Gate.TYPE_SWITCH, Reason.TYPE_DISABLED],
  [Gate.CHANNEL_SWITCH, Reason.CHANNEL_DISABLED],
  [Gate.MINIMUM_PRIORITY, Reason.BELOW_MINIMUM_PRIORITY],
  [Gate.QUIET_HOURS, Reason.QUIET_HOURS],
  [Gate.DO_NOT_DISTURB, Reason.DO_NOT_DISTURB],
  [Gate.WEEKEND, Reason.WEEKEND],
  [Gate.DIGEST, Reason.DIGEST],
  [Gate.BATCH, Reason.BATCHING],
  [Gate.HOURLY_CAP, Reason.HOURLY_CAP],
]);

/**
 * Works out what the rules say to what they let pass: the values that were looked at, whose they are, and why one that
 * would have held it did not. Pure.
 */
export function rulesPassed(
  { levels, type: ofType }: Sources,
  { type, category, priority }: About,
  clock: ZoneClock,
): RulesPassed {
  const optIn = ofType?.optIn ?? false;
  // Who has not switched an opt-in type on has passed by a subscription to it.
  const scope = { type, category, optIn, subscribed: optIn };
  const compiled = compile(levels, new Set(optIn ? [type] : []), () => clock);
  const isCritical = priority === Priority.CRITICAL;

  function exemption(rule: Exclude<keyof Pattern, "all">, now: Date): RuleBehind {
    const rules = compiled.clock;
    if (rules === undefined) return {};
    const blocked = (critical: boolean) =>
      isBlocked(patternFor(rules, { critical, senderId: undefined })[rule], rules.clock, now.getTime());
    if (!blocked(false)) return {};
    // What its priority alone would not have let through has its sender to thank.
    return { exemption: isCritical && !blocked(true) ? Exemption.CRITICAL : Exemption.EMERGENCY_CONTACT };
  }

  /** Whether the channel is for such alone. Only what is CRITICAL passes that singly, and only what is not is collected. */
  function restriction(field: OnlyFor, { level: ofChannel = 0, exemption }: RuleBehind): RuleBehind {
    const { level, value } = onlyFor(levels, scope, field);
    if (!value) return { restricted: false };
    const passes = isCritical ? Exemption.CRITICAL : exemption;
    const restricted = { level: level > ofChannel ? level : ofChannel, restricted: true };
    return passes === undefined ? restricted : { ...restricted, exemption: passes };
  }

  return (gate, channel, now) => {
    const reason = KNOWN.get(gate);
    if (reason === undefined) return {};
    const rule = ruleBehind(levels, scope, { reason, type, category, channel, now }, () => clock);
    const { level = 0 } = rule;
    switch (gate) {
      case Gate.QUIET_HOURS: {
        const enabled = quietHours(levels).enabled.value;
        return enabled ? { ...rule, enabled, ...exemption("quietHours", now) } : { level, enabled };
      }
      case Gate.DO_NOT_DISTURB: {
        const { enabled, periods } = doNotDisturb(levels);
        const isOn = enabled.value && periods.value.some((period) => !period.inactive);
        return { level, enabled: isOn, ...exemption("doNotDisturb", now) };
      }
      case Gate.WEEKEND:
        return { level, enabled: !weekendsEnabled(levels).value, ...exemption("weekend", now) };
      case Gate.CHANNEL_SWITCH:
        return channel === Channel.SMS ? { ...rule, ...restriction("smsEmergencyOnly", rule) } : rule;
      case Gate.DIGEST: {
        const { mode, time, days } = digest(levels, scope);
        const own = { level: mode.level, digestMode: mode.value, digestTime: time.value, digestDays: [...days.value] };
        const known = digested(own, ofType?.rules, isCritical);
        return channel === Channel.EMAIL ? { ...known, ...restriction("emailDigestOnly", known) } : known;
      }
      case Gate.BATCH:
        return batched(level, levels, scope, ofType?.rules, isCritical);
      case Gate.HOURLY_CAP:
        return { level, enabled: hourlyCap(levels).enabled.value };
      default:
        return rule;
    }
  };
}

function digested(rule: RuleBehind, ofType: TypeRules | undefined, isCritical: boolean): RuleBehind {
  const byType = { level: rule.level ?? 0, byType: true };
  if (ofType?.digest === DigestRule.NEVER) return { ...byType, digestMode: Mode.IMMEDIATE };
  const always = ofType?.digest === DigestRule.ALWAYS && rule.digestMode === Mode.IMMEDIATE;
  if (!always && rule.digestMode === Mode.IMMEDIATE) return { level: rule.level ?? 0, digestMode: Mode.IMMEDIATE };
  return {
    ...rule,
    ...(always ? { ...byType, digestMode: Mode.DAILY } : {}),
    ...(isCritical ? { exemption: Exemption.CRITICAL } : {}),
  };
}

function batched(
  level: NonNullable<RuleBehind["level"]>,
  levels: Levels,
  scope: Parameters<typeof batching>[1],
  ofType: TypeRules | undefined,
  isCritical: boolean,
): RuleBehind {
  const own = batching(levels, scope);
  const rule = ofType?.batching;
  if (rule === undefined) return { byType: true, enabled: false };
  if (!own.enabled.value) return { level, enabled: false };
  return {
    ...{ level, byType: true, enabled: true },
    maxSize: rule.maxSize === 0 ? own.maxSize.value : Math.min(rule.maxSize, own.maxSize.value),
    window: durationFromMs(Math.min(rule.windowMs ?? own.windowMs.value, own.windowMs.value)),
    ...(isCritical ? { exemption: Exemption.CRITICAL } : {}),
  };
}
