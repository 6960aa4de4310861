import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { Channel, Priority, Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode, PreferenceLevel as Level, PreferencesSchema } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { NO_LIMITS } from "#src/limits/channel-day.ts";
import { compile } from "#src/preferences/compile.ts";
import { effective } from "#src/preferences/effective.ts";
import type { Levels } from "#src/preferences/merge.ts";
import { zoneClock } from "#src/preferences/zone-clock.ts";
import { leaves } from "#src/rpc/field-mask.ts";

type Init = MessageInitShape<typeof PreferencesSchema>;
const levels = (tenant?: Init, user?: Init, profile: Partial<Levels["profile"]> = {}): Levels => ({
  tenant: tenant && create(PreferencesSchema, tenant),
  user: user && create(PreferencesSchema, user),
  profile: { language: "", timeZone: "", ...profile },
});
const NEWS = { type: "news", category: "marketing", optIn: false };
const scoped = (value: Levels, scope = NEWS) => {
  const { preferences, origins } = effective(value, scope);
  return {
    enabled: [preferences.enabled, origins.enabled],
    inApp: [preferences.channels?.inApp, origins["channels.in_app"]],
    minimum: [preferences.minimumPriority, origins.minimum_priority],
  };
};

test("where nobody has set anything every value is built in, and every field is there", () => {
  const { preferences, origins } = effective(levels(), undefined);
  expect(preferences).toEqual(
    create(PreferencesSchema, {
      enabled: true,
      channels: {
        ...{ inApp: true, email: true, sms: true, push: true, webhook: true, chat: true },
        ...{ smsEmergencyOnly: false, emailDigestOnly: false },
      },
      channelLimits: { emailPerDay: 0, smsPerDay: 0, pushPerDay: 0, webhookPerDay: 0, chatPerDay: 0 },
      delivery: { method: Channel.IN_APP, fallbacks: [], confirmationRequired: false },
      minimumPriority: Priority.LOW,
      quietHours: { enabled: false, startTime: "22:00", endTime: "08:00", allowCritical: true },
      weekendsEnabled: true,
      doNotDisturb: { enabled: false, periods: [] },
      emergencyContacts: { enabled: false, userIds: [] },
      grouping: { enabled: true, maxSize: 10, window: { seconds: 3600n } },
      language: "en",
      timeZone: "UTC",
      batching: { enabled: true, maxSize: 5, window: { seconds: 1800n } },
      hourlyCap: { enabled: true, maxPerHour: 10 },
      digest: { mode: Digest_Mode.IMMEDIATE, time: "09:00", days: [1] },
      timing: { intelligentTiming: true, learning: true, personalisedQuietHours: false },
    }),
  );
  expect(new Set(Object.values(origins))).toEqual(new Set([Level.BUILT_IN]));
  const paths = [
    ...leaves(PreferencesSchema, preferences).keys(),
    "do_not_disturb.periods",
    "emergency_contacts.user_ids",
    "delivery.fallbacks",
  ];
  expect(Object.keys(origins).sort()).toEqual(paths.sort());
});

test("what may be learnt of users is their word before the tenant's", () => {
  const { preferences, origins } = effective(
    levels(
      { timing: { learning: false, intelligentTiming: false, personalisedQuietHours: true } },
      { timing: { learning: true } },
    ),
    undefined,
  );
  expect(preferences.timing).toMatchObject({ intelligentTiming: false, learning: true, personalisedQuietHours: true });
  expect(origins).toMatchObject({
    "timing.intelligent_timing": Level.TENANT,
    "timing.learning": Level.USER,
    "timing.personalised_quiet_hours": Level.TENANT,
  });
});

test("how things come together is the user's word before the tenant's, whatever is more specific", () => {
  const tenant: Init = {
    batching: { maxSize: 3 },
    digest: { mode: Digest_Mode.HOURLY },
    types: { news: { batching: { enabled: false, maxSize: 9 }, digestMode: Digest_Mode.DAILY } },
  };
  const shown = (user?: Init) => {
    const { preferences, origins } = effective(levels(tenant, user), NEWS);
    const { batching, digest } = preferences;
    return [batching?.enabled, batching?.maxSize, origins["batching.max_size"], digest?.mode, origins["digest.mode"]];
  };
  expect(shown()).toEqual([false, 9, Level.TYPE, Digest_Mode.DAILY, Level.TYPE]);
  expect(shown({ batching: { maxSize: 7 }, digest: { mode: Digest_Mode.WEEKLY } })).toEqual([
    false,
    7,
    Level.USER,
    Digest_Mode.WEEKLY,
    Level.USER,
  ]);
  expect(shown({ types: { news: { batching: { enabled: true }, digestMode: Digest_Mode.IMMEDIATE } } })).toEqual([
    true,
    9,
    Level.TYPE,
    Digest_Mode.IMMEDIATE,
    Level.TYPE,
  ]);
});

test("each level overrides the one before, value by value", () => {
  const { preferences, origins } = effective(
    levels(
      { language: "de", timeZone: "Europe/Berlin", quietHours: { enabled: true, startTime: "20:00" } },
      { quietHours: { startTime: "21:00" }, timeZone: "Europe/Lisbon" },
      { language: "pt", timeZone: "Europe/Paris" },
    ),
    undefined,
  );
  expect(preferences).toMatchObject({
    language: "pt",
    timeZone: "Europe/Lisbon",
    quietHours: { enabled: true, startTime: "21:00", endTime: "08:00" },
  });
  expect(origins).toMatchObject({
    language: Level.PROFILE,
    time_zone: Level.USER,
    "quiet_hours.enabled": Level.TENANT,
    "quiet_hours.start_time": Level.USER,
    "quiet_hours.end_time": Level.BUILT_IN,
  });
});

test("the hourly cap is the tenant's until the user says otherwise, field by field, and off is none", () => {
  const tenant = { hourlyCap: { enabled: false, maxPerHour: 4 } };
  const user = { hourlyCap: { enabled: true } };
  const { preferences, origins } = effective(levels(tenant, user), undefined);
  expect(preferences.hourlyCap).toMatchObject({ enabled: true, maxPerHour: 4 });
  expect(origins).toMatchObject({ "hourly_cap.enabled": Level.USER, "hourly_cap.max_per_hour": Level.TENANT });
  const capOf = (...args: Parameters<typeof levels>) => compile(levels(...args), new Set(), zoneClock).maxPerHour;
  expect([capOf(), capOf(tenant), capOf(tenant, user)]).toEqual([10, undefined, 4]);
});

test("the list of emergency contacts comes from one level as a whole", () => {
  const tenant = { emergencyContacts: { enabled: true, userIds: ["on-call", "mum"] } };
  const inherited = effective(levels(tenant), undefined);
  expect(inherited.preferences.emergencyContacts).toMatchObject({ enabled: true, userIds: ["on-call", "mum"] });
  expect(inherited.origins["emergency_contacts.user_ids"]).toBe(Level.TENANT);
  const own = effective(levels(tenant, { emergencyContacts: { userIds: ["dad"] } }), undefined);
  expect(own.preferences.emergencyContacts).toMatchObject({ enabled: true, userIds: ["dad"] });
  expect(own.origins).toMatchObject({
    "emergency_contacts.enabled": Level.TENANT,
    "emergency_contacts.user_ids": Level.USER,
  });
});

test("a category overrides the user, a type overrides the category", () => {
  const set = {
    minimumPriority: Priority.LOW,
    channels: { inApp: true },
    categories: { marketing: { minimumPriority: Priority.HIGH, channels: { inApp: false }, enabled: false } },
    types: { news: { minimumPriority: Priority.NORMAL, enabled: true } },
  };
  expect(scoped(levels(undefined, set))).toEqual({
    enabled: [true, Level.TYPE],
    inApp: [false, Level.CATEGORY],
    minimum: [Priority.NORMAL, Level.TYPE],
  });
  expect(scoped(levels(undefined, set), { ...NEWS, type: "offers" }).enabled).toEqual([false, Level.CATEGORY]);
  expect(scoped(levels(undefined, set), { ...NEWS, type: "constructor", category: "toString" })).toEqual({
    enabled: [true, Level.BUILT_IN],
    inApp: [true, Level.USER],
    minimum: [Priority.LOW, Level.USER],
  });
});

test("a tenant's value for a type does not lift what the user restricted, but restricts what the user left open", () => {
  const lifting = { types: { news: { enabled: true, channels: { inApp: true }, minimumPriority: Priority.LOW } } };
  const restricted = {
    channels: { inApp: false },
    minimumPriority: Priority.HIGH,
    categories: { marketing: { enabled: false } },
  };
  expect(scoped(levels(lifting, restricted))).toEqual({
    enabled: [false, Level.CATEGORY],
    inApp: [false, Level.USER],
    minimum: [Priority.HIGH, Level.USER],
  });
  const restricting = { types: { news: { channels: { inApp: false }, minimumPriority: Priority.CRITICAL } } };
  expect(scoped(levels(restricting, { channels: { inApp: true }, minimumPriority: Priority.LOW }))).toMatchObject({
    inApp: [false, Level.TYPE],
    minimum: [Priority.CRITICAL, Level.TYPE],
  });
  const lifted = { types: { news: { enabled: true, channels: { inApp: true } } } };
  expect(scoped(levels(restricting, lifted))).toMatchObject({ enabled: [true, Level.TYPE], inApp: [true, Level.TYPE] });
});

test("what a channel is for alone is not lifted by a tenant's value for a type, but by the user's", () => {
  const lifted = { types: { news: { channels: { smsEmergencyOnly: false } } } };
  const mine = { channels: { smsEmergencyOnly: true, emailDigestOnly: true } };
  const only = (value: Levels) => {
    const { preferences, origins } = effective(value, NEWS);
    const { smsEmergencyOnly, emailDigestOnly } = preferences.channels ?? {};
    return [smsEmergencyOnly, origins["channels.sms_emergency_only"], emailDigestOnly];
  };
  expect(only(levels(lifted, mine))).toEqual([true, Level.USER, true]);
  expect(only(levels(mine, lifted))).toEqual([false, Level.TYPE, true]);
  expect(only(levels({ ...mine, ...lifted }))).toEqual([false, Level.TYPE, true]);
});

test("of the day's limits of a channel the lowest holds, whoever has set it", () => {
  const inForce = (tenant: number | undefined, user: number | undefined, server: number) => {
    const limits = (smsPerDay: number | undefined) => (smsPerDay === undefined ? {} : { channelLimits: { smsPerDay } });
    const { preferences, origins } = effective(levels(limits(tenant), limits(user)), undefined, {
      ...NO_LIMITS,
      sms: server,
    });
    return [preferences.channelLimits?.smsPerDay, origins["channel_limits.sms_per_day"]];
  };
  expect(inForce(undefined, undefined, 0)).toEqual([0, Level.BUILT_IN]);
  expect(inForce(undefined, undefined, 7)).toEqual([7, Level.BUILT_IN]);
  expect(inForce(5, 9, 7)).toEqual([5, Level.TENANT]);
  expect(inForce(5, 3, 7)).toEqual([3, Level.USER]);
  expect(inForce(9, 8, 7)).toEqual([7, Level.BUILT_IN]);
  expect(inForce(undefined, 8, 0)).toEqual([8, Level.USER]);
});

test("an opt-in type is off until the user, not the tenant, switches it or its category on", () => {
  const optIn = { ...NEWS, optIn: true };
  const on = { types: { news: { enabled: true } } };
  expect(scoped(levels(), optIn).enabled).toEqual([false, Level.BUILT_IN]);
  expect(scoped(levels(on, { enabled: true }), optIn).enabled).toEqual([false, Level.BUILT_IN]);
  expect(scoped(levels(undefined, on), optIn).enabled).toEqual([true, Level.TYPE]);
  const subscribed = { ...optIn, subscribed: true };
  const off = { types: { news: { enabled: false } } };
  expect(scoped(levels(), subscribed).enabled).toEqual([true, Level.TYPE]);
  expect(scoped(levels(undefined, off), subscribed).enabled).toEqual([false, Level.TYPE]);
  expect(scoped(levels(off), subscribed).enabled).toEqual([false, Level.TYPE]);
  expect(scoped(levels(undefined, off), { ...subscribed, optIn: false }).enabled).toEqual([false, Level.TYPE]);
  const category = { categories: { marketing: { enabled: true } } };
  expect(scoped(levels(undefined, category), optIn).enabled).toEqual([true, Level.CATEGORY]);
});

test("who wants nothing at all gets nothing, whatever a type says", () => {
  const off = { enabled: false, types: { news: { enabled: true } } };
  expect(scoped(levels(undefined, off)).enabled).toEqual([false, Level.USER]);
  expect(scoped(levels({ enabled: false })).enabled).toEqual([false, Level.TENANT]);
  expect(scoped(levels({ enabled: false }, { enabled: true })).enabled).toEqual([true, Level.USER]);
});

test("do-not-disturb periods are inherited as a whole", () => {
  const period = (day: number) => ({ dayOfWeek: day, startTime: "09:00", endTime: "10:00" });
  const tenant = { doNotDisturb: { enabled: true, periods: [period(1), period(2)] } };
  const own = effective(levels(tenant, { doNotDisturb: { periods: [period(3)] } }), undefined);
  expect(own.preferences.doNotDisturb).toMatchObject({
    enabled: true,
    periods: [{ dayOfWeek: 3, allowCritical: true }],
  });
  expect(own.origins["do_not_disturb.periods"]).toBe(Level.USER);
  expect(effective(levels(tenant, {}), undefined).preferences.doNotDisturb?.periods).toHaveLength(2);
});

test("what the gates look up is what is in force", () => {
  const value = levels(
    { categories: { marketing: { minimumPriority: Priority.HIGH } } },
    {
      types: { news: { enabled: false }, offers: { channels: { inApp: false } } },
      categories: { social: { enabled: false } },
    },
  );
  const compiled = compile(value, new Set(["poll"]), zoneClock);
  const open = {
    off: undefined,
    minimumPriority: Priority.LOW,
    channelsOff: 0,
    criticalOnly: 0,
    digestOnly: 0,
    batching: { maxSize: 5, windowMs: 1_800_000 },
    digestMode: Digest_Mode.IMMEDIATE,
  };
  expect(compiled).toMatchObject({ optedOut: false, clock: undefined, language: "en", timeZone: "UTC" });
  expect(compiled.scope("order", "orders")).toEqual(open);
  expect(compiled.scope("news", "marketing")).toEqual({
    ...open,
    off: Reason.TYPE_DISABLED,
    minimumPriority: Priority.HIGH,
  });
  expect(compiled.scope("offers", "orders")).toEqual({ ...open, channelsOff: 1 << Channel.IN_APP });
  expect(compiled.scope("like", "social")).toEqual({ ...open, off: Reason.CATEGORY_DISABLED });
  expect(compiled.scope("poll", "orders")).toEqual({ ...open, off: Reason.TYPE_DISABLED });
  expect(compiled.scope("poll", "orders")).toBe(compiled.scope("poll", "orders"));
});

test("a zone this runtime does not know counts as UTC", () => {
  const value = levels(undefined, { timeZone: "Mars/Olympus", quietHours: { enabled: true } });
  expect(compile(value, new Set(), zoneClock)).toMatchObject({ timeZone: "UTC", clock: { clock: { zone: "UTC" } } });
});
