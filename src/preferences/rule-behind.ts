import type { MessageInitShape } from "@bufbuild/protobuf";
import type { RuleSchema } from "#gen/posthorn/v1/explain_pb.ts";
import { type Channel, Reason } from "#gen/posthorn/v1/notification_pb.ts";
import {
  PreferenceLevel as Level,
  Digest_Mode as Mode,
  type PreferenceLevel,
} from "#gen/posthorn/v1/preferences_service_pb.ts";
import { CHANNELS } from "./built-in.ts";
import { blocksOf } from "./clock-rules.ts";
import {
  batching,
  channelEnabled,
  digest,
  doNotDisturb,
  hourlyCap,
  type Levels,
  minimumPriority,
  onlyFor,
  quietHours,
  type Resolved,
  receivesAnything,
  type Scope,
  scopeEnabled,
  timing,
  weekendsEnabled,
} from "./merge.ts";
import { isBlocked } from "./next-allowed.ts";
import type { ZoneClock } from "./zone-clock.ts";

/** The part of a rule that stands in preferences. */
export type RuleBehind = Exclude<MessageInitShape<typeof RuleSchema>, { $typeName: string }>;

/** Which objection: for this reason, to this channel, at this instant. */
export type Asked = { reason: Reason; type: string; category: string; channel: Channel; now: Date };

/**
 * Which preference stands behind an objection, whose it is, and what it says. Empty where no preference does. Where several
 * values make a rule, such as the times of quiet hours, the level is that of the switch, or of what is nearest the user. Pure.
 */
export function ruleBehind(
  levels: Levels,
  scope: Scope,
  { reason, channel, now }: Asked,
  clock: () => ZoneClock,
): RuleBehind {
  switch (reason) {
    case Reason.USER_OPTED_OUT:
      return { level: receivesAnything(levels).level };
    case Reason.TYPE_DISABLED:
    case Reason.CATEGORY_DISABLED:
      return { level: scopeEnabled(levels, scope).level };
    case Reason.CHANNEL_DISABLED: {
      const known = CHANNELS[channel as keyof typeof CHANNELS];
      return known === undefined ? {} : { level: channelEnabled(levels, scope, known.field).level };
    }
    case Reason.EMERGENCY_ONLY:
      return { level: onlyFor(levels, scope, "smsEmergencyOnly").level, restricted: true };
    case Reason.DIGEST_ONLY:
      return { level: onlyFor(levels, scope, "emailDigestOnly").level, restricted: true };
    case Reason.BELOW_MINIMUM_PRIORITY: {
      const { level, value } = minimumPriority(levels, scope);
      return { level, minimumPriority: value };
    }
    case Reason.QUIET_HOURS: {
      const { enabled, startTime, endTime } = quietHours(levels);
      const level = nearest(enabled, startTime, endTime);
      return { level, startTime: startTime.value, endTime: endTime.value };
    }
    case Reason.DO_NOT_DISTURB: {
      const { enabled, periods } = doNotDisturb(levels);
      const holding = periods.value.find(
        (period) => !period.inactive && isBlocked(blocksOf(period), clock(), now.getTime()),
      );
      const { dayOfWeek, startTime, endTime } = holding ?? {};
      return {
        level: nearest(enabled, periods),
        ...(dayOfWeek === undefined ? {} : { dayOfWeek }),
        ...(startTime === undefined ? {} : { startTime }),
        ...(endTime === undefined ? {} : { endTime }),
      };
    }
    case Reason.WEEKEND:
      return { level: weekendsEnabled(levels).level };
    case Reason.OPTIMAL_TIMING: {
      const { intelligentTiming, learning, personalisedQuietHours } = timing(levels);
      return { level: nearest(intelligentTiming, learning, personalisedQuietHours) };
    }
    case Reason.DIGEST: {
      const { mode, time, days } = digest(levels, scope);
      const each = { digestTime: time.value, digestDays: [...days.value] };
      const only = onlyFor(levels, scope, "emailDigestOnly");
      // Where each comes by itself, what waits for a digest all the same is what could only come with one.
      if (mode.value !== Mode.IMMEDIATE || !only.value) return { level: mode.level, digestMode: mode.value, ...each };
      return { level: only.level, digestMode: Mode.DAILY, ...each, restricted: true };
    }
    case Reason.BATCHING: {
      const { enabled, maxSize, windowMs } = batching(levels, scope);
      return { level: nearest(enabled, maxSize, windowMs) };
    }
    case Reason.HOURLY_CAP: {
      const { enabled, maxPerHour } = hourlyCap(levels);
      return { level: nearest(enabled, maxPerHour) };
    }
    default:
      return {};
  }
}

/** Levels are numbered from the far to the near. */
function nearest(...values: readonly Resolved<unknown>[]): PreferenceLevel {
  return Math.max(Level.BUILT_IN, ...values.map(({ level }) => level)) as PreferenceLevel;
}
