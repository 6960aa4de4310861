import { create } from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, test } from "vitest";
import { Exemption, Gate } from "#gen/posthorn/v1/explain_pb.ts";
import { Channel, Priority } from "#gen/posthorn/v1/notification_pb.ts";
import { Digest_Mode, PreferenceLevel, PreferencesSchema } from "#gen/posthorn/v1/preferences_service_pb.ts";
import { doNotDisturb } from "#src/pipeline/route/gates/do-not-disturb.ts";
import type { Facts } from "#src/pipeline/route/gates/gate.ts";
import { quietHours } from "#src/pipeline/route/gates/quiet-hours.ts";
import { weekend } from "#src/pipeline/route/gates/weekend.ts";
import { compile } from "#src/preferences/compile.ts";
import { rulesPassed } from "#src/preferences/rules-passed.ts";
import { zoneClock } from "#src/preferences/zone-clock.ts";

// What is said of a rule that let one pass is true of the gate that asked it.

const time = fc.constantFrom("00:00", "06:30", "12:00", "22:00", "23:59");
const preferences = fc.record(
  {
    quietHours: fc.record({ enabled: fc.boolean(), startTime: time, endTime: time, allowCritical: fc.boolean() }),
    doNotDisturb: fc.record({
      enabled: fc.boolean(),
      periods: fc.array(
        fc.record({
          ...{ dayOfWeek: fc.nat({ max: 6 }), startTime: time, endTime: time },
          ...{ allowEmergencyContacts: fc.boolean(), allowCritical: fc.boolean(), inactive: fc.boolean() },
        }),
        { minLength: 1, maxLength: 7 },
      ),
    }),
    emergencyContacts: fc.record({
      enabled: fc.constantFrom(true, true, false),
      userIds: fc.constantFrom(["mum"], ["dad"]),
    }),
    weekendsEnabled: fc.boolean(),
  },
  { requiredKeys: [] },
);
const GATES = [
  [Gate.QUIET_HOURS, quietHours],
  [Gate.DO_NOT_DISTURB, doNotDisturb],
  [Gate.WEEKEND, weekend],
] as const;
const START = Date.parse("2026-11-27T00:00:00Z");

test("one that passes a clock rule was exempt where another would have been held, and only there", () => {
  const seen = new Set<Exemption>();
  fc.assert(
    fc.property(
      preferences,
      fc.constantFrom("UTC", "Europe/Berlin", "Asia/Kolkata"),
      fc.nat({ max: 7 * 24 * 60 }),
      fc.constantFrom(Priority.NORMAL, Priority.CRITICAL),
      fc.constantFrom(null, "mum"),
      (set, zone, minute, priority, senderId) => {
        const now = new Date(START + minute * 60_000);
        const clock = zoneClock(zone);
        const levels = {
          tenant: undefined,
          profile: { language: "", timeZone: zone },
          user: create(PreferencesSchema, set as object),
        };
        const about = { type: "t", category: "c", priority, senderId };
        const passed = rulesPassed({ levels, type: undefined }, about, clock);
        const holds = (gate: (typeof GATES)[number][1], priority: number, sender: string | null) => {
          const notification = { ...about, id: "n", priority, senderId: sender ?? undefined, bypassLimits: false };
          const facts = {
            notification: { ...notification, channels: [Channel.IN_APP] },
            preferences: compile(levels, new Set(), () => clock),
          };
          return gate(facts as Facts, now) !== undefined;
        };
        for (const [name, gate] of GATES) {
          if (holds(gate, priority, senderId)) continue;
          const { exemption = Exemption.UNSPECIFIED, enabled } = passed(name, Channel.IN_APP, now);
          seen.add(exemption);
          const wouldHold = holds(gate, Priority.NORMAL, null);
          expect(exemption !== Exemption.UNSPECIFIED).toBe(wouldHold);
          if (wouldHold) expect(enabled).toBe(true);
          if (exemption === Exemption.CRITICAL) expect(priority).toBe(Priority.CRITICAL);
          if (exemption === Exemption.EMERGENCY_CONTACT) expect(senderId).toBe("mum");
        }
      },
    ),
    { numRuns: 3000 },
  );
  expect(seen).toEqual(new Set([Exemption.UNSPECIFIED, Exemption.CRITICAL, Exemption.EMERGENCY_CONTACT]));
});

test("a channel that is for some things alone is said to be so, to what passed because it is CRITICAL", () => {
  const clock = zoneClock("UTC");
  const asked = (channels: object, priority: Priority) => {
    const user = create(PreferencesSchema, { channels } as object);
    const levels = { tenant: undefined, profile: { language: "", timeZone: "UTC" }, user };
    const passed = rulesPassed({ levels, type: undefined }, { type: "t", category: "c", priority }, clock);
    return (gate: Gate, channel: Channel) => passed(gate, channel, new Date(START));
  };
  const only = { smsEmergencyOnly: true, emailDigestOnly: true };
  const critical = asked(only, Priority.CRITICAL);
  const passes = { level: PreferenceLevel.USER, restricted: true, exemption: Exemption.CRITICAL };
  expect(critical(Gate.CHANNEL_SWITCH, Channel.SMS)).toEqual(passes);
  expect(critical(Gate.DIGEST, Channel.EMAIL)).toMatchObject({ ...passes, digestMode: Digest_Mode.IMMEDIATE });
  for (const gate of [Gate.CHANNEL_SWITCH, Gate.DIGEST])
    expect(critical(gate, Channel.IN_APP)).not.toHaveProperty("restricted");
  // What it has for others says nothing of a channel that is for all.
  const normal = asked(only, Priority.NORMAL)(Gate.DIGEST, Channel.IN_APP);
  expect(normal).toEqual({ level: PreferenceLevel.BUILT_IN, digestMode: Digest_Mode.IMMEDIATE });
  // It was collected.
  expect(asked(only, Priority.NORMAL)(Gate.DIGEST, Channel.EMAIL)).toMatchObject({ restricted: true });
  expect(asked(only, Priority.NORMAL)(Gate.DIGEST, Channel.EMAIL)).not.toHaveProperty("exemption");
  const open = asked({}, Priority.CRITICAL);
  expect(open(Gate.CHANNEL_SWITCH, Channel.SMS)).toEqual({ level: PreferenceLevel.BUILT_IN, restricted: false });
});
