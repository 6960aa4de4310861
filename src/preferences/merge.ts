import { durationMs } from "@bufbuild/protobuf/wkt";
import type { Channel, Priority } from "#gen/posthorn/v1/notification_pb.ts";
import {
  type Batching,
  type Digest_Mode,
  type DoNotDisturbPeriod,
  PreferenceLevel as Level,
  type PreferenceLevel,
  type Preferences,
  type ScopePreferences,
} from "#gen/posthorn/v1/preferences_service_pb.ts";
import { offsetsOf } from "#src/deadlines/offsets.ts";
import type { LimitedChannel } from "#src/limits/channel-day.ts";
import { BUILT_IN, type OnlyFor, type Switch } from "./built-in.ts";

/** Everything a user's values are drawn from. Absent: nothing set there. */
export type Levels = {
  tenant: Preferences | undefined;
  /** Empty: not known. */
  profile: { language: string; timeZone: string };
  user: Preferences | undefined;
};

/** Which category and type a value is asked for, and whether the user is subscribed to the type. */
export type Scope = { type: string; category: string; optIn: boolean; subscribed?: boolean };

/** A value in force and the level that set it. */
export type Resolved<T> = { value: T; level: PreferenceLevel };

/** One place a value may be set. */
type Step<T> = { level: PreferenceLevel; byUser: boolean; value: T | undefined };

/**
 * The last step that has a value wins: built-in, tenant, profile, user, category, type, and within category and type the
 * user after the tenant. But a tenant's value for a category or type never lifts what the user has restricted, nor
 * switches an opt-in type on: the last word is the user's.
 */
function resolve<T>(start: Resolved<T> & { kept?: boolean }, steps: readonly Step<T>[], lifts: Lifts<T>): Resolved<T> {
  let { value, level, kept = false } = start;
  for (const step of steps) {
    if (step.value === undefined) continue;
    if (kept && !step.byUser && lifts(value, step.value)) continue;
    value = step.value;
    level = step.level;
    kept = step.byUser;
  }
  return { value, level };
}

type Lifts<T> = (from: T, to: T) => boolean;
const switchesOn: Lifts<boolean> = (from, to) => !from && to;
const switchesOff: Lifts<boolean> = (from, to) => from && !to;
const lowers: Lifts<Priority> = (from, to) => to < from;
const never = () => false;
const always = () => true;

/** A value that only the tenant and the user can set. */
function general<T>(levels: Levels, builtIn: T, read: (preferences: Preferences) => T | undefined): Resolved<T> {
  return resolve({ value: builtIn, level: Level.BUILT_IN }, generalSteps(levels, read), never);
}

function generalSteps<T>(levels: Levels, read: (preferences: Preferences) => T | undefined): Step<T>[] {
  const { tenant, user } = levels;
  return [
    { level: Level.TENANT, byUser: false, value: tenant && read(tenant) },
    { level: Level.USER, byUser: true, value: user && read(user) },
  ];
}

function scopeSteps<T>(
  { tenant, user }: Levels,
  { category, type }: Scope,
  read: (preferences: ScopePreferences) => T | undefined,
): Step<T>[] {
  const step = (level: PreferenceLevel, byUser: boolean, scope: ScopePreferences | undefined): Step<T> => ({
    level,
    byUser,
    value: scope && read(scope),
  });
  return [
    step(Level.CATEGORY, false, entry(tenant?.categories, category)),
    step(Level.CATEGORY, true, entry(user?.categories, category)),
    step(Level.TYPE, false, entry(tenant?.types, type)),
    step(Level.TYPE, true, entry(user?.types, type)),
  ];
}

/** A type may be called "constructor". */
export function entry<T>(entries: { readonly [key: string]: T } | undefined, key: string): T | undefined {
  return entries !== undefined && Object.hasOwn(entries, key) ? entries[key] : undefined;
}

/** Whether the user receives anything at all. No category or type overrides an off. */
export function receivesAnything(levels: Levels): Resolved<boolean> {
  return general(levels, BUILT_IN.enabled, (preferences) => preferences.enabled);
}

/**
 * Whether the category's and type's own switches let it through; an opt-in type is off until the user says otherwise, by a
 * switch or a subscription.
 */
export function scopeEnabled(levels: Levels, scope: Scope): Resolved<boolean> {
  const wished = scope.optIn && scope.subscribed === true;
  const level = wished ? Level.TYPE : Level.BUILT_IN;
  const start = { value: !scope.optIn || wished, level, kept: scope.optIn };
  return resolve(
    start,
    scopeSteps(levels, scope, (preferences) => preferences.enabled),
    switchesOn,
  );
}

export function channelEnabled(levels: Levels, scope: Scope | undefined, field: Switch): Resolved<boolean> {
  const read = ({ channels }: { channels?: Preferences["channels"] }) => channels?.[field];
  const steps = [...generalSteps(levels, read), ...(scope ? scopeSteps(levels, scope, read) : [])];
  return resolve({ value: BUILT_IN.channel, level: Level.BUILT_IN }, steps, switchesOn);
}

/** Whether a channel is for what is CRITICAL, or for digests, alone. */
export function onlyFor(levels: Levels, scope: Scope | undefined, field: OnlyFor): Resolved<boolean> {
  const read = ({ channels }: { channels?: Preferences["channels"] }) => channels?.[field];
  const steps = [...generalSteps(levels, read), ...(scope ? scopeSteps(levels, scope, read) : [])];
  return resolve<boolean>({ value: BUILT_IN.onlyFor, level: Level.BUILT_IN }, steps, switchesOff);
}

export function minimumPriority(levels: Levels, scope: Scope | undefined): Resolved<Priority> {
  const read = (preferences: Pick<Preferences, "minimumPriority">) => preferences.minimumPriority;
  const steps = [...generalSteps(levels, read), ...(scope ? scopeSteps(levels, scope, read) : [])];
  return resolve({ value: BUILT_IN.minimumPriority, level: Level.BUILT_IN }, steps, lowers);
}

export function language(levels: Levels): Resolved<string> {
  return withProfile(levels, BUILT_IN.language, levels.profile.language, (preferences) => preferences.language);
}

export function timeZone(levels: Levels): Resolved<string> {
  return withProfile(levels, BUILT_IN.timeZone, levels.profile.timeZone, (preferences) => preferences.timeZone);
}

function withProfile(
  levels: Levels,
  builtIn: string,
  profile: string,
  read: (preferences: Preferences) => string | undefined,
): Resolved<string> {
  const [tenant, user] = generalSteps(levels, read) as [Step<string>, Step<string>];
  const known: Step<string> = { level: Level.PROFILE, byUser: true, value: profile || undefined };
  return resolve({ value: builtIn, level: Level.BUILT_IN }, [tenant, known, user], never);
}

/** The quiet hours, field by field. */
export function quietHours(levels: Levels) {
  const { enabled, startTime, endTime, allowCritical } = BUILT_IN.quietHours;
  return {
    enabled: general<boolean>(levels, enabled, (preferences) => preferences.quietHours?.enabled),
    startTime: general<string>(levels, startTime, (preferences) => preferences.quietHours?.startTime),
    endTime: general<string>(levels, endTime, (preferences) => preferences.quietHours?.endTime),
    allowCritical: general<boolean>(levels, allowCritical, (preferences) => preferences.quietHours?.allowCritical),
  };
}

/** The periods come from one level as a whole: a level that sets none inherits them. */
export function doNotDisturb(levels: Levels) {
  const periods = (preferences: Preferences) => {
    const own = preferences.doNotDisturb?.periods;
    return own === undefined || own.length === 0 ? undefined : own;
  };
  return {
    enabled: general<boolean>(
      levels,
      BUILT_IN.doNotDisturb.enabled,
      (preferences) => preferences.doNotDisturb?.enabled,
    ),
    periods: general<readonly DoNotDisturbPeriod[]>(levels, [], periods),
  };
}

/** The list comes from one level as a whole, as the periods do. */
export function emergencyContacts(levels: Levels) {
  const userIds = (preferences: Preferences) => {
    const own = preferences.emergencyContacts?.userIds;
    return own === undefined || own.length === 0 ? undefined : own;
  };
  return {
    enabled: general<boolean>(
      levels,
      BUILT_IN.emergencyContacts.enabled,
      (preferences) => preferences.emergencyContacts?.enabled,
    ),
    userIds: general<readonly string[]>(levels, [], userIds),
  };
}

/** Field by field. */
export function batching(levels: Levels, scope: Scope | undefined) {
  const { enabled, maxSize, windowMs } = BUILT_IN.batching;
  const field = <T>(builtIn: T, read: (batching: Batching) => T | undefined): Resolved<T> => {
    const own = (set: Pick<Preferences, "batching">) => set.batching && read(set.batching);
    return wished<T>(levels, scope, builtIn, own, own);
  };
  return {
    enabled: field<boolean>(enabled, (set) => set.enabled),
    maxSize: field<number>(maxSize, (set) => set.maxSize),
    windowMs: field<number>(windowMs, (set) => set.window && Math.floor(durationMs(set.window))),
  };
}

/** Field by field. */
export function hourlyCap(levels: Levels) {
  const { enabled, maxPerHour } = BUILT_IN.hourlyCap;
  return {
    enabled: general<boolean>(levels, enabled, (preferences) => preferences.hourlyCap?.enabled),
    maxPerHour: general<number>(levels, maxPerHour, (preferences) => preferences.hourlyCap?.maxPerHour),
  };
}

/** When the digest comes, and whether what is in the scope waits for it. */
export function digest(levels: Levels, scope: Scope | undefined) {
  const { mode, time, days } = BUILT_IN.digest;
  const listed = (set: Preferences) => (set.digest?.days.length ? set.digest.days : undefined);
  return {
    mode: wished<Digest_Mode>(
      levels,
      scope,
      mode,
      (set) => set.digest?.mode,
      (set) => set.digestMode,
    ),
    time: general<string>(levels, time, (set) => set.digest?.time),
    days: general<readonly number[]>(levels, days, listed),
  };
}

/** What the user has set at any level stands above all that the tenant says. */
function wished<T>(
  levels: Levels,
  scope: Scope | undefined,
  builtIn: T,
  read: (preferences: Preferences) => T | undefined,
  readScope: (preferences: ScopePreferences) => T | undefined,
): Resolved<T> {
  const steps = [...generalSteps(levels, read), ...(scope ? scopeSteps(levels, scope, readScope) : [])];
  return resolve({ value: builtIn, level: Level.BUILT_IN }, steps, always);
}

/**
 * How long before a deadline of the type its user is reminded, in ms, where the deadline does not say. `ofType`: what the
 * type itself says; null: nothing.
 */
export function reminderOffsets(
  levels: Levels,
  scope: Pick<Scope, "type" | "category">,
  ofType: readonly number[] | null,
): Resolved<readonly number[]> {
  const start =
    ofType === null
      ? { value: BUILT_IN.reminderOffsetsMs, level: Level.BUILT_IN }
      : { value: ofType, level: Level.TYPE };
  const steps = scopeSteps(
    levels,
    { optIn: false, ...scope },
    (set) => set.reminderOffsets && offsetsOf(set.reminderOffsets),
  );
  return resolve<readonly number[]>(start, steps, always);
}

export function weekendsEnabled(levels: Levels): Resolved<boolean> {
  return general<boolean>(levels, BUILT_IN.weekendsEnabled, (preferences) => preferences.weekendsEnabled);
}

/** How many a channel brings in a day; 0: any number. The lowest of all that is said holds, whoever says it. */
export function channelPerDay(levels: Levels, name: LimitedChannel, ofServer: number): Resolved<number> {
  let lowest: Resolved<number> = { value: ofServer, level: Level.BUILT_IN };
  for (const { level, value } of generalSteps(levels, (set) => set.channelLimits?.[`${name}PerDay`]))
    if (value !== undefined && (lowest.value === 0 || value < lowest.value)) lowest = { value, level };
  return lowest;
}

/** Where things come besides the inbox; the fallbacks come from one level as a whole, as the periods do. */
export function delivery(levels: Levels) {
  const { method, confirmationRequired } = BUILT_IN.delivery;
  const fallbacks = (set: Preferences) => (set.delivery?.fallbacks.length ? set.delivery.fallbacks : undefined);
  return {
    method: general<Channel>(levels, method, (set) => set.delivery?.method),
    fallbacks: general<readonly Channel[]>(levels, [], fallbacks),
    confirmationRequired: general<boolean>(levels, confirmationRequired, (set) => set.delivery?.confirmationRequired),
  };
}

/** How entries form groups in the inbox, field by field. */
export function grouping(levels: Levels) {
  const { enabled, maxSize, windowMs } = BUILT_IN.grouping;
  const window = (preferences: Preferences) => {
    const own = preferences.grouping?.window;
    return own === undefined ? undefined : durationMs(own);
  };
  return {
    enabled: general<boolean>(levels, enabled, (preferences) => preferences.grouping?.enabled),
    maxSize: general<number>(levels, maxSize, (preferences) => preferences.grouping?.maxSize),
    windowMs: general<number>(levels, windowMs, window),
  };
}

/** What the user consents to, field by field. */
export function timing(levels: Levels) {
  const { intelligentTiming, learning, personalisedQuietHours } = BUILT_IN.timing;
  return {
    intelligentTiming: general<boolean>(levels, intelligentTiming, ({ timing }) => timing?.intelligentTiming),
    learning: general<boolean>(levels, learning, ({ timing }) => timing?.learning),
    personalisedQuietHours: general<boolean>(
      levels,
      personalisedQuietHours,
      ({ timing }) => timing?.personalisedQuietHours,
    ),
  };
}
