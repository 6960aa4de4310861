import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import {
  ChannelPreferencesSchema,
  DoNotDisturbPeriodSchema,
  PreferenceLevel as Level,
  type PreferenceLevel,
  type Preferences,
  PreferencesSchema,
} from "#gen/posthorn/v1/preferences_service_pb.ts";
import { toOffsets } from "#src/deadlines/offsets.ts";
import { type ChannelsPerDay, type LimitedChannel, NO_LIMITS } from "#src/limits/channel-day.ts";
import { BUILT_IN, CHANNELS, ONLY_FOR, type OnlyFor } from "./built-in.ts";
import {
  batching,
  channelEnabled,
  channelPerDay,
  delivery,
  digest,
  doNotDisturb,
  emergencyContacts,
  grouping,
  hourlyCap,
  type Levels,
  language,
  minimumPriority,
  onlyFor,
  quietHours,
  type Resolved,
  receivesAnything,
  reminderOffsets,
  type Scope,
  scopeEnabled,
  timeZone,
  timing,
  weekendsEnabled,
} from "./merge.ts";

/** The values in force, every field set, and the level of each by its path. */
export type Effective = { preferences: Preferences; origins: Record<string, PreferenceLevel> };

/** What a type says about its reminders, in ms; null: nothing. */
type TypeScope = Scope & { reminderOffsetsMs?: readonly number[] | null };

/** All values in force for a user; with a scope, as they are for that type. `channelsPerDay`: what the server allows. */
export function effective(
  levels: Levels,
  scope: TypeScope | undefined,
  channelsPerDay: ChannelsPerDay = NO_LIMITS,
): Effective {
  const origins: Record<string, PreferenceLevel> = {};
  const note = <T>(path: string, { value, level }: Resolved<T>): T => {
    origins[path] = level;
    return value;
  };
  const quiet = quietHours(levels);
  const disturb = doNotDisturb(levels);
  const contacts = emergencyContacts(levels);
  const batch = batching(levels, scope);
  const digested = digest(levels, scope);
  const groups = grouping(levels);
  const consent = timing(levels);
  const cap = hourlyCap(levels);
  const delivers = delivery(levels);
  const channels = create(ChannelPreferencesSchema);
  for (const { field, path } of Object.values(CHANNELS)) {
    channels[field] = note(path, channelEnabled(levels, scope, field));
  }
  for (const [field, { path }] of Object.entries(ONLY_FOR) as [OnlyFor, { path: string }][]) {
    channels[field] = note(path, onlyFor(levels, scope, field));
  }
  const perDay = (name: LimitedChannel) =>
    note(`channel_limits.${name}_per_day`, channelPerDay(levels, name, channelsPerDay[name]));
  const ofType = (key: string, { reminderOffsetsMs = null, ...rest }: TypeScope) => {
    const offsets = reminderOffsets(levels, rest, reminderOffsetsMs);
    return { [key]: { reminderOffsets: toOffsets(note(`types.${key}.reminder_offsets`, offsets)) } };
  };
  const preferences = create(PreferencesSchema, {
    types: scope === undefined ? {} : ofType(scope.type, scope),
    enabled: note("enabled", enabledFor(levels, scope)),
    channels,
    minimumPriority: note("minimum_priority", minimumPriority(levels, scope)),
    quietHours: {
      enabled: note("quiet_hours.enabled", quiet.enabled),
      startTime: note("quiet_hours.start_time", quiet.startTime),
      endTime: note("quiet_hours.end_time", quiet.endTime),
      allowCritical: note("quiet_hours.allow_critical", quiet.allowCritical),
    },
    weekendsEnabled: note("weekends_enabled", weekendsEnabled(levels)),
    doNotDisturb: {
      enabled: note("do_not_disturb.enabled", disturb.enabled),
      periods: note("do_not_disturb.periods", disturb.periods).map((period) =>
        create(DoNotDisturbPeriodSchema, { allowCritical: BUILT_IN.doNotDisturb.allowCritical, ...period }),
      ),
    },
    emergencyContacts: {
      enabled: note("emergency_contacts.enabled", contacts.enabled),
      userIds: [...note("emergency_contacts.user_ids", contacts.userIds)],
    },
    language: note("language", language(levels)),
    timeZone: note("time_zone", timeZone(levels)),
    batching: {
      enabled: note("batching.enabled", batch.enabled),
      maxSize: note("batching.max_size", batch.maxSize),
      window: durationFromMs(note("batching.window", batch.windowMs)),
    },
    hourlyCap: {
      enabled: note("hourly_cap.enabled", cap.enabled),
      maxPerHour: note("hourly_cap.max_per_hour", cap.maxPerHour),
    },
    channelLimits: {
      emailPerDay: perDay("email"),
      smsPerDay: perDay("sms"),
      pushPerDay: perDay("push"),
      webhookPerDay: perDay("webhook"),
      chatPerDay: perDay("chat"),
    },
    digest: {
      mode: note("digest.mode", digested.mode),
      time: note("digest.time", digested.time),
      days: [...note("digest.days", digested.days)],
    },
    grouping: {
      enabled: note("grouping.enabled", groups.enabled),
      maxSize: note("grouping.max_size", groups.maxSize),
      window: durationFromMs(note("grouping.window", groups.windowMs)),
    },
    timing: {
      intelligentTiming: note("timing.intelligent_timing", consent.intelligentTiming),
      learning: note("timing.learning", consent.learning),
      personalisedQuietHours: note("timing.personalised_quiet_hours", consent.personalisedQuietHours),
    },
    delivery: {
      method: note("delivery.method", delivers.method),
      fallbacks: [...note("delivery.fallbacks", delivers.fallbacks)],
      confirmationRequired: note("delivery.confirmation_required", delivers.confirmationRequired),
    },
  });
  return { preferences, origins };
}

/** An off of the user as a whole stands above what categories and types say. */
function enabledFor(levels: Levels, scope: Scope | undefined): Resolved<boolean> {
  const anything = receivesAnything(levels);
  if (scope === undefined || !anything.value) return anything;
  const own = scopeEnabled(levels, scope);
  return own.value && own.level === Level.BUILT_IN ? anything : own;
}
