import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { Gate } from "#gen/posthorn/v1/explain_pb.ts";
import { Channel, Priority, Reason } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode, PreferencesSchema } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { DigestRule, NotificationTypeSchema } from "#gen/posthorn/v1/type_service_pb.ts";
import { GATES } from "#src/notifications/explain.ts";
import { decide, deciding, type Facts, GATE_ORDER } from "#src/pipeline/route/gates/decide.ts";
import { compile } from "#src/preferences/compile.ts";
import { zoneClock } from "#src/preferences/zone-clock.ts";
import { filterEvaluator } from "#src/subscriptions/evaluate.ts";
import { Kind, type Wish, wishesOf } from "#src/subscriptions/rules.ts";
import { definitionOf, rulesOf } from "#src/types/type.ts";

const SATURDAY_NIGHT = new Date("2026-01-10T23:30:00Z");

function facts(
  user: MessageInitShape<typeof PreferencesSchema>,
  notification: Partial<Facts["notification"]> = {},
  optIn: string[] = [],
  subscriptions: Wish[] = [],
): Facts {
  const levels = {
    tenant: undefined,
    user: create(PreferencesSchema, user),
    profile: { language: "", timeZone: "Europe/Lisbon" },
  };
  return {
    notification: {
      id: "019a0000-0000-7000-8000-000000000001",
      type: "news",
      category: "marketing",
      priority: Priority.NORMAL,
      channels: [Channel.IN_APP],
      bypassLimits: false,
      ...notification,
    },
    preferences: compile(levels, new Set(optIn), zoneClock, { wishes: wishesOf(subscriptions, filterEvaluator()) }),
  };
}

const only = (given: Facts, now = SATURDAY_NIGHT) => {
  const verdicts = decide(given, now);
  expect(verdicts).toHaveLength(1);
  const { channel, ...rest } = verdicts[0]!;
  expect(channel).toBe(Channel.IN_APP);
  return rest;
};
const suppressed = (reason: Reason) => ({ kind: "suppress", reason });
const held = (reason: Reason, until: string) => ({ kind: "hold", reason, until: new Date(until) });
const quietHours = { enabled: true };
const periods = [{ dayOfWeek: 6, startTime: "23:00", endTime: "23:45" }];

test("without an objection it is delivered", () => {
  expect(only(facts({}))).toEqual({ kind: "deliver" });
});

test.each<[string, Facts, unknown]>([
  ["expired at its expire_time", facts({}, { expiresAt: SATURDAY_NIGHT }), suppressed(Reason.EXPIRED)],
  ["type deleted", facts({}, { typeDeleted: true }), suppressed(Reason.TYPE_DELETED)],
  ["opted out", facts({ enabled: false }), suppressed(Reason.USER_OPTED_OUT)],
  ["type off", facts({ types: { news: { enabled: false } } }), suppressed(Reason.TYPE_DISABLED)],
  ["opt-in type not asked for", facts({}, {}, ["news"]), suppressed(Reason.TYPE_DISABLED)],
  ["category off", facts({ categories: { marketing: { enabled: false } } }), suppressed(Reason.CATEGORY_DISABLED)],
  ["channel off", facts({ channels: { inApp: false } }), suppressed(Reason.CHANNEL_DISABLED)],
  [
    "channel off for a type",
    facts({ types: { news: { channels: { inApp: false } } } }),
    suppressed(Reason.CHANNEL_DISABLED),
  ],
  ["below the minimum", facts({ minimumPriority: Priority.HIGH }), suppressed(Reason.BELOW_MINIMUM_PRIORITY)],
  [
    "filtered, before it would wait",
    facts({ quietHours }, {}, [], [[Kind.TYPE, "news", "priority > 3"]]),
    suppressed(Reason.FILTERED),
  ],
  [
    "a filter that fails",
    facts({}, {}, [], [[Kind.TYPE, "news", "data.city == 'x'"]]),
    { ...suppressed(Reason.FILTERED), filterFailed: true },
  ],
  ["opt-in type subscribed to", facts({}, {}, ["news"], [[Kind.TYPE, "news", ""]]), { kind: "deliver" }],
  [
    "before its time",
    facts({}, { scheduledAt: new Date("2026-01-11T00:00:00Z") }),
    held(Reason.SCHEDULED, "2026-01-11T00:00:00Z"),
  ],
  ["quiet hours", facts({ quietHours }), held(Reason.QUIET_HOURS, "2026-01-11T08:00:00Z")],
  [
    "do not disturb",
    facts({ doNotDisturb: { enabled: true, periods } }),
    held(Reason.DO_NOT_DISTURB, "2026-01-10T23:45:00Z"),
  ],
  ["weekend", facts({ weekendsEnabled: false }), held(Reason.WEEKEND, "2026-01-12T00:00:00Z")],
  [
    "quiet hours that never end: asked again in a day",
    facts({ quietHours: { enabled: true, startTime: "08:00", endTime: "08:00" } }),
    held(Reason.QUIET_HOURS, "2026-01-11T23:30:00Z"),
  ],
])("%s", (_, given, verdict) => {
  expect(only(given)).toEqual(verdict);
});

test("what is at or above the minimum priority passes", () => {
  expect(only(facts({ minimumPriority: Priority.NORMAL })).kind).toBe("deliver");
});

test("the gates are asked in the order in which the README tells them", () => {
  type Init = Exclude<MessageInitShape<typeof PreferencesSchema>, { $typeName: string }>;
  // Everything objects; then one after the other is lifted.
  let user: Init = {
    enabled: false,
    types: { news: { enabled: false } },
    channels: { email: false },
    minimumPriority: Priority.HIGH,
    quietHours,
    doNotDisturb: { enabled: true, periods },
    weekendsEnabled: false,
    digest: { mode: Digest_Mode.DAILY },
  };
  let notification: Partial<Facts["notification"]> = {
    channels: [Channel.EMAIL],
    expiresAt: SATURDAY_NIGHT,
    typeDeleted: true,
    scheduledAt: new Date("2026-01-11T00:00:00Z"),
    rules: rulesOf(definitionOf(create(NotificationTypeSchema, { key: "news", batching: { batchable: true } }))),
  };
  let filters: Wish[] = [[Kind.TYPE, "news", "priority > 3"]];
  let outside: Channel[] = [];
  const lifts: [Reason | undefined, () => void][] = [
    [Reason.EXPIRED, () => (notification = { ...notification, expiresAt: undefined })],
    [Reason.TYPE_DELETED, () => (notification = { ...notification, typeDeleted: false })],
    [Reason.USER_OPTED_OUT, () => (user = { ...user, enabled: true })],
    [Reason.TYPE_DISABLED, () => (user = { ...user, types: {} })],
    [Reason.CHANNEL_DISABLED, () => (user = { ...user, channels: {} })],
    [Reason.CHANNEL_UNAVAILABLE, () => (outside = [Channel.EMAIL])],
    [Reason.BELOW_MINIMUM_PRIORITY, () => (user = { ...user, minimumPriority: Priority.LOW })],
    [Reason.FILTERED, () => (filters = [])],
    [Reason.SCHEDULED, () => (notification = { ...notification, scheduledAt: undefined })],
    [Reason.DIGEST, () => (user = { ...user, digest: {} })],
    [Reason.QUIET_HOURS, () => (user = { ...user, quietHours: {} })],
    [Reason.DO_NOT_DISTURB, () => (user = { ...user, doNotDisturb: {} })],
    [Reason.WEEKEND, () => (user = { ...user, weekendsEnabled: true })],
    [Reason.BATCHING, () => (notification = { ...notification, rules: undefined })],
    [undefined, () => undefined],
  ];
  for (const [reason, lift] of lifts) {
    const [verdict] = deciding(outside)(facts(user, notification, [], filters), SATURDAY_NIGHT);
    expect(verdict && "reason" in verdict ? verdict.reason : undefined).toBe(reason);
    lift();
  }
});

test("a hold lasts until no clock rule holds, and names the first that does", () => {
  expect(only(facts({ quietHours, weekendsEnabled: false }))).toEqual(held(Reason.QUIET_HOURS, "2026-01-12T08:00:00Z"));
});

test("CRITICAL passes the clock rules where the user allows it, and nothing else", () => {
  const critical = { priority: Priority.CRITICAL };
  const waiting = { quietHours, weekendsEnabled: false, doNotDisturb: { enabled: true, periods } };
  expect(only(facts(waiting, critical)).kind).toBe("deliver");
  const strict = { ...waiting, quietHours: { enabled: true, allowCritical: false } };
  expect(only(facts(strict, critical))).toEqual(held(Reason.QUIET_HOURS, "2026-01-11T08:00:00Z"));
  expect(only(facts({ enabled: false }, critical))).toEqual(suppressed(Reason.USER_OPTED_OUT));
});

test("what an emergency contact sends passes the periods that allow it", () => {
  const contacts = { enabled: true, userIds: ["mum"] };
  const open = [{ ...periods[0], allowEmergencyContacts: true }];
  const disturbed = { enabled: true, periods: open };
  const from = (senderId: string | undefined, user: Parameters<typeof facts>[0]) => only(facts(user, { senderId }));
  const allowing = { doNotDisturb: disturbed, emergencyContacts: contacts };
  expect(from("mum", allowing).kind).toBe("deliver");
  for (const stranger of ["boss", undefined])
    expect(from(stranger, allowing)).toEqual(held(Reason.DO_NOT_DISTURB, "2026-01-10T23:45:00Z"));
  expect(from("mum", { ...allowing, emergencyContacts: { ...contacts, enabled: false } }).kind).toBe("hold");
  expect(from("mum", { ...allowing, doNotDisturb: { enabled: true, periods } }).kind).toBe("hold");
  expect(from("mum", { ...allowing, quietHours })).toEqual(held(Reason.QUIET_HOURS, "2026-01-11T08:00:00Z"));
});

test("each channel has its verdict, in the notification's order", () => {
  const { EMAIL, SMS, IN_APP } = Channel;
  const given = facts({ channels: { inApp: false }, quietHours }, { channels: [EMAIL, IN_APP, SMS] });
  expect(deciding([EMAIL])(given, SATURDAY_NIGHT)).toEqual([
    { channel: EMAIL, ...held(Reason.QUIET_HOURS, "2026-01-11T08:00:00Z") },
    { channel: IN_APP, ...suppressed(Reason.CHANNEL_DISABLED) },
    { channel: SMS, ...suppressed(Reason.CHANNEL_UNAVAILABLE) },
  ]);
});

describe("a digest that is due while the clock allows nothing", () => {
  const day = { quietHours: { enabled: true, startTime: "07:00", endTime: "20:00" } };
  const flush = (user: Parameters<typeof facts>[0], at: string, more: Partial<Facts["notification"]> = {}) => {
    const verdict = only(facts(user, more), new Date(`2026-01-${at}Z`));
    return verdict.kind === "batch" ? verdict.plan : verdict;
  };
  const daily = { ...day, digest: { mode: Digest_Mode.DAILY, time: "18:00" } };
  const due = (at: string) => ({ key: "d:3:1", flushAt: new Date(`2026-01-${at}Z`) });

  test("takes what is sent meanwhile, and comes as soon as it does", () => {
    for (const at of ["09T06:00:00", "09T17:00:00", "09T17:59:59"])
      expect(flush(daily, at)).toMatchObject(due("09T20:00:00"));
    // After its time it is that of the next day.
    for (const at of ["09T18:00:00", "09T21:00:00"]) expect(flush(daily, at)).toMatchObject(due("10T20:00:00"));
    expect(flush({ ...day, digest: { mode: Digest_Mode.HOURLY } }, "09T07:30:00")).toMatchObject({
      flushAt: new Date("2026-01-09T20:00:00Z"),
    });
  });
  test("is that of who left one before its end, too", () => {
    const since = { batchedSince: new Date("2026-01-09T17:00:00Z") };
    expect(flush(daily, "09T18:30:00", since)).toMatchObject(due("09T20:00:00"));
    expect(flush(daily, "10T08:00:00", since)).toMatchObject({ flushAt: new Date("2026-01-10T20:00:00Z") });
  });
  test("does not take what the digest does not", () => {
    const held = { kind: "hold", reason: Reason.QUIET_HOURS };
    const never = rulesOf(definitionOf(create(NotificationTypeSchema, { key: "news", digest: DigestRule.NEVER })));
    expect(flush(daily, "09T17:00:00", { rules: never })).toMatchObject(held);
    expect(flush(daily, "09T17:00:00", { batchedAlready: true })).toMatchObject(held);
  });
  test("is no nearer where the clock never allows anything", () => {
    const always = { quietHours: { enabled: true, startTime: "08:00", endTime: "08:00" }, digest: daily.digest };
    expect(flush(always, "09T17:00:00")).toMatchObject(due("10T18:00:00"));
  });
});

test("text messages are for CRITICAL alone where the user wants that", () => {
  const sms = deciding([Channel.SMS]);
  const given = (priority: Priority, channels = { smsEmergencyOnly: true }) =>
    sms(facts({ channels }, { priority, channels: [Channel.IN_APP, Channel.SMS] }), SATURDAY_NIGHT);
  expect(given(Priority.HIGH)).toEqual([
    { channel: Channel.IN_APP, kind: "deliver" },
    { channel: Channel.SMS, ...suppressed(Reason.EMERGENCY_ONLY) },
  ]);
  expect(given(Priority.CRITICAL).map(({ kind }) => kind)).toEqual(["deliver", "deliver"]);
});

test("e-mail comes together alone where the user wants that, and is not lost where it could come by nothing else", () => {
  const email = deciding([Channel.EMAIL]);
  const both = [Channel.IN_APP, Channel.EMAIL];
  const asked = (
    more: Partial<Facts["notification"]>,
    { inApp = true, mode }: { inApp?: boolean; mode?: Digest_Mode } = {},
  ) =>
    email(
      facts({ channels: { inApp, emailDigestOnly: true }, digest: { mode: mode ?? Digest_Mode.IMMEDIATE } }, more),
      SATURDAY_NIGHT,
    ).map((verdict) => (verdict.kind === "deliver" ? "deliver" : [verdict.kind, verdict.reason]));
  const collects = ["batch", Reason.DIGEST];
  const keeps = ["suppress", Reason.DIGEST_ONLY];
  expect(asked({ channels: both })).toEqual(["deliver", keeps]);
  expect(asked({ channels: both, priority: Priority.CRITICAL })).toEqual(["deliver", "deliver"]);
  expect(asked({ channels: both }, { mode: Digest_Mode.HOURLY })).toEqual([collects, collects]);
  expect(asked({ channels: both, batchedAlready: true, collected: true })).toEqual(["deliver", "deliver"]);
  expect(asked({ channels: both, batchedAlready: true })).toEqual(["deliver", keeps]);
  // Singly it could come by e-mail alone.
  expect(asked({ channels: [Channel.EMAIL] })).toEqual([collects]);
  expect(asked({ channels: both }, { inApp: false })).toEqual([["suppress", Reason.CHANNEL_DISABLED], collects]);
  expect(asked({ channels: [Channel.EMAIL], batchedAlready: true })).toEqual([keeps]);
  const never = rulesOf(definitionOf(create(NotificationTypeSchema, { key: "news", digest: DigestRule.NEVER })));
  expect(asked({ channels: [Channel.EMAIL], rules: never })).toEqual([keeps]);
  const [daily] = email(facts({ channels: { emailDigestOnly: true } }, { channels: [Channel.EMAIL] }), SATURDAY_NIGHT);
  expect(daily).toMatchObject({ plan: { flushAt: new Date("2026-01-11T09:00:00Z") } });
});

test("gates are asked in the order in which they are explained, the limits behind them", () => {
  expect([...GATE_ORDER, Gate.HOURLY_CAP, Gate.RATE_LIMITS]).toEqual(GATES);
});

describe("a poor hour", () => {
  const QUIET = { personalisedQuietHours: true };
  // Friday, 10:20 in Lisbon. Good are 13 and 20 o'clock.
  const now = new Date("2026-01-09T10:20:00Z");
  const rules = { batching: undefined, digest: DigestRule.UNSPECIFIED, worth: 9, maxWaitMs: 12 * 3_600_000 };
  const hours = { weekday: (1 << 13) | (1 << 20), weekend: 1 << 13 };
  const good = { ...hours, awake: { weekday: hours.weekday | (1 << 11) | (1 << 12), weekend: hours.weekend } };
  const about = (more: Partial<Facts["notification"]> = {}, user: MessageInitShape<typeof PreferencesSchema> = {}) => ({
    ...facts(user, { rules, acceptedAt: now, userId: "ann", ...more }),
    good,
  });
  const hourOf = (given: Facts) => {
    const verdict = only(given, now);
    return "until" in verdict ? new Date(verdict.until).getUTCHours() : verdict.kind;
  };

  test("is waited out, until the next good one at most so far away as the type says", () => {
    expect(only(about(), now)).toMatchObject({ kind: "hold", reason: Reason.OPTIMAL_TIMING });
    expect(hourOf(about())).toBe(13);
    const accepted = (hoursAgo: number) => ({ acceptedAt: new Date(now.getTime() - hoursAgo * 3_600_000) });
    expect(hourOf(about(accepted(8)))).toBe(13);
    expect(hourOf(about(accepted(9.5)))).toBe("deliver");
    expect(hourOf(about({ ...accepted(9.5), scheduledAt: now }))).toBe(13);
  });
  test("is of no account where nothing is known or nothing may wait", () => {
    expect(hourOf({ ...about(), good: undefined })).toBe("deliver");
    expect(hourOf(about({ rules: { ...rules, maxWaitMs: undefined } }))).toBe("deliver");
    for (const priority of [Priority.HIGH, Priority.CRITICAL]) expect(hourOf(about({ priority }))).toBe("deliver");
    expect(hourOf(about({ batchedAlready: true }))).toBe("deliver");
    for (const timing of [{ intelligentTiming: false }, { learning: false }, { ...QUIET, learning: false }])
      expect(hourOf(about({}, { timing }))).toBe("deliver");
  });
  test("is quiet for whatever type where its user wants that, until they look at all, for a day at most", () => {
    const impatient = { rules: { ...rules, maxWaitMs: undefined } };
    for (const timing of [QUIET, { ...QUIET, intelligentTiming: false }]) {
      expect(hourOf(about(impatient, { timing }))).toBe(11);
      expect(hourOf(about({ ...impatient, priority: Priority.HIGH }, { timing }))).toBe("deliver");
      expect(hourOf(about({ ...impatient, batchedAlready: true }, { timing }))).toBe("deliver");
      expect(hourOf({ ...about(impatient, { timing }), good: undefined })).toBe("deliver");
    }
    // Its type lets it wait longer, where that is wanted; or not so long.
    expect(hourOf(about({}, { timing: QUIET }))).toBe(13);
    expect(hourOf(about({}, { timing: { ...QUIET, intelligentTiming: false } }))).toBe(11);
    expect(hourOf(about({ rules: { ...rules, maxWaitMs: 60_000 } }, { timing: QUIET }))).toBe(11);
    const dayAgo = { ...impatient, acceptedAt: new Date(now.getTime() - 24 * 3_600_000) };
    expect(hourOf(about(dayAgo, { timing: QUIET }))).toBe("deliver");
    // An hour in which they look now and then is not quiet.
    const eleven = new Date("2026-01-09T11:20:00Z");
    expect(only(about(impatient, { timing: QUIET }), eleven)).toEqual({ kind: "deliver" });
  });
  test("does not hold what would expire, nor a reminder for more than half of its time", () => {
    const until = (time: string, tags: string[] = []) =>
      hourOf(about({ expiresAt: new Date(`2026-01-09T${time}:00Z`), tags }));
    expect([until("13:00"), until("14:00"), until("23:59")]).toEqual(["deliver", 13, 13]);
    const reminder = ["deadline:report"];
    expect([until("14:00", reminder), until("15:30", reminder), until("17:00", reminder)]).toEqual([
      "deliver",
      "deliver",
      13,
    ]);
  });
  test("comes after the clock's rules, and looks for an hour that they allow", () => {
    const quiet = (startTime: string, endTime: string) => ({ quietHours: { enabled: true, startTime, endTime } });
    expect(only(about({}, quiet("10:00", "12:00")), now)).toEqual(held(Reason.QUIET_HOURS, "2026-01-09T12:00:00Z"));
    expect(hourOf(about({}, quiet("12:00", "14:00")))).toBe(20);
    expect(hourOf(about({}, quiet("12:00", "21:00")))).toBe("deliver");
  });
  test("leaves to the digest what that takes, and nothing else", () => {
    // A day, or a week, would go by if it came after the digest's time.
    const user = { digest: { mode: Digest_Mode.DAILY, time: "12:00" } };
    expect(only(about({}, user), now)).toMatchObject({ kind: "batch", reason: Reason.DIGEST });
    expect(hourOf(about({ rules: { ...rules, digest: DigestRule.NEVER } }, user))).toBe(13);
  });
});
