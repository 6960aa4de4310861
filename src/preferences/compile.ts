import { type Channel, Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { type Digest_Mode, PreferenceLevel as Level } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { LIMITED_CHANNELS } from "#src/limits/channel-day.ts";
import type { Wishes } from "#src/subscriptions/rules.ts";
import { isTimeZone } from "#src/users/time-zone.ts";
import { BUILT_IN, CHANNELS, ONLY_FOR, type OnlyFor } from "./built-in.ts";
import { type ClockRules, clockRules } from "./clock-rules.ts";
import type { RulesVersion } from "./fence.ts";
import {
  batching,
  channelEnabled,
  channelPerDay,
  delivery,
  digest,
  doNotDisturb,
  emergencyContacts,
  entry,
  grouping,
  hourlyCap,
  type Levels,
  language,
  minimumPriority,
  onlyFor,
  quietHours,
  receivesAnything,
  type Scope,
  scopeEnabled,
  timeZone,
  timing,
  weekendsEnabled,
} from "./merge.ts";
import { type Asked, type RuleBehind, ruleBehind } from "./rule-behind.ts";
import type { ZoneClock } from "./zone-clock.ts";

/** What the gates ask of a user's preferences, worked out once and then only looked up. */
export type CompiledPreferences = {
  readonly language: string;
  /** A zone that this runtime knows. */
  readonly timeZone: string;
  /** What all this was drawn from; undefined where nobody will ask whether it still holds. */
  readonly version: RulesVersion | undefined;
  /** What people know these versions by. */
  readonly revisions: Revisions;
  /** The user wants nothing at all. */
  readonly optedOut: boolean;
  /** When things wait; undefined: never. */
  readonly clock: ClockRules | undefined;
  /** When digests come, for those scopes that have one. */
  readonly digest: DigestTimes;
  /** Undefined: nothing waits for a good hour, because that is not wanted, or may not be learnt. */
  readonly timing:
    | {
        readonly clock: () => ZoneClock;
        /** What its type lets wait for one does. */
        readonly asTypesSay: boolean;
        /** Hours in which the user hardly ever looks are quiet ones. */
        readonly quietAsLearnt: boolean;
      }
    | undefined;
  /** When the user looks may be learnt. */
  readonly mayLearn: boolean;
  /** How many come in an hour; undefined: any number. */
  readonly maxPerHour: number | undefined;
  /** How many the user, or the tenant for them, wants of each outside channel in a day; of the others any number. */
  readonly channelsPerDay: ReadonlyMap<Channel, number>;
  /** Where things come besides the inbox, and what is tried when what is CRITICAL has to be confirmed and is not. */
  readonly delivery: {
    readonly method: Channel;
    readonly fallbacks: readonly Channel[];
    readonly confirmationRequired: boolean;
  };
  /** How entries form groups in the inbox; undefined: not at all. */
  readonly grouping: { readonly maxSize: number; readonly windowMs: number } | undefined;
  /** What the user is subscribed to; undefined: nothing. */
  readonly wishes: Wishes | undefined;
  /** What holds for a type. The first question about a type works it out, later ones cost a look-up. */
  scope(type: string, category: string): ScopeRules;
  /** The rule that objected; worked out when it is asked for. */
  ruleBehind(asked: Asked): RuleBehind;
};

/** How often the user's preferences and the tenant's defaults were changed; 0: nothing was ever set. */
export type Revisions = { readonly user: number; readonly tenant: number };

export type ScopeRules = {
  /** The switch that is off, if one is. */
  readonly off: typeof Reason.TYPE_DISABLED | typeof Reason.CATEGORY_DISABLED | undefined;
  readonly minimumPriority: number;
  /** Bit n is set when channel n is switched off. */
  readonly channelsOff: number;
  /** Bit n is set when channel n is for what is CRITICAL alone. */
  readonly criticalOnly: number;
  /** Bit n is set when channel n is for what has come together alone. */
  readonly digestOnly: number;
  /** How several become one; undefined: never. */
  readonly batching: { readonly maxSize: number; readonly windowMs: number } | undefined;
  readonly digestMode: Digest_Mode;
};

export type DigestTimes = { readonly time: string; readonly days: readonly number[]; readonly clock: () => ZoneClock };

/** Types remembered per user. A tenant sends a few dozen; beyond this they are worked out again. */
const MAX_SCOPES = 256;

export function compile(
  levels: Levels,
  optInTypes: ReadonlySet<string>,
  clockOf: (zone: string) => ZoneClock,
  { version, revisions = { user: 0, tenant: 0 }, wishes }: Beside = {},
): CompiledPreferences {
  const zone = timeZone(levels).value;
  // A newer server may have stored a zone that this one's tz database does not know yet.
  const knownZone = isTimeZone(zone) ? zone : BUILT_IN.timeZone;
  const quiet = quietHours(levels);
  const disturb = doNotDisturb(levels);
  const contacts = emergencyContacts(levels);
  const settings = {
    quietHours: {
      enabled: quiet.enabled.value,
      startTime: quiet.startTime.value,
      endTime: quiet.endTime.value,
      allowCritical: quiet.allowCritical.value,
    },
    doNotDisturb: { enabled: disturb.enabled.value, periods: disturb.periods.value },
    emergencyContacts: { enabled: contacts.enabled.value, userIds: contacts.userIds.value },
    weekendsEnabled: weekendsEnabled(levels).value,
  };
  const groups = grouping(levels);
  const cap = hourlyCap(levels);
  const { learning, intelligentTiming, personalisedQuietHours } = timing(levels);
  const mayLearn = learning.value;
  const asTypesSay = intelligentTiming.value;
  const quietAsLearnt = personalisedQuietHours.value;
  const delivers = delivery(levels);
  const general = scopeRules(levels, undefined);
  const { time, days } = digest(levels, undefined);
  const scopes = new Map<string, ScopeRules>();
  return {
    language: language(levels).value,
    timeZone: knownZone,
    version,
    revisions,
    optedOut: !receivesAnything(levels).value,
    clock: clockRules(settings, () => clockOf(knownZone)),
    digest: { time: time.value, days: days.value, clock: () => clockOf(knownZone) },
    timing:
      mayLearn && (asTypesSay || quietAsLearnt)
        ? { clock: () => clockOf(knownZone), asTypesSay, quietAsLearnt }
        : undefined,
    mayLearn,
    maxPerHour: cap.enabled.value ? cap.maxPerHour.value : undefined,
    channelsPerDay: limitsOf(levels),
    delivery: {
      method: delivers.method.value,
      fallbacks: delivers.fallbacks.value,
      confirmationRequired: delivers.confirmationRequired.value,
    },
    grouping: groups.enabled.value ? { maxSize: groups.maxSize.value, windowMs: groups.windowMs.value } : undefined,
    wishes,
    scope(type, category) {
      const optIn = optInTypes.has(type);
      if (!optIn && !isMentioned(levels, type, category)) return general;
      const key = `${type} ${category}`;
      const known = scopes.get(key);
      if (known !== undefined) return known;
      if (scopes.size >= MAX_SCOPES) scopes.clear();
      const rules = scopeRules(levels, { type, category, optIn, subscribed: wishes?.toType(type) ?? false });
      scopes.set(key, rules);
      return rules;
    },
    ruleBehind(asked) {
      const { type, category } = asked;
      const scope = { type, category, optIn: optInTypes.has(type), subscribed: wishes?.toType(type) ?? false };
      return ruleBehind(levels, scope, asked, () => clockOf(knownZone));
    },
  };
}

/** What is known of the levels besides what they say. */
type Beside = { version?: RulesVersion | undefined; revisions?: Revisions; wishes?: Wishes | undefined };

function isMentioned({ tenant, user }: Levels, type: string, category: string): boolean {
  return [user, tenant].some(
    (set) => set !== undefined && (entry(set.types, type) ?? entry(set.categories, category)) !== undefined,
  );
}

function scopeRules(levels: Levels, scope: Scope | undefined): ScopeRules {
  let channelsOff = 0;
  for (const [channel, { field }] of Object.entries(CHANNELS)) {
    if (!channelEnabled(levels, scope, field).value) channelsOff |= 1 << Number(channel);
  }
  const { enabled, maxSize, windowMs } = batching(levels, scope);
  return {
    off: scope && offReason(levels, scope),
    minimumPriority: minimumPriority(levels, scope).value,
    channelsOff,
    criticalOnly: bitIf(levels, scope, "smsEmergencyOnly"),
    digestOnly: bitIf(levels, scope, "emailDigestOnly"),
    batching: enabled.value ? { maxSize: maxSize.value, windowMs: windowMs.value } : undefined,
    digestMode: digest(levels, scope).mode.value,
  };
}

/** Nothing for most, who have set none. */
function limitsOf(levels: Levels): ReadonlyMap<Channel, number> {
  if (levels.user?.channelLimits === undefined && levels.tenant?.channelLimits === undefined) return UNLIMITED;
  return new Map(
    [...LIMITED_CHANNELS].flatMap(([channel, name]) => {
      const { value } = channelPerDay(levels, name, 0);
      return value === 0 ? [] : [[channel, value] as const];
    }),
  );
}

const UNLIMITED: ReadonlyMap<Channel, number> = new Map();

function bitIf(levels: Levels, scope: Scope | undefined, field: OnlyFor): number {
  return onlyFor(levels, scope, field).value ? 1 << ONLY_FOR[field].channel : 0;
}

function offReason(levels: Levels, scope: Scope): ScopeRules["off"] {
  const { value, level } = scopeEnabled(levels, scope);
  if (value) return undefined;
  return level === Level.CATEGORY ? Reason.CATEGORY_DISABLED : Reason.TYPE_DISABLED;
}
